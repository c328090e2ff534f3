import Engine
import Foundation
import Testing

/// Every fast kernel against its plain definition, at shapes that do not suit it as well as at those that do.
@Suite struct KernelTests {
    static let seeds = Array(0..<24)

    @Test("a 3x3 convolution equals its definition, whatever is fused into it", arguments: KernelSet.available, seeds)
    func convolution(kernels: KernelSet, seed: Int) {
        var random = SplitMix64(seed: Int(truncatingIfNeeded: seed))
        let workspace = Workspace()
        let small = seed % 5 == 0  // far more outputs than inputs
        let (height, width) = (
            Int.random(in: 1...21, using: &random), Int.random(in: 1...(small ? 3 : seed % 2 * 40 + 20), using: &random)
        )
        let outputs = small ? 128 : random.channels(), upsampling = seed % 4 == 3
        let first = random.activation(height, width, small ? 1 : random.channels())
        let second = Bool.random(using: &random) ? random.activation(height, width, random.channels()) : nil
        let inputs = first.channels + (second?.channels ?? 0)
        let (outputHeight, outputWidth) = upsampling ? (height * 2, width * 2) : (height, width)

        let weights = random.floats(outputs * inputs * 9), bias = random.floats(outputs)
        let residual = Bool.random(using: &random) ? random.activation(outputHeight, outputWidth, outputs) : nil
        let shortcutInputs =
            residual == nil && Bool.random(using: &random)
            ? (
                random.activation(outputHeight, outputWidth, random.channels()),
                random.activation(outputHeight, outputWidth, random.channels())
            ) : nil
        let shortcutCount = shortcutInputs.map { $0.0.channels + $0.1.channels } ?? 0
        let shortcutWeights = random.floats(outputs * shortcutCount), shortcutBias = random.floats(outputs)
        let timeBias = Bool.random(using: &random) ? random.floats(outputs) : nil
        var normalization: ScaleShift?
        var input = Reference.concatenated(Image(first), second.map { Image($0) })
        if Bool.random(using: &random) {
            let scales = random.floats(inputs, in: -3...3), shifts = random.floats(inputs, in: -3...3)
            let scaleShift = ScaleShift(channels: inputs, workspace: workspace)
            for c in 0..<inputs { scaleShift[c] = (scales[c], shifts[c]) }
            normalization = scaleShift
            let raw = input
            input = Image(height: height, width: width, channels: inputs) { y, x, c in
                Reference.silu(raw[y, x, c] * Double(scales[c]) + Double(shifts[c]))
            }
        }

        let convolution = Convolution(
            weights: weights, bias: bias, outputs: outputs, inputs: inputs, upsampling: upsampling,
            shortcut: shortcutInputs == nil ? nil : (shortcutWeights, shortcutBias, shortcutCount), kernels: kernels)
        let output = convolution(
            first, second, normalization: normalization, timeBias: timeBias, residual: residual,
            shortcutInput: shortcutInputs?.0, shortcutInputs?.1,
            workspace: workspace)

        var expected = Reference.convolution(
            upsampling ? Reference.upsampled(input) : input, weights: weights, bias: bias, outputs: outputs, size: 3,
            before: 1,
            outputHeight: outputHeight, outputWidth: outputWidth)
        if let timeBias {
            expected =
                expected
                + Image(height: outputHeight, width: outputWidth, channels: outputs) { _, _, c in Double(timeBias[c]) }
        }
        if let residual { expected = expected + Image(residual) }
        if let (a, b) = shortcutInputs {
            expected =
                expected
                + Reference.convolution(
                    Reference.concatenated(Image(a), Image(b)), weights: shortcutWeights, bias: shortcutBias,
                    outputs: outputs, size: 1, before: 0,
                    outputHeight: outputHeight, outputWidth: outputWidth)
        }
        #expect(relativeError(output, expected) < 1.5e-5)
        expectMoments(output, expected)
    }

    @Test("a convolution with stride or of size 1 equals its definition", arguments: KernelSet.available, seeds)
    func directConvolution(kernels: KernelSet, seed: Int) {
        var random = SplitMix64(seed: 100 + seed)
        let workspace = Workspace()
        let (height, width) = (Int.random(in: 2...20, using: &random), Int.random(in: 2...50, using: &random))
        let input = random.activation(height, width, random.channels()), outputs = random.channels()
        let size = seed % 3 == 0 ? 1 : 3, padding = size == 1 ? 0 : seed % 2
        let weights = random.floats(outputs * input.channels * size * size), bias = random.floats(outputs)
        let convolution = Convolution(
            weights: weights, bias: bias, outputs: outputs, inputs: input.channels, size: size,
            stride: size == 1 ? 1 : 2, padding: padding,
            kernels: kernels)
        let (outputHeight, outputWidth) = (convolution.outputSize(height), convolution.outputSize(width))
        // as torch.nn.Conv2d counts
        if size == 3 { #expect(outputHeight == (padding == 1 ? (height + 1) / 2 : height / 2)) }
        let residual = Bool.random(using: &random) ? random.activation(outputHeight, outputWidth, outputs) : nil

        let output = convolution(input, residual: residual, workspace: workspace)
        var expected = Reference.convolution(
            Image(input), weights: weights, bias: bias, outputs: outputs, size: size, stride: size == 1 ? 1 : 2,
            before: padding,
            outputHeight: outputHeight, outputWidth: outputWidth)
        if let residual { expected = expected + Image(residual) }
        #expect(relativeError(output, expected) < 3e-6)
        expectMoments(output, expected)
    }

    /// The sums that a convolution leaves for the next group norm.
    private func expectMoments(_ output: Activation, _ expected: Image) {
        for c in 0..<expected.channels {
            var sum = 0.0, squares = 0.0
            for position in 0..<expected.positions {
                sum += expected[position, c]
                squares += expected[position, c] * expected[position, c]
            }
            let scale = (squares * Double(expected.positions)).squareRoot()
            let moments = output.moments(of: c)
            #expect(abs((moments?.sum ?? .nan) - sum) < 3e-5 * scale)
            #expect(abs((moments?.squares ?? .nan) - squares) < 3e-5 * squares + 1e-9)
        }
    }

    @Test(
        "SiLU is right to seven digits over its whole range, and finite far outside it", arguments: KernelSet.available)
    func silu(kernels: KernelSet) {
        // A 1x1 convolution with the weight 1 shows what the convolution reads.
        let convolution = Convolution(weights: [1], bias: [0], outputs: 1, inputs: 1, size: 1, kernels: kernels)
        let workspace = Workspace()
        let identity = ScaleShift(channels: 1, workspace: workspace)
        identity[0] = (1, 0)
        let input = Activation(height: 1, width: 40_001, channels: 1)
        var span = input.mutableSpan
        for i in span.indices { span[i] = Float(i - 20_000) / 1000 }
        (span[0], span[1], span[2], span[3]) = (-3e38, 3e38, -100, 100)

        let output = convolution(input, normalization: identity, workspace: workspace)
        let x = Image(input).values, y = Image(output).values
        #expect(y[0] == 0 || abs(y[0]) < 1e21)  // -x * 2^-62 at most
        #expect(y[1] == Double(Float(3e38)))
        #expect(abs(y[2]) < 1e-16)
        #expect(y[3] == 100)
        // In the tail e^x takes x's own rounding, half a unit in its last place, to the power.
        let worst =
            (4..<x.count).map { i in
                let expected = Reference.silu(x[i])
                return expected == 0 ? 0 : abs(y[i] / expected - 1) / (3e-7 + 1e-7 * max(0, -x[i]))
            }.max() ?? 0
        #expect(worst < 1)
    }

    @Test(
        "a group norm equals its definition, across two inputs and far from zero", arguments: KernelSet.available, seeds
    )
    func groupNorm(kernels: KernelSet, seed: Int) {
        var random = SplitMix64(seed: 200 + seed)
        let workspace = Workspace()
        let groups = Int.random(in: 1...8, using: &random), channels = groups * Int.random(in: 1...9, using: &random)
        let (height, width) = (Int.random(in: 1...30, using: &random), Int.random(in: 1...30, using: &random))
        let offset = Float.random(in: -4...4, using: &random)
        let cut = channels > 1 ? Int.random(in: 1..<channels, using: &random) : 1
        let first = random.activation(height, width, cut, in: offset - 1...offset + 1)
        let second =
            cut < channels ? random.activation(height, width, channels - cut, in: offset - 1...offset + 1) : nil
        let gamma = random.floats(channels), beta = random.floats(channels)
        let norm = GroupNorm(gamma: gamma, beta: beta, groups: groups, eps: 1e-5, kernels: kernels)

        let scaleShift = norm.scaleShift(first, second, workspace: workspace)
        let both = Reference.concatenated(Image(first), second.map { Image($0) })
        let expected = Reference.groupNorm(both, gamma: gamma, beta: beta, groups: groups, eps: 1e-5)
        var difference = 0.0
        for position in 0..<both.positions {
            for c in 0..<channels {
                let (scale, shift) = scaleShift[c]
                difference = max(
                    difference, abs(both[position, c] * Double(scale) + Double(shift) - expected[position, c]))
            }
        }
        #expect(difference < 2e-5)

        if second == nil { #expect(relativeError(norm(first, workspace: workspace), expected) < 2e-5) }
    }

    @Test("attention equals its definition, in blocks of rows too", arguments: KernelSet.available, [1, 3])
    func attention(kernels: KernelSet, heads: Int) {
        var random = SplitMix64(seed: heads)
        let workspace = Workspace()
        for (queries, keys, headWidth) in [(1, 1, 4), (7, 77, 5), (70, 30, 16), (3, 7000, 8), (60, 7001, 3)] {
            let inner = heads * headWidth
            // Query, key and value stand in wider activations, as a fused projection leaves them.
            let query = random.activation(1, queries, inner + 2, in: -4...4),
                pair = random.activation(keys, 1, 2 * inner, in: -4...4)
            let output = Attention.attend(
                query: query, at: 2, key: pair, at: 0, value: pair, at: inner, heads: heads, headWidth: headWidth,
                kernels: kernels, workspace: workspace)
            func part(_ image: Image, _ from: Int) -> Image {
                Image(height: image.height, width: image.width, channels: inner) { image[$0, $1, from + $2] }
            }
            let expected = Reference.attention(
                query: part(Image(query), 2), key: part(Image(pair), 0), value: part(Image(pair), inner), heads: heads)
            #expect(relativeError(output, expected) < 3e-6)
        }
    }

    @Test("a workspace gives memory again only when nobody holds it")
    func workspace() {
        let workspace = Workspace()
        let first = workspace.activation(height: 4, width: 4, channels: 4)
        let second = workspace.activation(height: 4, width: 4, channels: 4)
        #expect(first.values !== second.values)
        let held = ObjectIdentifier(second.values)
        var third: Activation? = workspace.activation(height: 2, width: 2, channels: 16)  // as many values
        #expect(third.map { $0.values !== first.values && $0.values !== second.values } == true)
        let released = third.map { ObjectIdentifier($0.values) }
        third = nil
        let fourth = workspace.activation(height: 4, width: 4, channels: 4)
        #expect(ObjectIdentifier(fourth.values) == released)
        #expect(ObjectIdentifier(fourth.values) != held)
        #expect(first.count + second.count == 128)
    }

    @Test("kernels that a machine does not have are a named error, and the choice is the best otherwise")
    func choice() throws {
        #expect(throws: KernelError.unavailable(name: "mmx", available: KernelSet.available)) {
            try KernelSet.chosen(environment: ["TILEFARM_KERNELS": "mmx"])
        }
        #expect(try KernelSet.chosen(environment: ["TILEFARM_KERNELS": "baseline"]) == .baseline)
        #expect(try KernelSet.chosen(environment: [:]) == KernelSet.best)
    }
}
