/// A tile on its way through an autoencoder's detail layers, norm by norm: from the decoder's features to its pixels,
/// or from an image to the encoder's features. It is what `AutoencoderKL.decoderStatistics(features:...)` and
/// `decode(features:)`, or `encoderStatistics` and `encoderFeatures`, compute, with the layers that have run kept:
/// asked for one norm after the other, those would run half of them each time.
///
/// Belongs to one lane at a time. It holds two activations of one layer: for a window of 64 latents 0.4 GiB at the most
/// with Stable Diffusion.
public final class AutoencoderTile {
    /// Statistics of the norms that are done; nil at the start. Another tile's or another job's statistics give another
    /// picture, so whoever keeps tiles goes on only with statistics that begin with these.
    public private(set) var statistics: CanvasStatistics?
    private let layers: AutoencoderDetail
    private let norms: Range<Int>
    private let cell: Rect
    private let height, width: Int
    /// The input of the next norm; and that of the residual block, where the next norm is its second.
    private var x: Activation
    private var blockInput: Activation?

    /// The norm whose statistics come next; `decoderNorms` or `encoderFeatureNorms` when only the result is left.
    public var norm: Int { statistics?.norms.upperBound ?? norms.lowerBound }

    /// Bytes of what is held between calls.
    public var byteCount: Int { (x.count + (blockInput?.count ?? 0)) * 4 }

    /// A tile of the decoder's features.
    /// - Parameters:
    ///   - features: of the window: height x width x `decoderFeatureChannels`
    ///   - cell: the tile's own part of the window
    /// - Throws: `ModelError`.
    public static func decoding(
        _ network: AutoencoderKL, features: Activation, cell: Rect, workspace: Workspace
    ) throws -> AutoencoderTile {
        try network.check(features, channels: network.configuration.decoderFeatureChannels)
        try network.check(cell, of: features, multiple: 1)
        let norms = network.configuration.decoderTrunkNorms..<network.configuration.decoderNorms
        return AutoencoderTile(network.decoder.detail, norms, features, cell, workspace)
    }

    /// A tile of an image to encode.
    /// - Parameters:
    ///   - image: of the window: height x width x `inChannels` in [-1, 1], height and width multiples of
    ///     `configuration.factor`
    ///   - cell: the tile's own part of the window, in pixels, in multiples of `configuration.factor`
    /// - Throws: `ModelError`.
    public static func encoding(_ network: AutoencoderKL, image: Activation, cell: Rect, workspace: Workspace) throws
        -> AutoencoderTile
    {
        try network.checkImage(image)
        try network.check(cell, of: image, multiple: network.configuration.factor)
        return AutoencoderTile(
            network.encoder.detail, 0..<network.configuration.encoderFeatureNorms, image, cell, workspace)
    }

    private init(
        _ layers: AutoencoderDetail, _ norms: Range<Int>, _ input: Activation, _ cell: Rect, _ workspace: Workspace
    ) {
        (self.layers, self.norms, self.cell, height, width) = (layers, norms, cell, input.height, input.width)
        x = layers.first?(input, workspace: workspace) ?? input
    }

    /// The sums over the cell of the next norm's input.
    /// - Throws: `ModelError.wrongStatistics` if there is no norm left, or the network has overflowed.
    public func sums() throws -> CanvasStatistics {
        guard let next else { throw ModelError.wrongStatistics("the tile has no norm \(norm)") }
        let pass = NormPass(given: nil, start: norm, wanted: (norm..<norm + 1, cell, height, width))
        do { _ = try pass.scaleShift(next, x, workspace: Workspace()) } catch is NormPass.Complete {}
        return try CanvasStatistics(groups: next.groups, norms: norm..<norm + 1, values: pass.values)
    }

    /// Goes on with the statistics of the canvas for the next norm, and any number that follow.
    /// - Throws: `ModelError.wrongStatistics` if they are of other norms.
    public func advance(by given: CanvasStatistics, workspace: Workspace) throws {
        for index in given.norms {
            guard index == norm, let next, given.groups == next.groups, let sums = given.sums(of: index) else {
                throw ModelError.wrongStatistics(
                    "those of norm \(index) of \(given.groups) groups are not those of norm \(norm)")
            }
            let one = try CanvasStatistics(
                groups: given.groups, norms: index..<index + 1, values: sums.flatMap { [$0.sum, $0.squares, $0.count] })
            let scaleShift = next.scaleShift(by: sums, workspace: workspace)
            if let block {
                if let input = blockInput {
                    x = block.resnet.finish(x, scaleShift, input, workspace: workspace)
                    blockInput = nil
                    x = block.resampling?(x, workspace: workspace) ?? x
                } else {
                    blockInput = x
                    x = block.resnet.conv1(x, normalization: scaleShift, workspace: workspace)
                }
            } else if let last = layers.last {
                x = last.convolution(x, normalization: scaleShift, moments: false, workspace: workspace)
            }
            if statistics == nil { statistics = one } else { try statistics?.append(one) }
        }
    }

    /// The window's result: the picture, height * factor x width * factor x `outChannels`, about [-1, 1]; or the
    /// encoder's features, height / factor x width / factor x `encoderFeatureChannels`.
    /// - Throws: `ModelError.wrongStatistics` if norms are left.
    public func result() throws -> Activation {
        guard norm == norms.upperBound else { throw ModelError.wrongStatistics("those of norm \(norm) are missing") }
        return x
    }

    /// Takes what the tile holds out of the workspace that it has gone on with so far, whose lane calls this before
    /// another lane goes on with a workspace of its own. For a workspace gives memory again as soon as nobody holds it,
    /// and finds that out without waiting for other lanes: it would write into what the other lane may only just have
    /// read. It allocates anew for what it has lost.
    public func detach(from workspace: Workspace) {
        workspace.forget(x)
        if let blockInput { workspace.forget(blockInput) }
    }

    /// The residual block that the next norm belongs to.
    private var block: AutoencoderDetail.Block? {
        let index = (norm - norms.lowerBound) / 2
        return index < layers.blocks.count ? layers.blocks[index] : nil
    }

    private var next: GroupNorm? {
        if let block { return blockInput == nil ? block.resnet.norm1 : block.resnet.norm2 }
        return norm < norms.upperBound ? layers.last?.norm : nil
    }
}
