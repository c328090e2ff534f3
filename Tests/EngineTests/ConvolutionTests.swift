import Engine
import Foundation
import Testing

/// Every algorithm of a convolution against the definition.
@Suite struct ConvolutionTests {
    static let seeds = Array(0..<16)
    static let algorithms: [Convolution.Algorithm] = [.winograd, .wideWinograd, .direct]

    @Test(
        "every algorithm computes a 3x3 convolution as defined, whatever is fused into it",
        arguments: KernelSet.available, seeds)
    func everyAlgorithm(kernels: KernelSet, seed: Int) {
        for algorithm in Self.algorithms { check(algorithm, .float32, kernels: kernels, seed: seed) }
    }

    /// More tiles than a block has, in rows and within a row, and more inputs and outputs than its weights have.
    @Test(
        "wide convolutions and direct ones are right across the borders of their blocks", arguments: KernelSet.available
    )
    func blocks(kernels: KernelSet) {
        var random = SplitMix64(seed: 77)
        for (height, width, inputs, outputs, upsampling) in [
            (3, 270, 20, 20, false), (38, 33, 50, 17, false), (2, 140, 49, 9, true), (8, 8, 200, 150, false),
            (16, 16, 130, 100, false), (1, 2, 300, 200, true),
        ] {
            for algorithm in [Convolution.Algorithm.wideWinograd, .direct] {
                checkConvolution(
                    Shape(inputs: inputs, outputs: outputs, upsampling: upsampling),
                    random.activation(height, width, inputs), nil, algorithm: algorithm,
                    precision: .float32, residual: true, shortcut: false, normalized: true, kernels: kernels,
                    random: &random)
            }
        }
    }

    @Test(
        "a 1x1 convolution of two inputs is right in any precision", arguments: KernelSet.available, Precision.allCases)
    func pointwise(kernels: KernelSet, precision: Precision) {
        var random = SplitMix64(seed: 5)
        for (a, b, outputs) in [(3, 5, 7), (64, 48, 80), (700, 900, 33)] {
            let first = random.activation(13, 11, a), second = random.activation(13, 11, b)
            checkConvolution(
                Shape(inputs: a + b, outputs: outputs, size: 1, padding: 0), first, second, algorithm: nil,
                precision: precision, residual: true,
                shortcut: false, normalized: a == 64, kernels: kernels, random: &random)
        }
    }

    @Test("narrow layers keep transformed weights, wide ones transform theirs on the way, and strides are direct")
    func choice() {
        let kernels = KernelSet.available[0]
        func chosen(_ inputs: Int, _ outputs: Int, size: Int = 3, stride: Int = 1, padding: Int = 1)
            -> Convolution.Algorithm
        {
            Convolution(
                weights: [Float](repeating: 0, count: outputs * inputs * size * size),
                bias: [Float](repeating: 0, count: outputs), outputs: outputs,
                inputs: inputs, size: size, stride: stride, padding: padding, kernels: kernels
            ).algorithm
        }
        #expect(chosen(48, 64) == .winograd)
        #expect(chosen(320, 4) == .winograd)
        #expect(chosen(320, 320) == .wideWinograd)
        #expect(chosen(320, 320, stride: 2) == .direct)
        #expect(chosen(16, 16, stride: 2, padding: 0) == .direct)
        #expect(chosen(16, 16, size: 1) == .direct)
        // Takes no padding but 1.
        #expect(chosen(16, 16, padding: 0) == .direct)
    }

    @Test(
        "weights in half precision or bfloat16 are those weights rounded", arguments: KernelSet.available, Array(0..<6))
    func precisions(kernels: KernelSet, seed: Int) {
        for algorithm in Self.algorithms {
            check(algorithm, .float16, kernels: kernels, seed: seed)
            check(algorithm, .bfloat16, kernels: kernels, seed: seed)
        }
    }

    /// A 3x3 convolution of random shape.
    private func check(_ algorithm: Convolution.Algorithm, _ precision: Precision, kernels: KernelSet, seed: Int) {
        var random = SplitMix64(seed: 1000 + seed)
        let (height, width) = (Int.random(in: 1...14, using: &random), Int.random(in: 1...30, using: &random))
        // More inputs and outputs than one block of the wide algorithm holds, sometimes.
        let first = random.activation(height, width, seed % 3 == 0 ? 150 : random.channels())
        let second = Bool.random(using: &random) ? random.activation(height, width, random.channels()) : nil
        let outputs = seed % 5 == 0 ? 141 : random.channels(), upsampling = seed % 4 == 3
        var shape = Shape(inputs: first.channels + (second?.channels ?? 0), outputs: outputs, upsampling: upsampling)
        // Only the direct algorithm has strides.
        if algorithm == .direct, !upsampling, seed % 2 == 1 { (shape.stride, shape.padding) = (2, seed / 2 % 2) }
        checkConvolution(
            shape, first, second, algorithm: algorithm, precision: precision, residual: Bool.random(using: &random),
            shortcut: Bool.random(using: &random), normalized: Bool.random(using: &random), kernels: kernels,
            random: &random)
    }

    struct Shape {
        var inputs, outputs: Int
        var size = 3, stride = 1, padding = 1
        var upsampling = false
    }

    private func checkConvolution(
        _ shape: Shape, _ first: Activation, _ second: Activation?, algorithm: Convolution.Algorithm?,
        precision: Precision, residual hasResidual: Bool,
        shortcut hasShortcut: Bool, normalized: Bool, kernels: KernelSet, random: inout SplitMix64
    ) {
        let workspace = Workspace()
        func rounded(_ weights: [Float]) -> [Float] {
            algorithm == .winograd ? weights : weights.map(precision.rounded)
        }
        let (inputs, outputs) = (shape.inputs, shape.outputs)
        let weights = random.floats(outputs * inputs * shape.size * shape.size), bias = random.floats(outputs)
        let shortcutInputs = (random.channels(), random.channels())
        let shortcutWeights = random.floats(outputs * (shortcutInputs.0 + shortcutInputs.1)),
            shortcutBias = random.floats(outputs)
        let convolution = Convolution(
            weights: weights, bias: bias, outputs: outputs, inputs: inputs, size: shape.size, stride: shape.stride,
            padding: shape.padding,
            upsampling: shape.upsampling,
            shortcut: hasShortcut ? (shortcutWeights, shortcutBias, shortcutInputs.0 + shortcutInputs.1) : nil,
            precision: precision, algorithm: algorithm, kernels: kernels)
        let (height, width) = (convolution.outputSize(first.height), convolution.outputSize(first.width))
        guard height > 0, width > 0 else { return }
        let residual = hasResidual && !hasShortcut ? random.activation(height, width, outputs) : nil
        let shortcut = (
            random.activation(height, width, shortcutInputs.0), random.activation(height, width, shortcutInputs.1)
        )
        let timeBias = random.floats(outputs)

        var input = Reference.concatenated(Image(first), second.map { Image($0) })
        var normalization: ScaleShift?
        if normalized {
            let scales = random.floats(inputs), shifts = random.floats(inputs)
            let scaleShift = ScaleShift(channels: inputs, workspace: workspace)
            for c in 0..<inputs { scaleShift[c] = (scales[c], shifts[c]) }
            normalization = scaleShift
            let raw = input
            input = Image(height: first.height, width: first.width, channels: inputs) { y, x, c in
                Reference.silu(raw[y, x, c] * Double(scales[c]) + Double(shifts[c]))
            }
        }
        var expected = Reference.convolution(
            shape.upsampling ? Reference.upsampled(input) : input, weights: rounded(weights), bias: bias,
            outputs: outputs, size: shape.size,
            stride: shape.stride, before: shape.padding, outputHeight: height, outputWidth: width)
        expected = expected + Image(height: height, width: width, channels: outputs) { _, _, c in Double(timeBias[c]) }
        if let residual { expected = expected + Image(residual) }
        if hasShortcut {
            expected =
                expected
                + Reference.convolution(
                    Reference.concatenated(Image(shortcut.0), Image(shortcut.1)), weights: rounded(shortcutWeights),
                    bias: shortcutBias, outputs: outputs,
                    size: 1, before: 0, outputHeight: height, outputWidth: width)
        }

        func run() -> Activation {
            convolution(
                first, second, normalization: normalization, timeBias: timeBias, residual: residual,
                shortcutInput: hasShortcut ? shortcut.0 : nil,
                hasShortcut ? shortcut.1 : nil, workspace: workspace)
        }
        let output = run()
        #expect(relativeError(output, expected) < (convolution.algorithm == .direct ? 4e-6 : 1.5e-5))
        for c in 0..<outputs {
            var sum = 0.0, squares = 0.0
            for position in 0..<expected.positions {
                sum += expected[position, c]
                squares += expected[position, c] * expected[position, c]
            }
            let moments = output.moments(of: c)
            #expect(abs((moments?.sum ?? .nan) - sum) < 3e-5 * (squares * Double(expected.positions)).squareRoot())
            #expect(abs((moments?.squares ?? .nan) - squares) < 3e-5 * squares + 1e-9)
        }
        let again = run()
        #expect(again !== output)
        #expect(again.span.indices.allSatisfy { again.span[$0].bitPattern == output.span[$0].bitPattern })
    }
}

extension Precision {
    /// The nearest value that can be stored.
    func rounded(_ x: Float) -> Float {
        switch self {
        case .float32: x
        case .float16: Float(Float16(x))
        case .bfloat16: Float(bitPattern: (x.bitPattern + 0x7fff + (x.bitPattern >> 16 & 1)) & 0xffff_0000)
        }
    }
}
