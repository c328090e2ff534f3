import Foundation

/// The `config.json` of a diffusers `UNet2DConditionModel`, of the kind that the Stable Diffusion family has.
public struct UNet2DConditionConfiguration: Sendable, Equatable {
    public let inChannels, outChannels: Int
    /// Width of the text encoder, the numbers of a token.
    public let crossAttentionDim: Int
    /// Number of class labels (noise levels, in the upscaler); nil where there are none.
    public let classEmbeddings: Int?
    /// Channels of each level, the finest first. So are all lists here, also those about the way up.
    public let blockOutChannels: [Int]
    /// Residual blocks of each level on the way down; on the way up there is one more.
    public let layersPerBlock: [Int]
    /// Whether a level's residual blocks are followed by transformers, on the way down and on the way up.
    public let downAttention, upAttention: [Bool]
    public let heads, transformerLayers: [Int]
    /// Whether a level's transformers attend to the text twice instead of to the sample and the text.
    public let onlyCrossAttention: [Bool]
    /// Whether a transformer is between linear layers or 1x1 convolutions, which differ in the weights' shape alone.
    public let linearProjection: Bool
    public let normNumGroups: Int
    public let normEps: Double
    public let flipSinToCos: Bool
    public let freqShift: Double
    public let timeEmbeddingDim: Int

    /// Windows whose height and width are multiples of this need nothing added or cut off on the way: twice for every
    /// level but the last.
    public var alignment: Int { 1 << (blockOutChannels.count - 1) }

    /// Reads `config.json`. An option that is unknown, or set to what the engine cannot do, is an error.
    /// - Throws: `ModelError`.
    public init(file: URL) throws {
        var options = try ConfigurationOptions(file: file)
        try options.require("_class_name", "UNet2DConditionModel")
        try options.require("act_fn", "silu", "swish")
        try options.require("mid_block_type", "UNetMidBlock2DCrossAttn")
        try options.require("time_embedding_type", "positional")
        try options.require("resnet_time_scale_shift", "default")
        try options.require("attention_type", "default")
        try options.require("downsample_padding", 1)
        for option in ["conv_in_kernel", "conv_out_kernel"] { try options.require(option, 3) }
        for option in ["mid_block_scale_factor", "resnet_out_scale_factor"] { try options.require(option, 1) }
        for option in [
            "center_input_sample", "dual_cross_attention", "class_embeddings_concat", "resnet_skip_time_act",
        ] {
            try options.require(option, false)
        }
        for option in [
            "addition_embed_type", "addition_time_embed_dim", "class_embed_type", "cross_attention_norm",
            "encoder_hid_dim",
            "encoder_hid_dim_type", "num_attention_heads", "projection_class_embeddings_input_dim",
            "reverse_transformer_layers_per_block",
            "time_cond_proj_dim", "time_embedding_act_fn", "timestep_post_act",
        ] { try options.require(option, .null) }
        // The last three: of a kind of embedding that is not there, of another middle block, and of arithmetic in half
        // precision.
        options.ignore(
            "sample_size", "dropout", "addition_embed_type_num_heads", "mid_block_only_cross_attention",
            "upcast_attention")

        inChannels = try options.size("in_channels", default: 4)
        outChannels = try options.size("out_channels", default: 4)
        crossAttentionDim = try options.size("cross_attention_dim", default: 1280)
        classEmbeddings = try options.value("num_class_embeds", \.integer)
        try options.check(
            (1...1 << 20).contains(classEmbeddings ?? 1), "num_class_embeds", "is not between 1 and \(1 << 20)")
        let widths = try options.value("block_out_channels", \.integers) ?? [320, 640, 1280, 1280]
        blockOutChannels = widths
        let levels = widths.count
        try options.check((1...16).contains(levels), "block_out_channels", "needs 1 to 16 levels")
        try options.check(
            widths.allSatisfy { (1...1 << 16).contains($0) }, "block_out_channels",
            "\(widths) are not all between 1 and \(1 << 16)")

        func attention(_ option: String, plain: String, attending: String, plainLevel: Int) throws -> [Bool] {
            let types =
                try options.value(option, \.strings) ?? (0..<levels).map { $0 == plainLevel ? plain : attending }
            try options.check(types.count == levels, option, "has \(types.count) blocks for \(levels) levels")
            for type in types where type != plain && type != attending {
                throw options.unsupported(option, type, "\(plain) and \(attending)")
            }
            return types.map { $0 == attending }
        }
        downAttention = try attention(
            "down_block_types", plain: "DownBlock2D", attending: "CrossAttnDownBlock2D", plainLevel: levels - 1)
        upAttention = try attention(
            "up_block_types", plain: "UpBlock2D", attending: "CrossAttnUpBlock2D", plainLevel: 0
        ).reversed()

        func counts(_ option: String, default missing: Int, limit: Int) throws -> [Int] {
            let counts = try options.perLevel(option, default: missing, levels: levels, \.integer)
            try options.check(
                counts.allSatisfy { (1...limit).contains($0) }, option, "\(counts) are not all between 1 and \(limit)")
            return counts
        }
        layersPerBlock = try counts("layers_per_block", default: 2, limit: 64)
        transformerLayers = try counts("transformer_layers_per_block", default: 1, limit: 64)
        // A number of heads, in spite of its name: https://github.com/huggingface/diffusers/issues/2011
        heads = try counts("attention_head_dim", default: 8, limit: 1 << 16)
        onlyCrossAttention = try options.perLevel("only_cross_attention", default: false, levels: levels, \.bool)
        for (level, width) in widths.enumerated()
        where downAttention[level] || upAttention[level] || level == levels - 1 {
            try options.check(
                width % heads[level] == 0, "attention_head_dim", "\(heads[level]) heads do not divide \(width) channels"
            )
        }
        linearProjection = try options.value("use_linear_projection", \.bool) ?? false

        let groups = try options.size("norm_num_groups", default: 32)
        normNumGroups = groups
        normEps = try options.value("norm_eps", \.number) ?? 1e-5
        try options.check(normEps > 0 && normEps < 1, "norm_eps", "\(normEps) is not between 0 and 1")
        flipSinToCos = try options.value("flip_sin_to_cos", \.bool) ?? true
        freqShift = try options.value("freq_shift", \.number) ?? 0
        try options.check(widths[0] >= 4, "block_out_channels", "the first level needs at least 4 channels")
        try options.check(
            freqShift.isFinite && freqShift < Double(widths[0] / 2), "freq_shift",
            "\(freqShift) is too large for \(widths[0]) channels")
        timeEmbeddingDim = try options.size("time_embedding_dim", default: widths[0] * 4, limit: 1 << 18)
        for channels in widths + upInputs.joined().map({ $0.below + $0.skip }) {
            try options.check(
                channels % groups == 0, "norm_num_groups", "\(groups) does not divide a norm's \(channels) channels")
        }
        try options.refuseOthers()
    }

    /// The input channels of the residual blocks of the way up, level by level, the finest first: those that come from
    /// below, and those of the skip connection.
    var upInputs: [[(below: Int, skip: Int)]] {
        blockOutChannels.indices.map { level in
            (0...layersPerBlock[level]).map { layer in
                (
                    below: layer > 0
                        ? blockOutChannels[level] : blockOutChannels[min(level + 1, blockOutChannels.count - 1)],
                    skip: layer < layersPerBlock[level] ? blockOutChannels[level] : blockOutChannels[max(level - 1, 0)]
                )
            }
        }
    }
}
