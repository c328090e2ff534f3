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

/// y = (x - mean) / sqrt(variance + eps) * gamma + beta, with mean and variance over all positions of a group of channels
/// (Wu & He, arXiv:1803.08494; `torch.nn.GroupNorm`).
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
        let channels = gamma.count, size = channels / groups
        precondition(input.channels + (second?.channels ?? 0) == channels)
        let result = ScaleShift(channels: channels, workspace: workspace)
        for activation in [input, second] {
            if let activation, activation.moments == nil { measure(activation) }
        }
        let positions = Double(input.height * input.width)
        for group in 0..<groups {
            var sum = 0.0, squares = 0.0
            for channel in group * size..<(group + 1) * size {
                let (activation, c) = channel < input.channels ? (input, channel) : (second ?? input, channel - input.channels)
                guard let moments = activation.moments(of: c) else { preconditionFailure("measured above") }
                sum += moments.sum
                squares += moments.squares
            }
            let count = positions * Double(size)
            let mean = sum / count
            let variance = max(0, squares / count - mean * mean)
            let factor = 1 / (variance + eps).squareRoot()
            for channel in group * size..<(group + 1) * size {
                let scale = factor * Double(gamma[channel])
                result[channel] = (Float(scale), Float(Double(beta[channel]) - mean * scale))
            }
        }
        return result
    }

    /// The norm itself.
    package func callAsFunction(_ input: Activation, workspace: Workspace) -> Activation {
        let scaleShift = scaleShift(input, workspace: workspace)
        let output = workspace.activation(height: input.height, width: input.width, channels: input.channels)
        tf_scale_shift(
            kernels.isa, input.values.pointer, input.height * input.width, Int32(input.channels), scaleShift.scale, scaleShift.shift, 0,
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
