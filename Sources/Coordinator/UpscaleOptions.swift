import ArgumentParser
import Engine
import Foundation

/// What `upscale` and `plan` have in common: the picture, the model, the sampler, the tiling.
struct UpscaleOptions: ParsableArguments {
    enum OverlapName: String, ExpressibleByArgument, CaseIterable { case implicit, reference, explicit, none }
    enum OffsetName: String, ExpressibleByArgument, CaseIterable { case random, fixed, none }
    enum SamplerName: String, ExpressibleByArgument, CaseIterable { case ddim, ddpm }
    enum WeightsName: String, ExpressibleByArgument, CaseIterable { case mean, gaussian }

    @Argument(help: "The picture to enlarge: a PNG of any kind.")
    var input: String

    @Option(help: "How much larger the output is, in each direction.")
    var scale = 4.0

    @Option(help: "A model folder in the diffusers layout. Without it: the model that comes with tilefarm.")
    var model: String?

    @Option(help: "Steps of the sampler. 1 is the most faithful, more are sharper.")
    var steps = RenderPlan.defaultSteps

    @Option(help: "The sampler.")
    var sampler = SamplerName.ddim

    @Option(help: "The share of fresh noise in each DDIM step, 0 to 1.")
    var eta: Float = 0

    @Option(help: "Side of a tile's window in pixels, a multiple of the model's alignment. Default: \(RenderPlan.defaultTile).")
    var tile: Int?

    @Option(help: "Pixels of context around each tile that are read and thrown away. Default: \(RenderPlan.defaultHalo); with --overlap implicit only.")
    var halo: Int?

    @Option(help: "How the cut lines move from step to step.")
    var offset = OffsetName.random

    @Option(help: "Bound of the offsets in pixels. Default: as far as costs no more tiles.")
    var offsetRange: Int?

    @Option(help: "How tiles meet: implicit (FSTD), reference (FSTD as published), explicit (blended), none.")
    var overlap = OverlapName.implicit

    @Option(help: "Pixels that neighbouring windows share with --overlap explicit. Default: half a tile.")
    var overlapWidth: Int?

    @Option(help: "How windows are blended with --overlap explicit.")
    var weights = WeightsName.gaussian

    @Option(help: "Seed of all noise and offsets: the same seed gives the same bytes.")
    var seed: UInt64 = 0

    func validate() throws {
        guard scale.isFinite, (1...64).contains(scale) else { throw ValidationError(CommandError.scale("\(scale)").description) }
        guard (1...1000).contains(steps) else { throw ValidationError("--steps \(steps): must be from 1 to 1000") }
        guard eta.isFinite, (0...1).contains(eta) else { throw ValidationError("--eta \(eta): must be from 0 to 1") }
        if sampler == .ddpm, eta != 0 { throw ValidationError("--eta belongs to --sampler ddim") }
        if let tile, !(8...4096).contains(tile) { throw ValidationError("--tile \(tile): must be from 8 to 4096") }
        if let halo, !(0...2048).contains(halo) { throw ValidationError("--halo \(halo): must be from 0 to 2048") }
        if halo != nil, overlap != .implicit { throw ValidationError("--halo belongs to --overlap implicit") }
        if overlapWidth != nil, overlap != .explicit { throw ValidationError("--overlap-width belongs to --overlap explicit") }
        if let overlapWidth, overlapWidth < 0 { throw ValidationError("--overlap-width \(overlapWidth): must not be negative") }
        if let offsetRange, offsetRange < 1 { throw ValidationError("--offset-range \(offsetRange): must be at least 1") }
    }

    /// - Throws: `TilingError`, `CommandError` and others, each a line for the user.
    func plan(_ folder: ModelFolder, inputHeight: Int, inputWidth: Int) throws -> RenderPlan {
        let alignment = try RenderPlan.alignment(of: folder, scale: scale)
        let tile = tile ?? RenderPlan.roundUp(RenderPlan.defaultTile, alignment)
        let overlap: Tiling.Overlap =
            switch self.overlap {
            case .implicit: .implicit(halo: halo ?? RenderPlan.roundUp(RenderPlan.defaultHalo, alignment))
            case .reference: .reference
            case .explicit:
                .explicit(
                    width: overlapWidth ?? tile / 2 / alignment * alignment,
                    weights: weights == .mean ? .mean : .gaussian)
            case .none: .none
            }
        return try RenderPlan(
            folder: folder, inputHeight: inputHeight, inputWidth: inputWidth, scale: scale, steps: steps,
            sampler: sampler == .ddpm ? .ddpm : .ddim(eta: eta), tile: tile, overlap: overlap,
            offset: offset == .random ? .random : offset == .fixed ? .fixed : .none, offsetRange: offsetRange, seed: seed)
    }
}
