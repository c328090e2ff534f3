import Foundation

/// The `config.json` of a diffusers `AutoencoderKL`.
public struct AutoencoderKLConfiguration: Sendable, Equatable {
    /// Channels of the image.
    public let inChannels, outChannels: Int
    public let latentChannels: Int
    /// Channels of each level, the image's resolution first.
    public let blockOutChannels: [Int]
    public let layersPerBlock: Int
    public let normNumGroups: Int
    public let midAttention: Bool
    public let quantConv, postQuantConv: Bool
    /// Latents are multiplied by this after encoding and divided by it before decoding; neither is done here.
    public let scalingFactor: Double

    /// Pixels of the image for each latent, along an axis.
    public var factor: Int { 1 << (blockOutChannels.count - 1) }
    /// Group norms of the decoder, and of the encoder.
    public var decoderNorms: Int { middleNorms + blockOutChannels.count * (layersPerBlock + 1) * 2 + 1 }
    public var encoderNorms: Int { middleNorms + blockOutChannels.count * layersPerBlock * 2 + 1 }
    /// Number of the decoder's first norms, those at the latents' resolution.
    public var decoderTrunkNorms: Int { middleNorms + (layersPerBlock + 1) * 2 }
    /// Number of the encoder's first norms, those above the latents' resolution.
    public var encoderFeatureNorms: Int { (blockOutChannels.count - 1) * layersPerBlock * 2 }
    /// Context in latents around a tile of the decoder's features beyond which nothing reaches its pixels: the 3x3
    /// convolutions from there on.
    public var decoderFeatureHalo: Int {
        // At the image's resolution, rounded up: an upsampling convolution and two for each residual block of a level,
        // and the last one.
        let pixels = (0..<blockOutChannels.count - 1).reduce(1) { $0 + (1 + 2 * (layersPerBlock + 1)) << $1 }
        return (pixels + factor - 1) / factor
    }
    /// The same for a tile of an image and the encoder's features: in latents too, so that windows begin and end where
    /// the downsamplers' steps do.
    public var encoderFeatureHalo: Int {
        let pixels = (0..<blockOutChannels.count - 1).reduce(1) { $0 + (1 + 2 * layersPerBlock) << $1 }
        return (pixels + factor - 1) / factor
    }
    /// Channels of what is between the parts of the decoder, and of the encoder.
    public var decoderFeatureChannels: Int { blockOutChannels[blockOutChannels.count - 1] }
    public var encoderFeatureChannels: Int { blockOutChannels[max(blockOutChannels.count - 2, 0)] }
    private var middleNorms: Int { midAttention ? 5 : 4 }

    /// Reads `config.json`. An option that is unknown, or set to what the engine cannot do, is an error.
    /// - Throws: `ModelError`.
    public init(file: URL) throws {
        var options = try ConfigurationOptions(file: file)
        try options.require("_class_name", "AutoencoderKL")
        try options.require("act_fn", "silu", "swish")
        for option in ["shift_factor", "latents_mean", "latents_std"] { try options.require(option, .null) }
        // The second: half precision overflows in some; the arithmetic here is single precision.
        options.ignore("sample_size", "force_upcast")
        inChannels = try options.size("in_channels", default: 3)
        outChannels = try options.size("out_channels", default: 3)
        latentChannels = try options.size("latent_channels", default: 4, limit: 1 << 10)
        let widths = try options.value("block_out_channels", \.integers) ?? [64]
        blockOutChannels = widths
        try options.check((1...8).contains(widths.count), "block_out_channels", "needs 1 to 8 levels")
        try options.check(
            widths.allSatisfy { (1...1 << 16).contains($0) }, "block_out_channels",
            "\(widths) are not all between 1 and \(1 << 16)")
        for (option, type) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
            let types = try options.value(option, \.strings) ?? widths.map { _ in type }
            try options.check(
                types.count == widths.count, option, "has \(types.count) blocks for \(widths.count) levels")
            if let other = types.first(where: { $0 != type }) { throw options.unsupported(option, other, type) }
        }
        layersPerBlock = try options.size("layers_per_block", default: 1, limit: 64)
        let groups = try options.size("norm_num_groups", default: 32)
        normNumGroups = groups
        for channels in widths {
            try options.check(
                channels % groups == 0, "norm_num_groups", "\(groups) does not divide a norm's \(channels) channels")
        }
        midAttention = try options.value("mid_block_add_attention", \.bool) ?? true
        quantConv = try options.value("use_quant_conv", \.bool) ?? true
        postQuantConv = try options.value("use_post_quant_conv", \.bool) ?? true
        let scaling = try options.value("scaling_factor", \.number) ?? 0.18215
        try options.check(scaling > 1e-6 && scaling < 1e6, "scaling_factor", "\(scaling) is not between 1e-6 and 1e6")
        scalingFactor = scaling
        try options.refuseOthers()
    }

    /// Floating-point operations of decoding height x width latents, by the definition of the convolutions and the
    /// attention.
    public func decoderFlops(height: Int, width: Int) -> Double {
        flops(
            height: height, width: width, input: latentChannels, output: outChannels, layers: layersPerBlock + 1,
            upsampling: true)
    }

    /// Floating-point operations of encoding the image of height x width latents.
    public func encoderFlops(height: Int, width: Int) -> Double {
        flops(
            height: height, width: width, input: inChannels, output: 2 * latentChannels, layers: layersPerBlock,
            upsampling: false)
    }

    private func flops(height: Int, width: Int, input: Int, output: Int, layers: Int, upsampling: Bool) -> Double {
        let last = blockOutChannels.count - 1
        func positions(_ level: Int) -> Double { Double(height << (last - level)) * Double(width << (last - level)) }
        func convolution(_ inputs: Int, _ outputs: Int, _ level: Int, size: Int = 9) -> Double {
            2 * positions(level) * Double(inputs * size) * Double(outputs)
        }
        let deepest = blockOutChannels[last], p = positions(last)
        var total = 4 * convolution(deepest, deepest, last)
        if midAttention { total += 4 * convolution(deepest, deepest, last, size: 1) + 4 * p * p * Double(deepest) }
        total +=
            upsampling
            ? convolution(input, deepest, last) + convolution(blockOutChannels[0], output, 0)
            : convolution(input, blockOutChannels[0], 0) + convolution(deepest, output, last)
        for level in 0...last {
            let width = blockOutChannels[level]
            let from = blockOutChannels[upsampling ? min(level + 1, last) : max(level - 1, 0)]
            total += convolution(from, width, level) + Double(2 * layers - 1) * convolution(width, width, level)
            if from != width { total += convolution(from, width, level, size: 1) }
            if level != (upsampling ? 0 : last) {
                total += convolution(width, width, upsampling ? level - 1 : level + 1)
            }
        }
        return total
    }
}
