import Foundation

/// Between images and latents: diffusers' `AutoencoderKL` (Rombach et al., arXiv:2112.10752, section 3.1).
///
/// A canvas too large for one call is worked on in tiles. Alone, a tile's group norms would see the tile and nothing
/// else, and tiles would differ in tone. So statistics of the whole canvas can be given, which the sums over the cells
/// of all tiles make up; `decoderNorms` or `encoderNorms` of them in the order of evaluation. Immutable once loaded:
/// every lane uses the same one, with a workspace of its own.
public final class AutoencoderKL: Sendable {
    public let configuration: AutoencoderKLConfiguration
    /// The kernels that its arithmetic runs on.
    public let kernels: KernelSet
    let encoder: AutoencoderEncoder
    let decoder: AutoencoderDecoder

    /// - Parameters:
    ///   - precision: of the weights and the arithmetic of the convolutions
    ///   - headersOnly: makes a network of `Placeholder`s, to see whether the weights fit
    /// - Throws: `ModelError`, `SafetensorsError`, `KernelError`.
    package init(
        folder: NetworkFolder, precision: Precision = .float32, kernels chosen: KernelSet? = nil,
        headersOnly: Bool = false
    ) throws {
        let kernels = try chosen ?? KernelSet.chosen()
        let configuration = try AutoencoderKLConfiguration(file: folder.configuration)
        let weights = WeightPath(try ModelWeights(folder, headersOnly: headersOnly))
        let build = BlockBuilder(kernels: kernels, precision: precision, groups: configuration.normNumGroups, eps: 1e-6)
        encoder = try AutoencoderEncoder(weights, configuration, build)
        decoder = try AutoencoderDecoder(weights, configuration, build)
        self.configuration = configuration
        self.kernels = kernels
    }

    // MARK: Encoding

    /// The distribution of an image's latents.
    /// - Parameters:
    ///   - image: height x width x `inChannels` in [-1, 1], height and width multiples of `configuration.factor`
    ///   - statistics: of the canvas, for the encoder's first norms; the others are normalised by the image's own
    /// - Returns: height / factor x width / factor x 2 `latentChannels`: the mean, then the logarithm of the variance
    ///   as the network gives it, which whoever samples clamps to [-30, 20]
    /// - Throws: `ModelError`.
    public func encode(_ image: Activation, statistics: CanvasStatistics? = nil, workspace: Workspace) throws
        -> Activation
    {
        try checkImage(image)
        let pass = try pass(statistics, count: configuration.encoderNorms)
        return try encoder.trunk(
            encoder.detail(image, norms: pass, workspace: workspace), norms: pass, workspace: workspace)
    }

    /// The part of `encode` above the latents' resolution, which can be done in tiles: `encode(features:)` does the
    /// rest.
    /// - Parameters: as `encode`
    /// - Returns: height / factor x width / factor x `encoderFeatureChannels`
    /// - Throws: `ModelError`.
    public func encoderFeatures(_ image: Activation, statistics: CanvasStatistics? = nil, workspace: Workspace) throws
        -> Activation
    {
        try checkImage(image)
        return try encoder.detail(
            image, norms: try pass(statistics, count: configuration.encoderNorms), workspace: workspace)
    }

    /// The rest of `encode`, from the features of the whole canvas.
    /// - Throws: `ModelError`.
    public func encode(features: Activation, workspace: Workspace) throws -> Activation {
        try check(features, channels: configuration.encoderFeatureChannels)
        return try encoder.trunk(features, norms: nil, workspace: workspace)
    }

    /// The sums that a tile adds to the statistics of an image's encoding.
    /// - Parameters:
    ///   - cell: the tile's own part of the image, in multiples of `configuration.factor`; the cells of all tiles cover
    ///     the canvas once
    ///   - given: what the first norms are normalised by; the others by the tile's own
    ///   - norms: those whose statistics are wanted; no more layers run than that takes
    /// - Throws: `ModelError`.
    public func encoderStatistics(
        _ image: Activation, cell: Rect, given: CanvasStatistics? = nil, norms: Range<Int>, workspace: Workspace
    ) throws -> CanvasStatistics {
        try checkImage(image)
        return try collect(
            image, cell, given, norms, among: 0..<configuration.encoderNorms, multiple: configuration.factor
        ) { pass in
            _ = try encoder.trunk(
                encoder.detail(image, norms: pass, workspace: workspace), norms: pass, workspace: workspace)
        }
    }

    // MARK: Decoding

    /// The image of a latent.
    /// - Parameters:
    ///   - latent: height x width x `latentChannels`, divided by the scaling factor
    ///   - statistics: of the canvas, for the decoder's first norms; the others are normalised by the latent's own
    /// - Returns: height * factor x width * factor x `outChannels`, about [-1, 1]
    /// - Throws: `ModelError`.
    public func decode(_ latent: Activation, statistics: CanvasStatistics? = nil, workspace: Workspace) throws
        -> Activation
    {
        try check(latent, channels: configuration.latentChannels)
        let pass = try pass(statistics, count: configuration.decoderNorms)
        return try decoder.detail(
            decoder.trunk(latent, norms: pass, workspace: workspace), norms: pass, workspace: workspace)
    }

    /// The part of `decode` at the latents' resolution, an eighth of its operations: on the whole canvas, so that its
    /// attention sees everything; `decode(features:)` does the rest, which can be done in tiles.
    /// - Parameter latent: as `decode`
    /// - Returns: height x width x `decoderFeatureChannels`
    /// - Throws: `ModelError`.
    public func decoderFeatures(_ latent: Activation, workspace: Workspace) throws -> Activation {
        try check(latent, channels: configuration.latentChannels)
        return try decoder.trunk(latent, norms: nil, workspace: workspace)
    }

    /// The rest of `decode`.
    /// - Parameter statistics: of the canvas, for the first norms from `decoderTrunkNorms` on
    /// - Throws: `ModelError`.
    public func decode(features: Activation, statistics: CanvasStatistics? = nil, workspace: Workspace) throws
        -> Activation
    {
        try check(features, channels: configuration.decoderFeatureChannels)
        let pass = try pass(statistics, count: configuration.decoderNorms, start: configuration.decoderTrunkNorms)
        return try decoder.detail(features, norms: pass, workspace: workspace)
    }

    /// The sums that a tile adds to the statistics of a latent's decoding.
    /// - Parameters:
    ///   - cell: the tile's own part of the latent; the cells of all tiles cover the canvas once
    ///   - given: what the first norms are normalised by; the others by the tile's own
    ///   - norms: those whose statistics are wanted; no more layers run than that takes
    /// - Throws: `ModelError`.
    public func decoderStatistics(
        _ latent: Activation, cell: Rect, given: CanvasStatistics? = nil, norms: Range<Int>, workspace: Workspace
    ) throws -> CanvasStatistics {
        try check(latent, channels: configuration.latentChannels)
        return try collect(latent, cell, given, norms, among: 0..<configuration.decoderNorms, multiple: 1) { pass in
            _ = try decoder.detail(
                decoder.trunk(latent, norms: pass, workspace: workspace), norms: pass, workspace: workspace)
        }
    }

    /// The same for features in place of the latent: for norms from `decoderTrunkNorms` on.
    public func decoderStatistics(
        features: Activation, cell: Rect, given: CanvasStatistics? = nil, norms: Range<Int>, workspace: Workspace
    ) throws -> CanvasStatistics {
        try check(features, channels: configuration.decoderFeatureChannels)
        return try collect(
            features, cell, given, norms, among: configuration.decoderTrunkNorms..<configuration.decoderNorms,
            multiple: 1
        ) { pass in
            _ = try decoder.detail(features, norms: pass, workspace: workspace)
        }
    }

    // MARK: -

    /// - Parameter start: the first norm of the call
    private func pass(_ statistics: CanvasStatistics?, count: Int, start: Int = 0) throws -> NormPass? {
        guard let statistics else { return nil }
        try check(statistics, start..<count)
        return NormPass(given: statistics, start: start)
    }

    private func collect(
        _ input: Activation, _ cell: Rect, _ given: CanvasStatistics?, _ norms: Range<Int>, among all: Range<Int>,
        multiple: Int,
        _ run: (NormPass) throws -> Void
    ) throws -> CanvasStatistics {
        if let given { try check(given, all) }
        guard !norms.isEmpty, norms.lowerBound >= all.lowerBound, norms.upperBound <= all.upperBound else {
            throw ModelError.wrongStatistics("norms \(norms) are not among \(all)")
        }
        try check(cell, of: input, multiple: multiple)
        let pass = NormPass(given: given, start: all.lowerBound, wanted: (norms, cell, input.height, input.width))
        do { try run(pass) } catch is NormPass.Complete {}
        return try CanvasStatistics(groups: configuration.normNumGroups, norms: norms, values: pass.values)
    }

    private func check(_ statistics: CanvasStatistics, _ norms: Range<Int>) throws {
        guard statistics.groups == configuration.normNumGroups, statistics.norms.lowerBound <= norms.lowerBound,
            statistics.norms.upperBound <= norms.upperBound
        else {
            throw ModelError.wrongStatistics(
                """
                norms \(statistics.norms) of \(statistics.groups) groups are not the first of norms \(norms) of \
                \(configuration.normNumGroups) groups
                """
            )
        }
    }

    func check(_ cell: Rect, of input: Activation, multiple: Int) throws {
        guard cell.area > 0, Rect(y: 0, x: 0, height: input.height, width: input.width).contains(cell),
            [cell.y, cell.x, cell.height, cell.width].allSatisfy({ $0 % multiple == 0 })
        else {
            throw ModelError.wrongStatistics(
                """
                the cell at \(cell.x),\(cell.y) of \(cell.width)x\(cell.height) is not within \
                \(input.width)x\(input.height) in multiples of \(multiple)
                """
            )
        }
    }

    func checkImage(_ image: Activation) throws {
        let factor = configuration.factor
        guard image.channels == configuration.inChannels, image.count > 0, image.height % factor == 0,
            image.width % factor == 0
        else {
            throw ModelError.wrongShape(
                what: "an image", shape: [image.height, image.width, image.channels],
                expected: "a multiple of \(factor) high and wide with \(configuration.inChannels) channels")
        }
    }

    func check(_ latent: Activation, channels: Int) throws {
        guard latent.channels == channels, latent.count > 0 else {
            throw ModelError.wrongShape(
                what: "a latent", shape: [latent.height, latent.width, latent.channels],
                expected: "not empty, with \(channels) channels")
        }
    }
}

/// Two residual blocks with attention between them.
struct AutoencoderMiddle {
    var first, second: ResnetBlock
    var attention: AttentionBlock?

    init(_ weights: WeightPath, channels: Int, attention: Bool, _ build: BlockBuilder) throws {
        first = try build.resnet(weights / "resnets" / 0, inputs: (channels, 0), outputs: channels)
        self.attention =
            attention
            ? try build.attention(
                weights / "attentions" / 0, channels: channels, headWidth: channels, groups: build.groups) : nil
        second = try build.resnet(weights / "resnets" / 1, inputs: (channels, 0), outputs: channels)
    }

    func callAsFunction(_ x: consuming Activation, norms: NormPass?, workspace: Workspace) throws -> Activation {
        x = try first(x, norms: norms, workspace: workspace)
        if let attention { x = try attention(x, norms: norms, workspace: workspace) }
        return try second(x, norms: norms, workspace: workspace)
    }
}

/// The layers beyond the latents' resolution, of an encoder or a decoder: most of the work, and none of it reaches far,
/// so that it can be done in tiles.
struct AutoencoderDetail {
    typealias Block = (resnet: ResnetBlock, resampling: Convolution?)

    /// Before the first norm: into the encoder, or out of the latents' resolution.
    var first: Convolution?
    /// With the change of resolution that follows some.
    var blocks: [Block]
    /// Out of the decoder.
    var last: (norm: GroupNorm, convolution: Convolution)?

    init(
        first: Convolution?, levels: some Sequence<(resnets: [ResnetBlock], resampling: Convolution?)>,
        last: (norm: GroupNorm, convolution: Convolution)? = nil
    ) {
        (self.first, self.last) = (first, last)
        blocks = levels.flatMap { level in
            level.resnets.indices.map { (level.resnets[$0], $0 == level.resnets.count - 1 ? level.resampling : nil) }
        }
    }

    func callAsFunction(_ input: Activation, norms: NormPass?, workspace: Workspace) throws -> Activation {
        var x = first?(input, workspace: workspace) ?? input
        for (resnet, resampling) in blocks {
            x = try resnet(x, norms: norms, workspace: workspace)
            x = resampling?(x, workspace: workspace) ?? x
        }
        guard let (norm, convolution) = last else { return x }
        let scaleShift =
            try norms?.scaleShift(norm, x, workspace: workspace) ?? norm.scaleShift(x, workspace: workspace)
        return convolution(x, normalization: scaleShift, moments: false, workspace: workspace)
    }
}

struct AutoencoderEncoder {
    /// To the input of the last level.
    var detail: AutoencoderDetail
    /// The last level.
    var deepest: [ResnetBlock]
    var middle: AutoencoderMiddle
    var normOut: GroupNorm
    var convOut: Convolution
    var quant: Linear?

    init(_ weights: WeightPath, _ configuration: AutoencoderKLConfiguration, _ build: BlockBuilder) throws {
        let place = weights / "encoder", widths = configuration.blockOutChannels, last = widths.count - 1
        let levels = try widths.indices.map { level in
            let block = place / "down_blocks" / level
            return (
                resnets: try (0..<configuration.layersPerBlock).map { layer in
                    try build.resnet(
                        block / "resnets" / layer, inputs: (layer > 0 ? widths[level] : widths[max(level - 1, 0)], 0),
                        outputs: widths[level])
                },
                resampling: level < last
                    ? try build.convolution(
                        block / "downsamplers" / 0 / "conv", inputs: widths[level], outputs: widths[level], stride: 2,
                        padding: 0) : nil
            )
        }
        detail = AutoencoderDetail(
            first: try build.convolution(place / "conv_in", inputs: configuration.inChannels, outputs: widths[0]),
            levels: levels.dropLast())
        deepest = levels[last].resnets
        middle = try AutoencoderMiddle(
            place / "mid_block", channels: widths[last], attention: configuration.midAttention, build)
        normOut = try build.norm(place / "conv_norm_out", channels: widths[last])
        let moments = 2 * configuration.latentChannels
        convOut = try build.convolution(place / "conv_out", inputs: widths[last], outputs: moments)
        quant =
            configuration.quantConv ? try build.linear(weights / "quant_conv", inputs: moments, outputs: moments) : nil
    }

    /// The last level and all that follows, at the latents' resolution.
    func trunk(_ features: Activation, norms: NormPass?, workspace: Workspace) throws -> Activation {
        var x = features
        for resnet in deepest { x = try resnet(x, norms: norms, workspace: workspace) }
        x = try middle(x, norms: norms, workspace: workspace)
        let norm =
            try norms?.scaleShift(normOut, x, workspace: workspace) ?? normOut.scaleShift(x, workspace: workspace)
        x = convOut(x, normalization: norm, moments: false, workspace: workspace)
        return quant?(x, workspace: workspace) ?? x
    }
}

struct AutoencoderDecoder {
    var postQuant: Linear?
    var convIn: Convolution
    var middle: AutoencoderMiddle
    /// The first level.
    var deepest: [ResnetBlock]
    /// From the output of the first level on.
    var detail: AutoencoderDetail

    init(_ weights: WeightPath, _ configuration: AutoencoderKLConfiguration, _ build: BlockBuilder) throws {
        let place = weights / "decoder", widths = configuration.blockOutChannels, last = widths.count - 1
        let latent = configuration.latentChannels
        postQuant =
            configuration.postQuantConv
            ? try build.linear(weights / "post_quant_conv", inputs: latent, outputs: latent) : nil
        convIn = try build.convolution(place / "conv_in", inputs: latent, outputs: widths[last])
        middle = try AutoencoderMiddle(
            place / "mid_block", channels: widths[last], attention: configuration.midAttention, build)
        // The coarsest first.
        let levels = try widths.indices.reversed().map { level in
            let block = place / "up_blocks" / (last - level)
            return (
                resnets: try (0...configuration.layersPerBlock).map { layer in
                    try build.resnet(
                        block / "resnets" / layer,
                        inputs: (layer > 0 ? widths[level] : widths[min(level + 1, last)], 0), outputs: widths[level])
                },
                resampling: level > 0
                    ? try build.convolution(
                        block / "upsamplers" / 0 / "conv", inputs: widths[level], outputs: widths[level],
                        upsampling: true) : nil
            )
        }
        deepest = levels[0].resnets
        detail = AutoencoderDetail(
            first: levels[0].resampling, levels: levels.dropFirst(),
            last: (
                try build.norm(place / "conv_norm_out", channels: widths[0]),
                try build.convolution(place / "conv_out", inputs: widths[0], outputs: configuration.outChannels)
            ))
    }

    /// All that is at the latents' resolution, which ends with the first level.
    func trunk(_ latent: Activation, norms: NormPass?, workspace: Workspace) throws -> Activation {
        var x = convIn(postQuant?(latent, workspace: workspace) ?? latent, workspace: workspace)
        x = try middle(x, norms: norms, workspace: workspace)
        for resnet in deepest { x = try resnet(x, norms: norms, workspace: workspace) }
        return x
    }
}
