import Engine
import Foundation
import Testing

/// The kernels of transformers against their plain definitions in double precision.
@Suite struct TransformerKernelTests {
    static let seeds = Array(0..<12)

    @Test(
        "a linear layer equals its definition in every precision, gated or not", arguments: KernelSet.available, seeds)
    func linear(kernels: KernelSet, seed: Int) {
        var random = SplitMix64(seed: 500 + seed)
        let workspace = Workspace()
        let rows = [1, 14, 113, 300][seed % 4] + Int.random(in: 0...12, using: &random)
        let deep = seed % 4 == 1, inputs = deep ? Int.random(in: 1281...2700, using: &random) : random.channels()
        let outputs = deep ? Int.random(in: 1...40, using: &random) : random.channels()
        for (precision, gated) in [
            (Precision.float32, false), (.float16, false), (.bfloat16, false), (.float32, true), (.bfloat16, true),
        ] {
            let columns = gated ? 2 * outputs : outputs
            let weights = random.floats(inputs * columns),
                bias = Bool.random(using: &random) ? random.floats(columns) : nil
            let input = random.activation(1, rows, inputs)
            let residual = Bool.random(using: &random) ? random.activation(1, rows, outputs) : nil
            let layer = Linear(
                weights: weights, bias: bias, inputs: inputs, outputs: outputs, gated: gated, precision: precision,
                kernels: kernels)
            let output = layer(input, residual: residual, workspace: workspace)

            let rounded = weights.map { Reference.rounded($0, to: precision) }
            let read =
                precision == .bfloat16 && kernels == .avx512bf16
                ? Image(height: 1, width: rows, channels: inputs) {
                    Double(Reference.rounded(input.span[$1 * inputs + $2], to: .bfloat16))
                } : Image(input)
            let product = Reference.convolution(
                read, weights: rounded, bias: bias ?? Array(repeating: 0, count: columns), outputs: columns, size: 1,
                before: 0,
                outputHeight: 1, outputWidth: rows)
            var expected =
                !gated
                ? product
                : Image(height: 1, width: rows, channels: outputs) {
                    product[$0, $1, $2] * Reference.gelu(product[$0, $1, outputs + $2])
                }
            if let residual { expected = expected + Image(residual) }
            #expect(relativeError(output, expected) < 3e-6)
        }
    }

    @Test(
        "rounding of weights is to nearest, ties to even, of every finite half and of what lies between",
        arguments: KernelSet.available)
    func storage(kernels: KernelSet) {
        // With one row that is 1, a layer shows its weights.
        let one = Activation(height: 1, width: 1, channels: 1)
        var span = one.mutableSpan
        span[0] = 1
        var values: [Float] = []
        for bits in UInt16(0)..<0x7c00 {
            let half = Float(Float16(bitPattern: bits))
            values += [
                half, -half, half.nextUp, half.nextDown,
                (half + Float(Float16(bitPattern: bits + 1 < 0x7c00 ? bits + 1 : bits))) / 2,
            ]
        }
        // whose products flush tiny values
        for precision in [Precision.float16, .bfloat16] where !(precision == .bfloat16 && kernels == .avx512bf16) {
            let layer = Linear(
                weights: values, bias: nil, inputs: 1, outputs: values.count, precision: precision, kernels: kernels)
            let output = layer(one, workspace: Workspace()).span
            var wrong = 0
            for i in values.indices where output[i] != Reference.rounded(values[i], to: precision) { wrong += 1 }
            #expect(wrong == 0)
        }
    }

    @Test("a row's bits do not depend on the rows beside it", arguments: KernelSet.available, Precision.allCases)
    func rowsAlone(kernels: KernelSet, precision: Precision) {
        var random = SplitMix64(seed: 6)
        let workspace = Workspace(), (rows, inputs, outputs) = (131, 1300, 40)
        let weights = random.floats(2 * outputs * inputs)
        let layer = Linear(
            weights: weights, bias: nil, inputs: inputs, outputs: outputs, gated: true, precision: precision,
            kernels: kernels)
        let input = random.activation(1, rows, inputs), all = layer(input, workspace: workspace)
        for row in [0, 7, 55, 130] {
            let alone = Activation(height: 1, width: 1, channels: inputs)
            var span = alone.mutableSpan
            for i in 0..<inputs { span[i] = input.span[row * inputs + i] }
            let output = layer(alone, workspace: workspace)
            // OpenBLAS promises it only for products of one size
            if kernels == .baseline, precision == .float32 { continue }
            #expect((0..<outputs).allSatisfy { output.span[$0] == all.span[row * outputs + $0] })
        }
    }

    @Test("a layer norm equals its definition, far from zero too", arguments: KernelSet.available, seeds)
    func layerNorm(kernels: KernelSet, seed: Int) {
        var random = SplitMix64(seed: 300 + seed)
        let offset = Float.random(in: -9...9, using: &random)
        let input = random.activation(
            Int.random(in: 1...9, using: &random), 5, random.channels(), in: offset - 1...offset + 1)
        let gamma = random.floats(input.channels), beta = random.floats(input.channels)
        let output = LayerNorm(gamma: gamma, beta: beta, eps: 1e-5, kernels: kernels)(input, workspace: Workspace())
        let x = Image(input), n = Double(x.channels)
        let expected = Image(height: x.height, width: x.width, channels: x.channels) { row, column, c in
            let values = (0..<x.channels).map { x[row, column, $0] }
            let mean = values.reduce(0, +) / n
            let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / n
            return (x[row, column, c] - mean) / (variance + 1e-5).squareRoot() * Double(gamma[c]) + Double(beta[c])
        }
        #expect(relativeError(output, expected) < 2e-5)
    }

    @Test(
        "activation functions are right to six digits over their whole range, and leave what follows them alone",
        arguments: KernelSet.available)
    func activationFunctions(kernels: KernelSet) {
        let functions: [(ActivationFunction, (Double) -> Double)] = [
            (.gelu, Reference.gelu), (.silu, Reference.silu), (.quickGELU, { $0 / (1 + exp(-1.702 * $0)) }),
        ]
        for (function, definition) in functions {
            let activation = Activation(height: 1, width: 1, channels: 20_001)
            var span = activation.mutableSpan
            for i in span.indices { span[i] = Float(i - 10_000) / 1000 }
            let x = Image(activation).values
            function.apply(to: activation, kernels: kernels)
            // Near zero relative to the result; in the negative tail, where 1 + erf cancels, relative to the argument.
            let worst =
                zip(x, Image(activation).values).map { abs($1 - definition($0)) / max(abs($0), 1e-30) }.max()
                ?? .infinity
            #expect(worst < 4e-7)
        }
    }

    @Test("GEGLU equals its definition", arguments: KernelSet.available)
    func geglu(kernels: KernelSet) {
        var random = SplitMix64(seed: 7)
        for n in [1, 16, 37] {
            let input = random.activation(3, 5, 2 * n, in: -5...5), x = Image(input)
            let output = Gating.geglu(input, kernels: kernels, workspace: Workspace())
            #expect(
                relativeError(
                    output,
                    Image(height: 3, width: 5, channels: n) { x[$0, $1, $2] * Reference.gelu(x[$0, $1, n + $2]) })
                    < 1e-6)
        }
    }

    @Test("attention of any widths and counts equals its definition", arguments: KernelSet.available, seeds)
    func attention(kernels: KernelSet, seed: Int) {
        var random = SplitMix64(seed: 600 + seed)
        let wide = seed % 4 == 3, heads = Int.random(in: 1...3, using: &random)
        let headWidth = wide ? Int.random(in: 300...1500, using: &random) : Int.random(in: 1...90, using: &random)
        let (queries, keys) = (
            Int.random(in: 1...(wide ? 20 : 200), using: &random), Int.random(in: 1...(wide ? 50 : 600), using: &random)
        )
        let inner = heads * headWidth, range: ClosedRange<Float> = wide ? -1...1 : -5...5
        let query = random.activation(1, queries, inner, in: range), key = random.activation(1, keys, inner, in: range)
        let value = random.activation(1, keys, inner)
        let output = Attention.attend(
            query: query, key: key, value: value, heads: heads, headWidth: headWidth, kernels: kernels,
            workspace: Workspace())
        #expect(
            relativeError(
                output, Reference.attention(query: Image(query), key: Image(key), value: Image(value), heads: heads))
                < 1e-5)
    }

    @Test(
        """
        a query's attention does not depend on the queries beside it, and a later key's values change no bit of causal \
        attention
        """,
        arguments: KernelSet.available)
    func attentionAlone(kernels: KernelSet) {
        var random = SplitMix64(seed: 8)
        let workspace = Workspace(), (count, heads, headWidth) = (301, 2, 24), inner = heads * headWidth
        let query = random.activation(1, count, inner, in: -3...3), key = random.activation(1, count, inner, in: -3...3)
        let value = random.activation(1, count, inner)
        func attend(_ query: Activation, causal: Bool) -> Activation {
            Attention.attend(
                query: query, key: key, value: value, heads: heads, headWidth: headWidth, causal: causal,
                kernels: kernels, workspace: workspace)
        }
        let all = attend(query, causal: false), causal = attend(query, causal: true)
        let alone = Activation(height: 1, width: 1, channels: inner)
        var span = alone.mutableSpan
        for i in 0..<inner { span[i] = query.span[200 * inner + i] }
        let single = attend(alone, causal: false)
        #expect((0..<inner).allSatisfy { single.span[$0] == all.span[200 * inner + $0] })

        var keys = key.mutableSpan, values = value.mutableSpan
        for i in 200 * inner..<count * inner { (keys[i], values[i]) = (1000, 1e30) }
        let changed = attend(query, causal: true)
        #expect((0..<200 * inner).allSatisfy { changed.span[$0] == causal.span[$0] })
    }

    @Test("causal attention reads no later key, with any widths and counts", arguments: KernelSet.available, seeds)
    func causalAttention(kernels: KernelSet, seed: Int) {
        var random = SplitMix64(seed: 400 + seed)
        let heads = Int.random(in: 1...3, using: &random), headWidth = Int.random(in: 1...90, using: &random)
        let count = Int.random(in: 1...500, using: &random), inner = heads * headWidth
        let qkv = random.activation(1, count, 3 * inner, in: -3...3), image = Image(qkv)
        let output = Attention.attend(
            query: qkv, at: 0, key: qkv, at: inner, value: qkv, at: 2 * inner, heads: heads, headWidth: headWidth,
            causal: true, kernels: kernels,
            workspace: Workspace())
        func part(_ from: Int) -> Image { Image(height: 1, width: count, channels: inner) { image[$0, $1, from + $2] } }
        let expected = Reference.attention(
            query: part(0), key: part(inner), value: part(2 * inner), heads: heads, causal: true)
        #expect(relativeError(output, expected) < 3e-6)
    }
}
