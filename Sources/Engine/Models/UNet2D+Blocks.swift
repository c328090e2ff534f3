import Foundation

/// Makes the blocks of a `UNet2D` from their weights.
struct UNet2DBuilder {
    let configuration: UNet2DConfiguration
    let kernels: KernelSet

    func convolution(
        _ weights: WeightPath, inputs: Int, outputs: Int, stride: Int = 1, padding: Int = 1, enlarging: Bool = false
    ) throws -> Convolution {
        Convolution(
            weights: try weights("weight", outputs, inputs, 3, 3), bias: try weights("bias", outputs), outputs: outputs, inputs: inputs,
            stride: stride, padding: padding, enlarging: enlarging, kernels: kernels)
    }

    func norm(_ weights: WeightPath, channels: Int, groups: Int) throws -> GroupNorm {
        GroupNorm(
            gamma: try weights("weight", channels), beta: try weights("bias", channels), groups: groups, eps: configuration.normEps,
            kernels: kernels)
    }

    func resnet(_ weights: WeightPath, inputs: (Int, Int), outputs: Int) throws -> ResnetBlock {
        let inputCount = inputs.0 + inputs.1
        let projected = configuration.timeScaleShift ? 2 * outputs : outputs
        let shortcut = inputCount == outputs ? nil : (
            weights: try (weights / "conv_shortcut")("weight", outputs, inputCount, 1, 1),
            bias: try (weights / "conv_shortcut")("bias", outputs), inputs: inputCount)
        return ResnetBlock(
            norm1: try norm(weights / "norm1", channels: inputCount, groups: configuration.normNumGroups),
            conv1: try convolution(weights / "conv1", inputs: inputCount, outputs: outputs),
            timeProjection: try Projection(weights / "time_emb_proj", inputs: configuration.timeEmbeddingDim, outputs: projected),
            timeScaleShift: configuration.timeScaleShift,
            norm2: try norm(weights / "norm2", channels: outputs, groups: configuration.normNumGroups),
            conv2: Convolution(
                weights: try (weights / "conv2")("weight", outputs, outputs, 3, 3), bias: try (weights / "conv2")("bias", outputs),
                outputs: outputs, inputs: outputs, shortcut: shortcut, kernels: kernels),
            hasShortcut: shortcut != nil)
    }

    func attention(_ weights: WeightPath, channels: Int, groups: Int?) throws -> AttentionBlock {
        // Checkpoints made before diffusers 0.15 have other names for the same.
        let old = weights.contains("query.weight")
        func matrix(_ name: String, _ oldName: String) throws -> (weight: [Float], bias: [Float]) {
            let place = weights / (old ? oldName : name)
            return (try place("weight", channels, channels), try place("bias", channels))
        }
        let (q, k, v) = (try matrix("to_q", "query"), try matrix("to_k", "key"), try matrix("to_v", "value"))
        let out = try matrix("to_out.0", "proj_attn")
        let headWidth = configuration.attentionHeadDim ?? channels
        return AttentionBlock(
            norm: try groups.map { try norm(weights / "group_norm", channels: channels, groups: $0) },
            projection: Linear(
                weights: q.weight + k.weight + v.weight, bias: q.bias + k.bias + v.bias, inputs: channels, outputs: 3 * channels, kernels: kernels),
            out: Linear(weights: out.weight, bias: out.bias, inputs: channels, outputs: channels, kernels: kernels),
            heads: channels / headWidth, headWidth: headWidth, kernels: kernels)
    }
}

/// Two normalised convolutions around the time embedding, and a shortcut: diffusers' `ResnetBlock2D`.
struct ResnetBlock {
    var norm1: GroupNorm
    var conv1: Convolution
    var timeProjection: Projection
    var timeScaleShift: Bool
    var norm2: GroupNorm
    var conv2: Convolution
    var hasShortcut: Bool

    /// - Parameters:
    ///   - x: height x width x channels, with `skip` beside it in channels
    ///   - time: silu of the time embedding
    func callAsFunction(_ x: Activation, _ skip: Activation? = nil, time: [Float], workspace: Workspace) -> Activation {
        let projected = timeProjection(time)
        let h: Activation
        let second: ScaleShift
        if timeScaleShift {
            h = conv1(x, skip, normalization: norm1.scaleShift(x, skip, workspace: workspace), workspace: workspace)
            second = norm2.scaleShift(h, workspace: workspace)
            for c in 0..<h.channels {
                let factor = 1 + projected[c]
                second[c] = (second[c].scale * factor, second[c].shift * factor + projected[h.channels + c])
            }
        } else {
            h = conv1(
                x, skip, normalization: norm1.scaleShift(x, skip, workspace: workspace), timeBias: projected, workspace: workspace)
            second = norm2.scaleShift(h, workspace: workspace)
        }
        if hasShortcut {
            return conv2(h, normalization: second, shortcutInput: x, skip, workspace: workspace)
        }
        return conv2(h, normalization: second, residual: skip.map { concatenated(x, $0, workspace) } ?? x, workspace: workspace)
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

    func callAsFunction(_ x: Activation, workspace: Workspace) -> Activation {
        let channels = x.channels
        let qkv = projection(norm?(x, workspace: workspace) ?? x, workspace: workspace)
        let attended = Attention.attend(
            query: qkv, at: 0, key: qkv, at: channels, value: qkv, at: 2 * channels, heads: heads, headWidth: headWidth, kernels: kernels,
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

    init(_ weights: WeightPath, _ configuration: UNet2DConfiguration) throws {
        channels = configuration.blockOutChannels[0]
        flipSinToCos = configuration.flipSinToCos
        freqShift = configuration.freqShift
        linear1 = try Projection(weights / "linear_1", inputs: channels, outputs: configuration.timeEmbeddingDim)
        linear2 = try Projection(weights / "linear_2", inputs: configuration.timeEmbeddingDim, outputs: configuration.timeEmbeddingDim)
    }

    /// silu of the embedding, as every residual block wants it.
    func callAsFunction(_ timestep: Float) -> [Float] {
        linear2(linear1(sinusoids(timestep)).map(silu)).map(silu)
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
        (self.inputs, self.outputs) = (inputs, outputs)
        weights = try path("weight", outputs, inputs)
        bias = try path("bias", outputs)
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
