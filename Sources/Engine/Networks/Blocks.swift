import Foundation

/// Makes the blocks that the networks share from their weights.
struct BlockBuilder {
    let kernels: KernelSet
    var precision = Precision.float32
    /// Groups of the group norms.
    let groups: Int
    let eps: Double
    /// Width of the embedding that the residual blocks read; nil: none.
    var timeEmbeddingDim: Int?
    /// Whether the embedding scales and shifts the second norm instead of being added before it.
    var timeScaleShift = false

    func convolution(
        _ weights: WeightPath, inputs: Int, outputs: Int, size: Int = 3, stride: Int = 1, padding: Int = 1,
        upsampling: Bool = false, shortcut: (weights: [Float], bias: [Float], inputs: Int)? = nil
    ) throws -> Convolution {
        let (values, bias) = (try weights("weight", outputs, inputs, size, size), try weights("bias", outputs))
        guard !weights.headersOnly else { return Placeholder.convolution(kernels) }
        return Convolution(
            weights: values, bias: bias, outputs: outputs, inputs: inputs, size: size, stride: stride,
            padding: padding, upsampling: upsampling, shortcut: shortcut, precision: precision, kernels: kernels)
    }

    /// A linear layer, which may be stored as a 1x1 convolution.
    /// - Parameter gated: the weights are those of the values, then those of their gates
    func linear(_ weights: WeightPath, inputs: Int, outputs: Int, gated: Bool = false) throws -> Linear {
        let rows = gated ? 2 * outputs : outputs
        let (matrix, bias) = (try weights.matrix("weight", rows, inputs), try weights("bias", rows))
        guard !weights.headersOnly else { return Placeholder.linear(kernels) }
        return Linear(
            weights: matrix, bias: bias, inputs: inputs, outputs: outputs, gated: gated, precision: precision,
            kernels: kernels)
    }

    /// Several linear layers of the same input, their outputs side by side.
    func linear(_ weights: [WeightPath], inputs: Int, outputs: Int, bias: Bool) throws -> Linear {
        var matrix: [Float] = [], biases: [Float] = []
        let headersOnly = weights.contains(where: \.headersOnly)
        if !headersOnly { matrix.reserveCapacity(weights.count * inputs * outputs) }
        for weights in weights {
            matrix += try weights.matrix("weight", outputs, inputs)
            if bias { biases += try weights("bias", outputs) }
        }
        guard !headersOnly else { return Placeholder.linear(kernels) }
        return Linear(
            weights: matrix, bias: bias ? biases : nil, inputs: inputs, outputs: weights.count * outputs,
            precision: precision, kernels: kernels)
    }

    func norm(_ weights: WeightPath, channels: Int, groups: Int? = nil, eps: Double? = nil) throws -> GroupNorm {
        let (gamma, beta) = (try weights("weight", channels), try weights("bias", channels))
        guard !weights.headersOnly else { return Placeholder.groupNorm(kernels) }
        return GroupNorm(
            gamma: gamma, beta: beta, groups: groups ?? self.groups, eps: eps ?? self.eps, kernels: kernels)
    }

    func layerNorm(_ weights: WeightPath, channels: Int, eps: Double) throws -> LayerNorm {
        let (gamma, beta) = (try weights("weight", channels), try weights("bias", channels))
        guard !weights.headersOnly else { return Placeholder.layerNorm(kernels) }
        return LayerNorm(gamma: gamma, beta: beta, eps: eps, kernels: kernels)
    }

    /// - Parameter inputs: channels of the input, and of the skip connection beside it
    func resnet(_ weights: WeightPath, inputs: (Int, Int), outputs: Int) throws -> ResnetBlock {
        let inputCount = inputs.0 + inputs.1
        let shortcut =
            inputCount == outputs
            ? nil
            : (
                weights: try (weights / "conv_shortcut").matrix("weight", outputs, inputCount),
                bias: try (weights / "conv_shortcut")("bias", outputs), inputs: inputCount
            )
        return ResnetBlock(
            norm1: try norm(weights / "norm1", channels: inputCount),
            conv1: try convolution(weights / "conv1", inputs: inputCount, outputs: outputs),
            timeProjection: try timeEmbeddingDim.map {
                try Projection(weights / "time_emb_proj", inputs: $0, outputs: timeScaleShift ? 2 * outputs : outputs)
            },
            timeScaleShift: timeScaleShift,
            norm2: try norm(weights / "norm2", channels: outputs),
            conv2: try convolution(weights / "conv2", inputs: outputs, outputs: outputs, shortcut: shortcut),
            hasShortcut: shortcut != nil)
    }

    func upsampler(_ weights: WeightPath, channels: Int) throws -> Upsampler {
        Upsampler(convolution: try convolution(weights, inputs: channels, outputs: channels, upsampling: true))
    }

    /// - Parameter groups: of the norm before it; nil: no norm
    func attention(_ weights: WeightPath, channels: Int, headWidth: Int, groups: Int?) throws -> AttentionBlock {
        // Checkpoints made before diffusers 0.15 have other names for the same.
        let names =
            weights.contains("query.weight")
            ? ["query", "key", "value", "proj_attn"] : ["to_q", "to_k", "to_v", "to_out.0"]
        return AttentionBlock(
            norm: try groups.map { try norm(weights / "group_norm", channels: channels, groups: $0) },
            projection: try linear(names[..<3].map { weights / $0 }, inputs: channels, outputs: channels, bias: true),
            out: try linear(weights / names[3], inputs: channels, outputs: channels),
            heads: channels / headWidth, headWidth: headWidth, kernels: kernels)
    }
}

/// Two normalised convolutions around the time embedding, if there is one, and a shortcut: diffusers' `ResnetBlock2D`.
struct ResnetBlock {
    var norm1: GroupNorm
    var conv1: Convolution
    var timeProjection: Projection?
    var timeScaleShift: Bool
    var norm2: GroupNorm
    var conv2: Convolution
    var hasShortcut: Bool

    /// - Parameters:
    ///   - x: height x width x channels, with `skip` beside it in channels
    ///   - time: silu of the time embedding
    ///   - norms: for a tile whose norms are not its own; then there is no skip
    func callAsFunction(
        _ x: Activation, _ skip: Activation? = nil, time: [Float] = [], norms: NormPass? = nil, workspace: Workspace
    ) throws -> Activation {
        let projected = timeProjection?(time)
        let first =
            try norms?.scaleShift(norm1, x, workspace: workspace) ?? norm1.scaleShift(x, skip, workspace: workspace)
        let h = conv1(x, skip, normalization: first, timeBias: timeScaleShift ? nil : projected, workspace: workspace)
        let second = try norms?.scaleShift(norm2, h, workspace: workspace) ?? norm2.scaleShift(h, workspace: workspace)
        if timeScaleShift, let projected {
            for c in 0..<h.channels {
                let factor = 1 + projected[c]
                second[c] = (second[c].scale * factor, second[c].shift * factor + projected[h.channels + c])
            }
        }
        return finish(h, second, x, skip, workspace: workspace)
    }

    /// From the second norm on.
    func finish(_ h: Activation, _ second: ScaleShift, _ x: Activation, _ skip: Activation? = nil, workspace: Workspace)
        -> Activation
    {
        if hasShortcut {
            return conv2(h, normalization: second, shortcutInput: x, skip, workspace: workspace)
        }
        return conv2(
            h, normalization: second, residual: skip.map { concatenated(x, $0, workspace) } ?? x, workspace: workspace)
    }

    /// Only where a level is as wide as its input and its skip connection together.
    private func concatenated(_ a: Activation, _ b: Activation, _ workspace: Workspace) -> Activation {
        let result = workspace.activation(height: a.height, width: a.width, channels: a.channels + b.channels)
        var to = result.mutableSpan
        let (first, second) = (a.span, b.span)
        var i = 0
        for position in 0..<a.height * a.width {
            for c in 0..<a.channels { to[i + c] = first[position * a.channels + c] }
            i += a.channels
            for c in 0..<b.channels { to[i + c] = second[position * b.channels + c] }
            i += b.channels
        }
        return result
    }
}

/// Self-attention over all positions, added to its input: diffusers' `Attention` as its 2D blocks use it.
struct AttentionBlock {
    var norm: GroupNorm?
    /// Query, key and value side by side.
    var projection: Linear
    var out: Linear
    var heads, headWidth: Int
    var kernels: KernelSet

    func callAsFunction(_ x: Activation, norms: NormPass? = nil, workspace: Workspace) throws -> Activation {
        let channels = x.channels
        let normalized = try norm.map { norm in
            norm(
                x, try norms?.scaleShift(norm, x, workspace: workspace) ?? norm.scaleShift(x, workspace: workspace),
                workspace: workspace)
        }
        let qkv = projection(normalized ?? x, workspace: workspace)
        let attended = Attention.attend(
            query: qkv, at: 0, key: qkv, at: channels, value: qkv, at: 2 * channels, heads: heads, headWidth: headWidth,
            kernels: kernels,
            workspace: workspace)
        return out(attended, residual: x, workspace: workspace)
    }
}

/// The timestep as sines and cosines, through two linear layers: diffusers' `Timesteps` and `TimestepEmbedding`.
struct TimeEmbedding {
    let channels: Int
    let flipSinToCos: Bool
    let freqShift: Double
    let linear1, linear2: Projection

    init(_ weights: WeightPath, channels: Int, outputs: Int, flipSinToCos: Bool, freqShift: Double) throws {
        (self.channels, self.flipSinToCos, self.freqShift) = (channels, flipSinToCos, freqShift)
        linear1 = try Projection(weights / "linear_1", inputs: channels, outputs: outputs)
        linear2 = try Projection(weights / "linear_2", inputs: outputs, outputs: outputs)
    }

    /// silu of the embedding and what is added to it, as every residual block wants it.
    func callAsFunction(_ timestep: Float, adding other: some Collection<Float> = EmptyCollection()) -> [Float] {
        var embedding = linear2(linear1(sinusoids(timestep)).map(silu))
        for (i, value) in zip(embedding.indices, other) { embedding[i] += value }
        return embedding.map(silu)
    }

    /// sin(t f_i) and cos(t f_i), f_i = 10000^(-i / (half - freqShift)); in single precision where diffusers has it.
    private func sinusoids(_ timestep: Float) -> [Float] {
        let half = channels / 2
        let angles = (0..<half).map { timestep * Float(exp(-log(10000) * Double($0) / (Double(half) - freqShift))) }
        let (sines, cosines) = (angles.map { Float(sin(Double($0))) }, angles.map { Float(cos(Double($0))) })
        return (flipSinToCos ? cosines + sines : sines + cosines) + (channels % 2 == 1 ? [0] : [])
    }
}

/// In double precision and rounded once, so that a last bit of the C library hardly ever shows.
private func silu(_ x: Float) -> Float { Float(Double(x) / (1 + exp(-Double(x)))) }

/// y = W x + b for one vector.
struct Projection {
    let inputs, outputs: Int
    private let weights, bias: [Float]

    init(_ path: WeightPath, inputs: Int, outputs: Int) throws {
        weights = try path("weight", outputs, inputs)
        bias = try path("bias", outputs)
        (self.inputs, self.outputs) = path.headersOnly ? (0, 0) : (inputs, outputs)
    }

    func callAsFunction(_ x: [Float]) -> [Float] {
        precondition(x.count == inputs)
        let (weights, x) = (weights.span, x.span)
        return (0..<outputs).map { row in
            // Four vectors of partial sums, because a chain of additions would wait for each one.
            var sums = (SIMD8<Float>(), SIMD8<Float>())
            var i = 0
            let start = row * inputs
            while i + 16 <= inputs {
                for lane in 0..<8 {
                    sums.0[lane] += weights[start + i + lane] * x[i + lane]
                    sums.1[lane] += weights[start + i + 8 + lane] * x[i + 8 + lane]
                }
                i += 16
            }
            var sum = bias[row] + (sums.0 + sums.1).sum()
            while i < inputs {
                sum += weights[start + i] * x[i]
                i += 1
            }
            return sum
        }
    }
}
