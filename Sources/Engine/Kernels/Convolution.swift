internal import CKernels

/// A 3x3 or 1x1 convolution with packed weights, and all that can be done while its data passes by: the group norm and
/// SiLU before it, the upsampling and the concatenation of its inputs, the bias, the shortcut, and the sums for the
/// group norm after it.
package final class Convolution: Sendable {
    package let outputs, inputs, size, stride, padding: Int
    package let upsampling: Bool
    package let algorithm: Algorithm
    package let kernels: KernelSet
    private let weights: ConstantBuffer
    private let storage: tf_storage
    private let bias: ConstantBuffer
    private let shortcut: Shortcut?

    /// How it is computed.
    package enum Algorithm: Sendable {
        /// Winograd's F(4x4, 3x3) (Lavin & Gray, arXiv:1509.09308) with weights transformed beforehand, always in
        /// single precision: four times as large, and read for every few tiles.
        case winograd
        /// The same with weights as they are, in any precision, transformed on the way for 64 tiles at a time.
        case wideWinograd
        /// A matrix product over the taps.
        case direct

        /// The rule, by what was measured on one core (Sapphire Rapids, 2 MB of second-level cache, 168 GFLOP/s at
        /// best; GFLOP/s of the definition):
        ///
        /// | layer                  | winograd | wideWinograd | direct |
        /// |------------------------|----------|--------------|--------|
        /// | 64 to 64 at 32x32      | 450      | 355          |        |
        /// | 128 to 128 at 64x64    | 410      | 370          |        |
        /// | 192 to 128 at 64x64    | 380      | 350          |        |
        /// | 320 to 320 at 64x64    | 366      | 406          | 151    |
        /// | 640 to 640 at 32x32    | 242      | 409          |        |
        /// | 1280 to 1280 at 16x16  | 222      | 390          | 116    |
        /// | 1280 to 1280 at 8x8    | 84       | 168          | 97     |
        ///
        /// So the layer's size alone decides, not that of its input, and only weights of up to 3.5 MB are kept
        /// transformed.
        static func suited(outputs: Int, inputs: Int, size: Int, stride: Int, padding: Int) -> Algorithm {
            guard size == 3, stride == 1, padding == 1 else { return .direct }
            return outputs * inputs <= 128 * 192 ? .winograd : .wideWinograd
        }
    }

    private enum Shortcut {
        /// Added tile by tile.
        case fused(inputs: Int, weights: ConstantBuffer)
        /// Computed first, into the output.
        case before(Convolution)

        var inputs: Int {
            switch self {
            case .fused(let inputs, _): inputs
            case .before(let convolution): convolution.inputs
            }
        }
    }

    /// - Parameters:
    ///   - weights: outputs x inputs x size x size
    ///   - bias: outputs
    ///   - size: 1 or 3
    ///   - stride: 1, or 2
    ///   - padding: 1 pads every side (for size 3); 0 pads only the bottom and the right, as diffusers'
    ///     `Downsample2D(padding=0)` does.
    ///   - upsampling: whether the input is upsampled twice by nearest neighbour first (size 3, stride 1)
    ///   - shortcut: a 1x1 convolution of another input that is added to the output: weights outputs x inputs, and bias
    ///   - precision: of the weights in memory (but see `Algorithm.winograd`). The arithmetic is single precision
    ///     always: Winograd does a quarter of the multiplications, which is more than dot products of bfloat16 would
    ///     save, and too inexact for them.
    ///   - algorithm: instead of the one that suits; Winograd's take size 3, stride 1 and padding 1
    package init(
        weights: [Float], bias: [Float], outputs: Int, inputs: Int, size: Int = 3, stride: Int = 1, padding: Int = 1,
        upsampling: Bool = false,
        shortcut: (weights: [Float], bias: [Float], inputs: Int)? = nil, precision: Precision = .float32,
        algorithm: Algorithm? = nil,
        kernels: KernelSet
    ) {
        precondition(size == 1 || size == 3)
        precondition(weights.count == outputs * inputs * size * size && bias.count == outputs)
        precondition(!upsampling || size == 3 && stride == 1 && padding == 1)
        let algorithm =
            algorithm ?? .suited(outputs: outputs, inputs: inputs, size: size, stride: stride, padding: padding)
        precondition(algorithm == .direct || size == 3 && stride == 1 && padding == 1)
        (self.outputs, self.inputs, self.size, self.stride, self.padding) = (
            outputs, inputs, size, stride, size == 1 ? 0 : padding
        )
        (self.upsampling, self.algorithm, self.kernels) = (upsampling, algorithm, kernels)

        let isa = kernels.isa, (n, k, s) = (Int32(outputs), Int32(inputs), Int32(size))
        storage = algorithm == .winograd ? TF_FLOAT32 : precision.storage
        switch algorithm {
        case .winograd:
            let packed = AlignedBuffer<Float>(count: tf_winograd_weights(isa, n, k, upsampling ? 1 : 0))
            tf_pack_winograd(isa, weights, n, k, upsampling ? 1 : 0, packed.pointer)
            self.weights = ConstantBuffer(packed)
        case .wideWinograd:
            let packed = storage.buffer(tf_direct_weights(isa, n, k, s))
            tf_pack_wide(isa, weights, n, k, storage, packed.pointer)
            self.weights = ConstantBuffer(packed)
        case .direct:
            let packed = storage.buffer(tf_direct_weights(isa, n, k, s))
            tf_pack_direct(isa, weights, n, k, s, storage, packed.pointer)
            self.weights = ConstantBuffer(packed)
        }

        guard let shortcut else {
            self.shortcut = nil
            self.bias = ConstantBuffer(bias, paddedTo: kernels.padded(outputs))
            return
        }
        precondition(shortcut.weights.count == outputs * shortcut.inputs && shortcut.bias.count == outputs)
        if algorithm == .winograd {
            let k = Int32(shortcut.inputs)
            let packed = AlignedBuffer<Float>(count: tf_direct_weights(isa, n, k, 1))
            tf_pack_direct(isa, shortcut.weights, n, k, 1, TF_FLOAT32, packed.pointer)
            self.shortcut = .fused(inputs: shortcut.inputs, weights: ConstantBuffer(packed))
            self.bias = ConstantBuffer(zip(bias, shortcut.bias).map { $0 + $1 }, paddedTo: kernels.padded(outputs))
        } else {
            self.shortcut = .before(
                Convolution(
                    weights: shortcut.weights, bias: shortcut.bias, outputs: outputs, inputs: shortcut.inputs, size: 1,
                    precision: precision,
                    kernels: kernels))
            self.bias = ConstantBuffer(bias, paddedTo: kernels.padded(outputs))
        }
    }

    /// The output's height for an input's, or the output's width for an input's.
    package func outputSize(_ size: Int) -> Int {
        if upsampling { return size * 2 }
        // Padding 0 still has one row of zeros below.
        return (size + (self.size == 1 ? 0 : padding == 0 ? 1 : 2) - self.size) / stride + 1
    }

    /// Multiplications and additions that the convolution's definition takes, not those that are done.
    package func flops(outputHeight: Int, outputWidth: Int) -> Double {
        2 * Double(outputHeight) * Double(outputWidth) * Double(outputs)
            * Double(inputs * size * size + (shortcut?.inputs ?? 0))
    }

    /// - Parameters:
    ///   - input: height x width x channels, and `second` stands beside it in channels
    ///   - normalization: if given, the convolution reads silu(x * scale + shift)
    ///   - timeBias: `outputs` values that are added at every position
    ///   - residual: added to the output, of its shape
    ///   - shortcutInput: what the shortcut reads, and `secondShortcutInput` beside it
    ///   - output: where to, or nil for a new activation
    ///   - moments: whether to leave the sums that a group norm needs
    @discardableResult
    package func callAsFunction(
        _ input: Activation, _ second: Activation? = nil, normalization: ScaleShift? = nil, timeBias: [Float]? = nil,
        residual: Activation? = nil, shortcutInput: Activation? = nil, _ secondShortcutInput: Activation? = nil,
        into output: Activation? = nil, moments: Bool = true, workspace: Workspace
    ) -> Activation {
        let (height, width) = (outputSize(input.height), outputSize(input.width))
        let output = output ?? workspace.activation(height: height, width: width, channels: outputs)
        precondition(input.channels + (second?.channels ?? 0) == inputs)
        precondition(second.map { ($0.height, $0.width) == (input.height, input.width) } ?? true)
        precondition((output.height, output.width, output.channels) == (height, width, outputs))
        precondition(residual.map { ($0.height, $0.width, $0.channels) == (height, width, outputs) } ?? true)
        precondition(normalization.map { $0.channels == inputs } ?? true)
        precondition((shortcutInput?.channels ?? 0) + (secondShortcutInput?.channels ?? 0) == shortcut?.inputs ?? 0)
        for shortcutInput in [shortcutInput, secondShortcutInput] {
            precondition(shortcutInput.map { ($0.height, $0.width) == (height, width) } ?? true)
        }
        precondition(
            height < 1 << 24 && width < 1 << 24 && inputs < 1 << 20 && outputs < 1 << 20, "the kernels count in 32 bits"
        )

        let padded = kernels.padded(outputs)
        var bias = bias.pointer
        var sum: AlignedBuffer<Float>?
        if let timeBias {
            precondition(timeBias.count >= outputs)
            let buffer = workspace.buffer(padded)
            for i in 0..<padded { buffer.pointer[i] = i < outputs ? bias[i] + timeBias[i] : 0 }
            bias = UnsafePointer(buffer.pointer)
            sum = buffer
        }

        ComputeProgress.advance()
        var c = tf_convolution()
        c.source = (input.source, second?.source ?? tf_source())
        (c.height, c.width) = (Int32(input.height), Int32(input.width))
        c.scale = normalization?.scale
        c.shift = normalization?.shift
        (c.kernel, c.stride, c.pad, c.upsample) = (Int32(size), Int32(stride), Int32(padding), upsampling ? 1 : 0)
        c.weights = UnsafeRawPointer(weights.pointer)
        c.storage = storage
        c.bias = bias
        c.output = output.values.pointer
        (c.output_height, c.output_width, c.output_channels) = (Int32(height), Int32(width), Int32(outputs))
        c.residual = residual.map { UnsafePointer($0.values.pointer) }
        c.moments = moments ? output.momentBuffer.pointer : nil
        switch shortcut {
        case .fused(_, let weights):
            c.shortcut = (shortcutInput?.source ?? tf_source(), secondShortcutInput?.source ?? tf_source())
            c.shortcut_weights = weights.pointer
        case .before(let convolution):
            if let shortcutInput {
                convolution(
                    shortcutInput, secondShortcutInput, residual: residual, into: output, moments: false,
                    workspace: workspace)
                c.residual = UnsafePointer(output.values.pointer)
            }
        case nil: break
        }

        switch algorithm {
        case .winograd: tf_winograd(kernels.isa, &c, workspace.scratch(tf_winograd_scratch(kernels.isa, &c)).pointer)
        case .wideWinograd: tf_wide(kernels.isa, &c, workspace.scratch(tf_wide_scratch(kernels.isa, &c)).pointer)
        case .direct: tf_direct(kernels.isa, &c, workspace.scratch(tf_direct_scratch(kernels.isa, &c)).pointer)
        }
        withExtendedLifetime((input, second, normalization, residual, shortcutInput, secondShortcutInput, sum)) {}
        output.moments = moments ? Activation.Moments(squaresAt: padded) : nil
        return output
    }
}

extension Precision {
    var storage: tf_storage {
        switch self {
        case .float32: TF_FLOAT32
        case .float16: TF_FLOAT16
        case .bfloat16: TF_BFLOAT16
        }
    }
}

extension tf_storage {
    /// Memory for `count` weights.
    fileprivate func buffer(_ count: Int) -> AlignedBuffer<Float> {
        AlignedBuffer(count: self == TF_FLOAT32 ? count : (count + 1) / 2)
    }
}

extension Activation {
    var source: tf_source { tf_source(data: values.pointer, channels: Int32(channels)) }
}
