import Foundation

/// The text encoder of the Stable Diffusion family: transformers' `CLIPTextModel` (Radford et al., arXiv:2103.00020,
/// section 2.4).
///
/// Immutable once loaded: every lane uses the same one, with a workspace of its own.
public final class CLIPText: Sendable {
    public let configuration: CLIPTextConfiguration
    /// The kernels that its arithmetic runs on.
    public let kernels: KernelSet
    private let weights: ModelWeights
    /// Where the vectors of the tokens stand. A text needs 77 of the fifty thousand, so they stay in the file.
    private let tokenEmbedding: String
    private let positionEmbedding: [Float]  // maxPositions x hiddenSize
    private let layers: [Layer]
    private let finalNorm: LayerNorm

    private struct Layer {
        var norm1, norm2: LayerNorm
        /// Query, key and value side by side.
        var projection: Linear
        var out, expansion, contraction: Linear
    }

    /// - Parameters:
    ///   - folder: a `text_encoder/` folder
    ///   - precision: of the weights and the arithmetic of the linear layers
    ///   - headersOnly: makes a network of `Placeholder`s, to see whether the weights fit
    /// - Throws: `ModelError`, `SafetensorsError`, `KernelError`.
    package init(
        folder: NetworkFolder, precision: Precision = .float32, kernels chosen: KernelSet? = nil,
        headersOnly: Bool = false
    ) throws {
        let kernels = try chosen ?? KernelSet.chosen()
        let configuration = try CLIPTextConfiguration(file: folder.configuration)
        let weights = try ModelWeights(folder, headersOnly: headersOnly)
        // transformers 5 writes the names without it.
        let prefix = "text_model"
        let isPrefixed = weights.contains(prefix + ".final_layer_norm.weight")
        let root = isPrefixed ? WeightPath(weights) / prefix : WeightPath(weights)
        let hidden = configuration.hiddenSize, intermediate = configuration.intermediateSize

        // It has no group norms.
        let build = BlockBuilder(kernels: kernels, precision: precision, groups: 1, eps: configuration.layerNormEps)
        func linear(_ places: [WeightPath], inputs: Int, outputs: Int) throws -> Linear {
            try build.linear(places, inputs: inputs, outputs: outputs, bias: true)
        }
        func norm(_ place: WeightPath) throws -> LayerNorm {
            try build.layerNorm(place, channels: hidden, eps: configuration.layerNormEps)
        }
        layers = try (0..<configuration.layers).map { index in
            let layer = root / "encoder" / "layers" / index
            let attention = layer / "self_attn"
            return Layer(
                norm1: try norm(layer / "layer_norm1"), norm2: try norm(layer / "layer_norm2"),
                projection: try linear(
                    [attention / "q_proj", attention / "k_proj", attention / "v_proj"],
                    inputs: hidden, outputs: hidden),
                out: try linear([attention / "out_proj"], inputs: hidden, outputs: hidden),
                expansion: try linear([layer / "mlp" / "fc1"], inputs: hidden, outputs: intermediate),
                contraction: try linear([layer / "mlp" / "fc2"], inputs: intermediate, outputs: hidden))
        }
        finalNorm = try norm(root / "final_layer_norm")
        positionEmbedding = try (root / "embeddings" / "position_embedding")(
            "weight", configuration.maxPositions, hidden)
        tokenEmbedding = (isPrefixed ? prefix + "." : "") + "embeddings.token_embedding.weight"
        // It is not read here, but what is wrong with it is thrown here.
        try weights.check(tokenEmbedding, shape: [configuration.vocabularySize, hidden])
        self.weights = weights
        self.configuration = configuration
        self.kernels = kernels
    }

    /// The last layer's values for each token, normed: `last_hidden_state`.
    /// - Parameter ids: at most `configuration.maxPositions` tokens below `configuration.vocabularySize`
    /// - Returns: 1 x tokens x `hiddenSize`
    /// - Throws: `CLIPTextError`; `SafetensorsError` if the file of the weights can be read no more.
    public func encode(ids: [Int], workspace: Workspace) throws -> Activation {
        guard (1...configuration.maxPositions).contains(ids.count) else {
            throw CLIPTextError.tokenCount(ids.count, limit: configuration.maxPositions)
        }
        let hidden = configuration.hiddenSize
        var x = workspace.activation(height: 1, width: ids.count, channels: hidden)
        var embedded = x.mutableSpan
        for (position, id) in ids.enumerated() {
            guard (0..<configuration.vocabularySize).contains(id) else {
                throw CLIPTextError.unknownToken(id, count: configuration.vocabularySize)
            }
            let vector = try weights.row(id, of: tokenEmbedding, shape: [configuration.vocabularySize, hidden])
            for i in 0..<hidden {
                embedded[position * hidden + i] = vector[i] + positionEmbedding[position * hidden + i]
            }
        }
        for layer in layers {
            let qkv = layer.projection(layer.norm1(x, workspace: workspace), workspace: workspace)
            let attended = Attention.attend(
                query: qkv, at: 0, key: qkv, at: hidden, value: qkv, at: 2 * hidden, heads: configuration.heads,
                headWidth: hidden / configuration.heads, causal: true, kernels: kernels, workspace: workspace)
            x = layer.out(attended, residual: x, workspace: workspace)
            let expanded = layer.expansion(layer.norm2(x, workspace: workspace), workspace: workspace)
            configuration.activation.apply(to: expanded, kernels: kernels)
            x = layer.contraction(expanded, residual: x, workspace: workspace)
        }
        return finalNorm(x, workspace: workspace)
    }
}

/// Why tokens cannot be encoded.
public enum CLIPTextError: Error, Equatable, CustomStringConvertible {
    case tokenCount(Int, limit: Int)
    case unknownToken(Int, count: Int)

    public var description: String {
        switch self {
        case .tokenCount(let count, let limit):
            """
            a text of \(count) tokens cannot be encoded: this model's text encoder takes 1 to \(limit); check that \
            tokenizer and text encoder belong together
            """
        case .unknownToken(let id, let count):
            """
            token \(id) cannot be encoded: this model's text encoder knows 0 to \(count - 1); check that tokenizer and \
            text encoder belong together
            """
        }
    }
}

/// The `config.json` of a `CLIPTextModel`.
public struct CLIPTextConfiguration: Sendable {
    public let vocabularySize, hiddenSize, intermediateSize, layers, heads: Int
    /// How many tokens a text has at most.
    public let maxPositions: Int
    public let layerNormEps: Double
    public let endToken: Int
    package let activation: ActivationFunction

    /// An option that is unknown, or set to what the engine cannot do, is an error.
    /// - Throws: `ModelError`.
    public init(file: URL) throws {
        var options = try ConfigurationOptions(file: file)
        if let architecture = try options.value("architectures", \.strings)?.first, architecture != "CLIPTextModel" {
            throw options.unsupported("architectures", architecture, "CLIPTextModel")
        }
        try options.require("model_type", "clip_text_model")
        try options.require("use_attention_mask", false)
        options.ignore(
            "dropout", "attention_dropout", "initializer_factor", "initializer_range", "projection_dim", "bos_token_id",
            "pad_token_id",
            "torch_dtype", "dtype", "transformers_version", "gradient_checkpointing", "use_cache", "tie_word_embeddings"
        )

        vocabularySize = try options.size("vocab_size", default: 49_408, limit: 1 << 24)
        hiddenSize = try options.size("hidden_size", default: 512)
        intermediateSize = try options.size("intermediate_size", default: 2048, limit: 1 << 18)
        layers = try options.size("num_hidden_layers", default: 12, limit: 1024)
        heads = try options.size("num_attention_heads", default: 8)
        maxPositions = try options.size("max_position_embeddings", default: 77)
        try options.check(
            hiddenSize % heads == 0, "num_attention_heads", "\(heads) heads do not divide hidden_size \(hiddenSize)")
        layerNormEps = try options.value("layer_norm_eps", \.number) ?? 1e-5
        try options.check(
            layerNormEps > 0 && layerNormEps < 1, "layer_norm_eps", "\(layerNormEps) is not between 0 and 1")
        endToken = try options.value("eos_token_id", \.integer) ?? 49_407
        let name = try options.value("hidden_act", \.string) ?? "quick_gelu"
        switch name {
        case "quick_gelu": activation = .quickGELU
        case "gelu": activation = .gelu
        default: throw options.unsupported("hidden_act", name, "quick_gelu or gelu")
        }
        try options.refuseOthers()
    }

    /// Which token's vector stands for the whole text: `pooler_output`. The first end token; of models whose
    /// configuration calls it 2, as those of OpenAI do, the first of the highest tokens.
    public func pooledPosition(_ ids: [Int]) -> Int {
        let end = endToken == 2 ? ids.max() : endToken
        return ids.firstIndex { $0 == end } ?? 0
    }

    /// Floating-point operations of encoding a text by the definition of its layers.
    public func flops(tokens: Int) -> Double {
        let tokens = Double(tokens), hidden = Double(hiddenSize)
        return Double(layers) * 2 * tokens * hidden * (4 * hidden + 2 * Double(intermediateSize) + 2 * tokens)
    }
}
