internal import CKernels

/// A factor and a summand for each channel.
package struct ScaleShift {
    package let channels: Int
    /// Scales, then shifts, both padded.
    private let buffer: AlignedBuffer<Float>
    private let padded: Int

    package init(channels: Int, workspace: Workspace) {
        self.channels = channels
        padded = (channels + 15) / 16 * 16 + 16
        buffer = workspace.buffer(2 * padded)
    }

    var scale: UnsafePointer<Float> { UnsafePointer(buffer.pointer) }
    var shift: UnsafePointer<Float> { UnsafePointer(buffer.pointer + padded) }

    package subscript(channel: Int) -> (scale: Float, shift: Float) {
        get {
            precondition(channel >= 0 && channel < channels)
            return (buffer.pointer[channel], buffer.pointer[padded + channel])
        }
        nonmutating set {
            precondition(channel >= 0 && channel < channels)
            buffer.pointer[channel] = newValue.scale
            buffer.pointer[padded + channel] = newValue.shift
        }
    }
}

/// Sums that a group's mean and variance follow from; those of parts add up to those of the whole.
package struct GroupSums: Sendable, Hashable {
    package var sum = 0.0
    package var squares = 0.0
    package var count = 0.0

    package init(sum: Double = 0, squares: Double = 0, count: Double = 0) {
        (self.sum, self.squares, self.count) = (sum, squares, count)
    }
}

/// y = (x - mean) / sqrt(variance + eps) * gamma + beta, with mean and variance over all positions of a group of
/// channels (Wu & He, arXiv:1803.08494; `torch.nn.GroupNorm`).
package struct GroupNorm: Sendable {
    package let groups: Int
    package let eps: Double
    package let gamma, beta: [Float]
    package let kernels: KernelSet

    package init(gamma: [Float], beta: [Float], groups: Int, eps: Double, kernels: KernelSet) {
        precondition(gamma.count == beta.count && groups > 0 && gamma.count % groups == 0)
        (self.gamma, self.beta, self.groups, self.eps, self.kernels) = (gamma, beta, groups, eps, kernels)
    }

    /// The norm of `input`, with `second` beside it in channels, as a scale and a shift of each channel.
    package func scaleShift(_ input: Activation, _ second: Activation? = nil, workspace: Workspace) -> ScaleShift {
        scaleShift(by: sums(of: input, second), workspace: workspace)
    }

    /// The sums over all positions, with `second` beside `input` in channels; free of charge where the layers that made
    /// them left them.
    package func sums(of input: Activation, _ second: Activation? = nil) -> [GroupSums] {
        precondition(input.channels + (second?.channels ?? 0) == gamma.count)
        for activation in [input, second] {
            if let activation, activation.moments == nil { measure(activation) }
        }
        return groupSums(positions: input.height * input.width) { channel in
            channel < input.channels ? input.moments(of: channel) : second?.moments(of: channel - input.channels)
        }
    }

    /// The sums over the positions within `cell`, row by row.
    package func sums(of input: Activation, in cell: Rect) -> [GroupSums] {
        precondition(input.channels == gamma.count)
        precondition(
            cell.x >= 0 && cell.y >= 0 && cell.x + cell.width <= input.width && cell.y + cell.height <= input.height)
        let squaresAt = kernels.padded(input.channels)
        let row = AlignedBuffer<Double>(count: 2 * squaresAt)
        var sums = [Double](repeating: 0, count: 2 * squaresAt)
        for y in cell.y..<cell.y + cell.height {
            tf_moments(
                kernels.isa, input.values.pointer + (y * input.width + cell.x) * input.channels, cell.width,
                Int32(input.channels), row.pointer)
            let row = row.span
            for i in sums.indices { sums[i] += row[i] }
        }
        return groupSums(positions: cell.width * cell.height) { (sums[$0], sums[squaresAt + $0]) }
    }

    private func groupSums(positions: Int, _ moments: (Int) -> (sum: Double, squares: Double)?) -> [GroupSums] {
        let size = gamma.count / groups
        return (0..<groups).map { group in
            var sums = GroupSums(count: Double(positions * size))
            for channel in group * size..<(group + 1) * size {
                guard let moments = moments(channel) else { preconditionFailure("measured before") }
                sums.sum += moments.sum
                sums.squares += moments.squares
            }
            return sums
        }
    }

    /// The norm with the mean and the variance that follow from the sums of each group.
    package func scaleShift(by sums: [GroupSums], workspace: Workspace) -> ScaleShift {
        precondition(sums.count == groups)
        let result = ScaleShift(channels: gamma.count, workspace: workspace)
        let size = gamma.count / groups
        for (group, sums) in sums.enumerated() {
            let mean = sums.sum / sums.count
            let variance = max(0, sums.squares / sums.count - mean * mean)
            let factor = 1 / (variance + eps).squareRoot()
            for channel in group * size..<(group + 1) * size {
                let scale = factor * Double(gamma[channel])
                result[channel] = (Float(scale), Float(Double(beta[channel]) - mean * scale))
            }
        }
        return result
    }

    /// The norm itself.
    /// - Parameter scaleShift: as `scaleShift` gave it; nil: of the input
    package func callAsFunction(_ input: Activation, _ scaleShift: ScaleShift? = nil, workspace: Workspace)
        -> Activation
    {
        let scaleShift = scaleShift ?? self.scaleShift(input, workspace: workspace)
        let output = workspace.activation(height: input.height, width: input.width, channels: input.channels)
        tf_scale_shift(
            kernels.isa, input.values.pointer, input.height * input.width, Int32(input.channels), scaleShift.scale,
            scaleShift.shift, 0,
            output.values.pointer)
        output.moments = nil
        withExtendedLifetime(scaleShift) {}
        return output
    }

    private func measure(_ activation: Activation) {
        tf_moments(
            kernels.isa, activation.values.pointer, activation.height * activation.width, Int32(activation.channels),
            activation.momentBuffer.pointer)
        activation.moments = Activation.Moments(squaresAt: kernels.padded(activation.channels))
    }
}
