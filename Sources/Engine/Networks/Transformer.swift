/// Transformer blocks between two projections, added to their input: diffusers' `Transformer2DModel`.
struct SpatialTransformer {
    var norm: GroupNorm
    var projectionIn, projectionOut: Linear
    var blocks: [TransformerBlock]

    /// - Parameters:
    ///   - x: height x width x channels
    ///   - text: 1 x tokens x width of the text encoder
    func callAsFunction(_ x: Activation, text: Activation, workspace: Workspace) -> Activation {
        var h = projectionIn(norm(x, workspace: workspace), workspace: workspace)
        for block in blocks { h = block(h, text: text, workspace: workspace) }
        return projectionOut(h, residual: x, workspace: workspace)
    }
}

/// Attention to the sample, attention to the text and a gated perceptron, each normalised before and added to its
/// input: diffusers' `BasicTransformerBlock` (Rombach et al., arXiv:2112.10752, section 3.3).
struct TransformerBlock {
    var norm1, norm2, norm3: LayerNorm
    var attention1, attention2: TransformerAttention
    /// To the gated values of the inner layer (diffusers' `GEGLU`), and back.
    var expansion, contraction: Linear

    func callAsFunction(_ x: Activation, text: Activation, workspace: Workspace) -> Activation {
        var h = attention1(
            norm1(x, workspace: workspace), keyValue: attention1.keyValue(of: text, workspace: workspace), residual: x,
            workspace: workspace)
        h = attention2(
            norm2(h, workspace: workspace), keyValue: attention2.keyValue(of: text, workspace: workspace), residual: h,
            workspace: workspace)
        return contraction(
            expansion(norm3(h, workspace: workspace), workspace: workspace), residual: h, workspace: workspace)
    }
}

/// Attention of the sample's positions to each other, or to the text's tokens: diffusers' `Attention` as transformer
/// blocks use it.
struct TransformerAttention {
    /// The sample's queries; and beside them its keys and values, where it attends to itself.
    var projection: Linear
    /// The text's keys and values side by side; nil where the sample attends to itself.
    var textProjection: Linear?
    var out: Linear
    var heads, headWidth: Int
    var kernels: KernelSet

    /// The text's keys and values, which depend on the text alone: one for all tiles and timesteps. Nil where the
    /// sample attends to itself.
    func keyValue(of text: Activation, workspace: Workspace) -> Activation? {
        textProjection?(text, workspace: workspace)
    }

    /// - Parameters:
    ///   - x: height x width x channels
    ///   - keyValue: as `keyValue(of:workspace:)` gave it
    ///   - residual: added
    func callAsFunction(_ x: Activation, keyValue: Activation?, residual: Activation, workspace: Workspace)
        -> Activation
    {
        let inner = heads * headWidth
        let projected = projection(x, workspace: workspace)
        let source = keyValue ?? projected, start = keyValue == nil ? inner : 0
        let attended = Attention.attend(
            query: projected, at: 0, key: source, at: start, value: source, at: start + inner, heads: heads,
            headWidth: headWidth,
            kernels: kernels, workspace: workspace)
        return out(attended, residual: residual, workspace: workspace)
    }
}

extension BlockBuilder {
    /// - Parameters:
    ///   - textWidth: width of the text encoder
    ///   - onlyText: whether the first attention of each block is to the text too
    func transformer(
        _ weights: WeightPath, channels: Int, heads: Int, blocks: Int, textWidth: Int, onlyText: Bool
    ) throws -> SpatialTransformer {
        func attention(_ weights: WeightPath, toText: Bool) throws -> TransformerAttention {
            let sample = (toText ? ["to_q"] : ["to_q", "to_k", "to_v"]).map { weights / $0 }
            return TransformerAttention(
                projection: try linear(sample, inputs: channels, outputs: channels, bias: false),
                textProjection: toText
                    ? try linear(
                        ["to_k", "to_v"].map { weights / $0 }, inputs: textWidth, outputs: channels, bias: false) : nil,
                out: try linear(weights / "to_out" / 0, inputs: channels, outputs: channels), heads: heads,
                headWidth: channels / heads,
                kernels: kernels)
        }
        func layerNorm(_ weights: WeightPath) throws -> LayerNorm {
            try self.layerNorm(weights, channels: channels, eps: 1e-5)
        }
        return SpatialTransformer(
            norm: try norm(weights / "norm", channels: channels, eps: 1e-6),
            projectionIn: try linear(weights / "proj_in", inputs: channels, outputs: channels),
            projectionOut: try linear(weights / "proj_out", inputs: channels, outputs: channels),
            blocks: try (0..<blocks).map { index in
                let block = weights / "transformer_blocks" / index
                return TransformerBlock(
                    norm1: try layerNorm(block / "norm1"), norm2: try layerNorm(block / "norm2"),
                    norm3: try layerNorm(block / "norm3"),
                    attention1: try attention(block / "attn1", toText: onlyText),
                    attention2: try attention(block / "attn2", toText: true),
                    expansion: try linear(
                        block / "ff" / "net" / 0 / "proj", inputs: channels, outputs: 4 * channels, gated: true),
                    contraction: try linear(block / "ff" / "net" / 2, inputs: 4 * channels, outputs: channels))
            })
    }
}
