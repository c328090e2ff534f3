/// A tile on its way from the decoder's features to its pixels, norm by norm: what `AutoencoderKL.decoderStatistics(features:...)` and
/// `decode(features:)` compute, with the layers that have run kept. Asked for one norm after the other, they would run half the decoder each time.
///
/// Belongs to one lane at a time. It holds two activations of its last layer: for a window of 64 latents 0.4 GiB at the most with Stable Diffusion.
public final class DecoderTile {
    /// What has been normalised so far; nil at the start. Another tile's or another job's statistics give another picture, so whoever keeps tiles
    /// goes on only with statistics that begin with these.
    public private(set) var statistics: CanvasStatistics?
    private let network: AutoencoderKL
    private let cell: Rect
    private let height, width: Int
    private let layers: [(resnet: ResnetBlock, upsample: Convolution?)]
    /// The input of the next norm; and that of the residual block, where the next norm is its second.
    private var x: Activation
    private var blockInput: Activation?

    /// The norm whose statistics come next; `decoderNorms` when only the picture is left.
    public var norm: Int { statistics?.norms.upperBound ?? network.configuration.decoderTrunkNorms }

    /// Bytes of what is held between calls.
    public var byteCount: Int { (x.count + (blockInput?.count ?? 0)) * 4 }

    /// - Parameters:
    ///   - features: of the window: height x width x `decoderFeatureChannels`
    ///   - cell: the tile's own part of the window
    /// - Throws: `ModelError`.
    public init(_ network: AutoencoderKL, features: Activation, cell: Rect, workspace: Workspace) throws {
        guard features.channels == network.configuration.decoderFeatureChannels, cell.area > 0,
            Rect(y: 0, x: 0, height: features.height, width: features.width).contains(cell)
        else {
            throw ModelError.wrongShape(
                what: "features", shape: [features.height, features.width, features.channels],
                expected: "\(network.configuration.decoderFeatureChannels) channels, around a cell of \(cell.width)x\(cell.height) at \(cell.x),\(cell.y)")
        }
        (self.network, self.cell, height, width) = (network, cell, features.height, features.width)
        layers = zip(network.decoder.levels, network.decoder.levels.dropFirst()).flatMap { level, next in
            next.resnets.enumerated().map { ($1, $0 == 0 ? level.upsample : nil) }
        }
        x = features
        enlarge(workspace)
    }

    /// The sums over the cell of the next norm's input.
    /// - Throws: `ModelError.wrongStatistics` if there is no norm left, or the network has overflowed.
    public func sums() throws -> CanvasStatistics {
        guard let next else { throw ModelError.wrongStatistics("the decoder has no norm \(norm)") }
        let pass = NormPass(given: nil, start: norm, wanted: (norm..<norm + 1, cell, height, width))
        do { _ = try pass.scaleShift(next, x, workspace: Workspace()) } catch is NormPass.Complete {}
        return try CanvasStatistics(groups: next.groups, norms: norm..<norm + 1, values: pass.values)
    }

    /// Goes on with the statistics of the canvas for the next norm, and any number that follow.
    /// - Throws: `ModelError.wrongStatistics` if they are of other norms.
    public func advance(by given: CanvasStatistics, workspace: Workspace) throws {
        for index in given.norms {
            guard index == norm, let next, given.groups == next.groups, let sums = given.sums(of: index) else {
                throw ModelError.wrongStatistics("those of norm \(index) of \(given.groups) groups are not those of norm \(norm)")
            }
            let one = try CanvasStatistics(groups: given.groups, norms: index..<index + 1, values: sums.flatMap { [$0.sum, $0.squares, $0.count] })
            let scaleShift = next.scaleShift(by: sums, workspace: workspace)
            let layer = (index - network.configuration.decoderTrunkNorms) / 2
            if layer == layers.count {
                x = network.decoder.convOut(x, normalization: scaleShift, moments: false, workspace: workspace)
            } else if let input = blockInput {
                x = layers[layer].resnet.finish(x, scaleShift, input, workspace: workspace)
                blockInput = nil
            } else {
                blockInput = x
                x = layers[layer].resnet.conv1(x, normalization: scaleShift, workspace: workspace)
            }
            if statistics == nil { statistics = one } else { try statistics?.append(one) }
            enlarge(workspace)
        }
    }

    /// The window's picture: height * factor x width * factor x `outChannels`, about [-1, 1].
    /// - Throws: `ModelError.wrongStatistics` if norms are left.
    public func image() throws -> Activation {
        guard norm == network.configuration.decoderNorms else { throw ModelError.wrongStatistics("those of norm \(norm) are missing") }
        return x
    }

    private var next: GroupNorm? {
        let index = norm - network.configuration.decoderTrunkNorms, layer = index / 2
        if layer < layers.count { return index % 2 == 0 ? layers[layer].resnet.norm1 : layers[layer].resnet.norm2 }
        return index == 2 * layers.count ? network.decoder.normOut : nil
    }

    /// Where a level begins.
    private func enlarge(_ workspace: Workspace) {
        let index = norm - network.configuration.decoderTrunkNorms
        if index % 2 == 0, index / 2 < layers.count, let upsample = layers[index / 2].upsample { x = upsample(x, workspace: workspace) }
    }
}
