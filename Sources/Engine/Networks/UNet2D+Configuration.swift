import Foundation

/// The `config.json` of a diffusers `UNet2DModel`.
public struct UNet2DConfiguration: Sendable, Equatable {
    public let inChannels, outChannels: Int
    /// Channels of each level, the finest first.
    public let blockOutChannels: [Int]
    public let layersPerBlock: Int
    /// Whether a level's residual blocks are followed by attention, on the way down and on the way up (coarsest first,
    /// as in the file).
    public let downAttention, upAttention: [Bool]
    public let hasMidBlock, midAttention: Bool
    /// Width of an attention head; nil: as many as there are channels.
    public let attentionHeadDim: Int?
    public let normNumGroups: Int
    /// Groups of the norm before the middle's attention; nil: no norm.
    public let midAttentionGroups: Int?
    public let normEps: Double
    public let downsamplePadding: Int
    public let flipSinToCos: Bool
    public let freqShift: Double
    public let timeEmbeddingDim: Int
    /// Whether the time embedding scales and shifts the second norm instead of being added before it.
    public let timeScaleShift: Bool
    /// Whether the sample is taken from [0, 1] to [-1, 1] first.
    public let centerInputSample: Bool

    /// Height and width of a sample must be multiples of this: twice for every level but the last.
    public var alignment: Int { 1 << (blockOutChannels.count - 1) }

    /// Reads `config.json`. An option that is unknown, or set to what the engine cannot do, is an error.
    /// - Throws: `ModelError`.
    public init(file: URL) throws {
        let path = file.path
        let data: Data
        do { data = try Data(contentsOf: file) } catch {
            throw ModelError.unreadable(file: path, reason: "it is missing or not readable")
        }
        let object: [String: JSON]
        do { object = try JSON([UInt8](data)).object ?? [:] } catch {
            throw ModelError.malformed(file: path, option: "its JSON", reason: error.description)
        }
        try self.init(Raw(object, path: path), path: path)
    }

    private init(_ raw: Raw, path: String) throws {
        func require(_ condition: Bool, _ option: Raw.Key, _ value: Any, _ supported: String) throws {
            guard condition else {
                throw ModelError.unsupported(
                    file: path, option: option.rawValue, value: "\(value)", supported: supported)
            }
        }
        func check(_ condition: Bool, _ option: Raw.Key, _ reason: String) throws {
            guard condition else { throw ModelError.malformed(file: path, option: option.rawValue, reason: reason) }
        }
        if let option = raw.unknown.sorted().first { throw ModelError.unknownOption(file: path, option: option) }

        try require(raw._class_name == "UNet2DModel", ._class_name, raw._class_name ?? "missing", "UNet2DModel")
        let activation = raw.act_fn ?? "silu"
        try require(["silu", "swish"].contains(activation), .act_fn, activation, "silu")
        let time = raw.time_embedding_type ?? "positional"
        try require(time == "positional", .time_embedding_type, time, "positional")
        let middle = raw.mid_block_type ?? .some("UNetMidBlock2D")
        try require(middle == nil || middle == "UNetMidBlock2D", .mid_block_type, middle ?? "null", "UNetMidBlock2D")
        try require(
            (raw.mid_block_scale_factor ?? 1) == 1, .mid_block_scale_factor, raw.mid_block_scale_factor ?? 1, "1")
        for (key, type) in [(Raw.Key.downsample_type, raw.downsample_type), (.upsample_type, raw.upsample_type)] {
            try require((type ?? "conv") == "conv", key, type ?? "conv", "conv")
        }
        try require(raw.class_embed_type == nil, .class_embed_type, raw.class_embed_type ?? "", "null")
        try require(raw.num_class_embeds == nil, .num_class_embeds, raw.num_class_embeds ?? 0, "null")
        let shift = raw.resnet_time_scale_shift ?? "default"
        try require(
            ["default", "scale_shift"].contains(shift), .resnet_time_scale_shift, shift, "default or scale_shift")
        timeScaleShift = shift == "scale_shift"

        /// Far beyond any published model, and small enough that no product of a few of them overflows.
        let limit = 1 << 16
        inChannels = raw.in_channels ?? 3
        outChannels = raw.out_channels ?? 3
        try check((1...limit).contains(inChannels), .in_channels, "\(inChannels) is not between 1 and \(limit)")
        try check((1...limit).contains(outChannels), .out_channels, "\(outChannels) is not between 1 and \(limit)")
        blockOutChannels = raw.block_out_channels ?? [224, 448, 672, 896]
        try check((1...16).contains(blockOutChannels.count), .block_out_channels, "needs 1 to 16 levels")
        try check(
            blockOutChannels.allSatisfy { (1...limit).contains($0) }, .block_out_channels,
            "\(blockOutChannels) are not all between 1 and \(limit)")
        layersPerBlock = raw.layers_per_block ?? 2
        try check((1...64).contains(layersPerBlock), .layers_per_block, "\(layersPerBlock) is not between 1 and 64")

        let levels = blockOutChannels.count
        func attention(_ types: [String], _ key: Raw.Key, plain: String, attending: String) throws -> [Bool] {
            try check(types.count == levels, key, "has \(types.count) blocks for \(levels) levels")
            for type in types {
                try require(type == plain || type == attending, key, type, "\(plain) and \(attending)")
            }
            return types.map { $0 == attending }
        }
        downAttention = try attention(
            raw.down_block_types ?? ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
            .down_block_types,
            plain: "DownBlock2D", attending: "AttnDownBlock2D")
        upAttention = try attention(
            raw.up_block_types ?? ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"], .up_block_types,
            plain: "UpBlock2D", attending: "AttnUpBlock2D")
        hasMidBlock = middle != nil
        midAttention = hasMidBlock && raw.add_attention ?? true

        let head = raw.attention_head_dim ?? .some(8)
        attentionHeadDim = head
        if let head {
            var attending = zip(blockOutChannels, downAttention).filter(\.1).map(\.0)
            attending += zip(blockOutChannels.reversed(), upAttention).filter(\.1).map(\.0)
            if midAttention { attending.append(blockOutChannels[blockOutChannels.count - 1]) }
            try check(
                head > 0 && attending.allSatisfy { $0 % head == 0 }, .attention_head_dim,
                "\(head) does not divide the channels \(attending)")
        }

        normNumGroups = raw.norm_num_groups ?? 32
        normEps = raw.norm_eps ?? 1e-5
        try check(normEps > 0 && normEps < 1, .norm_eps, "\(normEps) is not between 0 and 1")
        let groups = normNumGroups
        try check((1...limit).contains(groups), .norm_num_groups, "\(groups) is not between 1 and \(limit)")
        midAttentionGroups = raw.attn_norm_num_groups ?? (timeScaleShift ? nil : groups)
        if let groups = midAttentionGroups, midAttention {
            try check(
                groups > 0 && (blockOutChannels.last ?? 0) % groups == 0, .attn_norm_num_groups,
                "\(groups) does not divide the middle's channels")
        }
        downsamplePadding = raw.downsample_padding ?? 1
        try require([0, 1].contains(downsamplePadding), .downsample_padding, downsamplePadding, "0 or 1")
        flipSinToCos = raw.flip_sin_to_cos ?? true
        freqShift = raw.freq_shift ?? 0
        try check(blockOutChannels[0] >= 4, .block_out_channels, "the first level needs at least 4 channels")
        try check(
            freqShift.isFinite && freqShift < Double(blockOutChannels[0] / 2), .freq_shift,
            "\(freqShift) is too large for \(blockOutChannels[0]) channels")
        timeEmbeddingDim = raw.time_embedding_dim ?? blockOutChannels[0] * 4
        try check(
            (1...limit * 4).contains(timeEmbeddingDim), .time_embedding_dim,
            "\(timeEmbeddingDim) is not between 1 and \(limit * 4)")
        centerInputSample = raw.center_input_sample ?? false

        for channels in normedChannels {
            try check(
                channels % groups == 0, .norm_num_groups, "\(groups) does not divide a norm's \(channels) channels")
        }
    }

    /// The input channels of the residual blocks of the way up, level by level: those that come from below, and those
    /// of the skip connection.
    var upInputs: [[(below: Int, skip: Int)]] {
        let reversed = Array(blockOutChannels.reversed())
        return reversed.indices.map { level in
            (0...layersPerBlock).map { layer in
                (
                    below: layer > 0 ? reversed[level] : reversed[max(level - 1, 0)],
                    skip: layer < layersPerBlock ? reversed[level] : reversed[min(level + 1, reversed.count - 1)]
                )
            }
        }
    }

    private var normedChannels: [Int] { blockOutChannels + upInputs.joined().map { $0.below + $0.skip } }

    /// The file as it is. Two levels of optionals: not there, and null.
    private struct Raw {
        var _class_name: String?
        var in_channels, out_channels, layers_per_block, norm_num_groups, attn_norm_num_groups, downsample_padding: Int?
        var time_embedding_dim, num_class_embeds: Int?
        var block_out_channels: [Int]?
        var down_block_types, up_block_types: [String]?
        var attention_head_dim: Int??
        var mid_block_type: String??
        var act_fn, time_embedding_type, downsample_type, upsample_type, class_embed_type,
            resnet_time_scale_shift: String?
        var norm_eps, freq_shift, mid_block_scale_factor: Double?
        var flip_sin_to_cos, center_input_sample, add_attention: Bool?
        var unknown: [String] = []

        enum Key: String {
            case _class_name, in_channels, out_channels, layers_per_block, norm_num_groups, attn_norm_num_groups,
                downsample_padding
            case time_embedding_dim, num_class_embeds, block_out_channels, down_block_types, up_block_types,
                attention_head_dim
            case mid_block_type, act_fn, time_embedding_type, downsample_type, upsample_type, class_embed_type,
                resnet_time_scale_shift
            case norm_eps, freq_shift, mid_block_scale_factor, flip_sin_to_cos, center_input_sample, add_attention
            // Without meaning for inference.
            case sample_size, dropout, num_train_timesteps, _diffusers_version, _name_or_path
        }

        /// - Throws: `ModelError.malformed` for a value of another type.
        init(_ object: [String: JSON], path: String) throws {
            func get<Value>(_ key: Key, _ read: (JSON) -> Value?) throws -> Value? {
                guard let value = object[key.rawValue], value != .null else { return nil }
                guard let result = read(value) else {
                    throw ModelError.malformed(file: path, option: key.rawValue, reason: "is of the wrong type")
                }
                return result
            }
            func getNull<Value>(_ key: Key, _ read: (JSON) -> Value?) throws -> Value?? {
                object[key.rawValue] == nil ? nil : .some(try get(key, read))
            }
            func strings(_ value: JSON) -> [String]? {
                guard let array = value.array else { return nil }
                let strings = array.compactMap(\.string)
                return strings.count == array.count ? strings : nil
            }
            _class_name = try get(._class_name, \.string)
            in_channels = try get(.in_channels, \.integer)
            out_channels = try get(.out_channels, \.integer)
            layers_per_block = try get(.layers_per_block, \.integer)
            norm_num_groups = try get(.norm_num_groups, \.integer)
            attn_norm_num_groups = try get(.attn_norm_num_groups, \.integer)
            downsample_padding = try get(.downsample_padding, \.integer)
            time_embedding_dim = try get(.time_embedding_dim, \.integer)
            num_class_embeds = try get(.num_class_embeds, \.integer)
            block_out_channels = try get(.block_out_channels, \.integers)
            down_block_types = try get(.down_block_types, strings)
            up_block_types = try get(.up_block_types, strings)
            attention_head_dim = try getNull(.attention_head_dim, \.integer)
            mid_block_type = try getNull(.mid_block_type, \.string)
            act_fn = try get(.act_fn, \.string)
            time_embedding_type = try get(.time_embedding_type, \.string)
            downsample_type = try get(.downsample_type, \.string)
            upsample_type = try get(.upsample_type, \.string)
            class_embed_type = try get(.class_embed_type, \.string)
            resnet_time_scale_shift = try get(.resnet_time_scale_shift, \.string)
            norm_eps = try get(.norm_eps, \.number)
            freq_shift = try get(.freq_shift, \.number)
            mid_block_scale_factor = try get(.mid_block_scale_factor, \.number)
            flip_sin_to_cos = try get(.flip_sin_to_cos, \.bool)
            center_input_sample = try get(.center_input_sample, \.bool)
            add_attention = try get(.add_attention, \.bool)
            unknown = object.keys.filter { Key(rawValue: $0) == nil }
        }
    }
}
