import ArgumentParser
import Engine
import Foundation
import Protocol

/// What `upscale` and `plan` have in common: the picture, the model, the sampler, the tiling.
package struct UpscaleOptions: ParsableArguments {
    package init() {}

    /// The plan that these arguments make, as they would be typed.
    package static func plan(_ arguments: [String], folder: ModelFolder, inputHeight: Int, inputWidth: Int) throws
        -> RenderPlan
    {
        try parse(["input.png"] + arguments).plan(folder, inputHeight: inputHeight, inputWidth: inputWidth)
    }

    enum OverlapName: String, ExpressibleByArgument, CaseIterable { case implicit, reference, explicit, none }
    enum OffsetName: String, ExpressibleByArgument, CaseIterable { case random, fixed, none }
    enum SamplerName: String, ExpressibleByArgument, CaseIterable { case ddim, ddpm }
    enum WeightsName: String, ExpressibleByArgument, CaseIterable { case mean, gaussian }

    @Argument(help: "The picture to enlarge: a PNG of any kind.")
    var input: String

    @Option(help: "How much larger the output is, in each direction. Default: 4, or what an upscale pipeline has.")
    var scale: Double?

    @Option(help: "A model folder in the diffusers layout. Without it: the model that comes with tilefarm.")
    var model: String?

    @Option(
        help:
            "Steps of the sampler. Default: \(RenderPlan.defaultSteps), 1 being the most faithful; \(LatentPlan.defaultSteps) for latent models."
    )
    var steps: Int?

    @Option(help: "The sampler.")
    var sampler = SamplerName.ddim

    @Option(help: "The share of fresh noise in each DDIM step, 0 to 1.")
    var eta: Float = 0

    @Option(help: "What the picture shows (latent models).")
    var prompt: String?

    @Option(help: "What it shall not show (latent models).")
    var negativePrompt: String?

    @Option(
        help:
            "How strongly the prompt guides (latent models); 1 for not at all. Default: 9 for upscale pipelines, 7.5 for image to image."
    )
    var guidanceScale: Float?

    @Option(
        help:
            "Level of the noise on the low-resolution picture (upscale pipelines): more for a picture with more flaws. Default: \(LatentPlan.defaultNoiseLevel)."
    )
    var noiseLevel: Int?

    @Option(
        help:
            "How much of the picture is made anew (image to image), above 0 to 1. Default: \(LatentPlan.defaultStrength)."
    )
    var strength: Double?

    @Option(
        help:
            "Weights and products (latent models): float32, float16 (halves the memory), bfloat16. Default: as the folder has its weights."
    )
    var precision: Precision?

    @Option(
        help:
            "Side of a tile's window in pixels (latents for latent models), a multiple of the model's alignment. Default: \(RenderPlan.defaultTile), or \(LatentPlan.defaultTile) latents."
    )
    var tile: Int?

    @Option(
        help:
            "Pixels or latents of context around each tile that are read and thrown away. Default: \(RenderPlan.defaultHalo), or \(LatentPlan.defaultHalo) latents; with --overlap implicit only."
    )
    var halo: Int?

    @Option(
        help: "Side of the autoencoder's windows in latents (latent models): larger ones take more memory. Default: 64."
    )
    var vaeTile: Int?

    @Option(help: "How the cut lines move from step to step.")
    var offset = OffsetName.random

    @Option(help: "Bound of the offsets in pixels or latents. Default: as far as costs no more tiles.")
    var offsetRange: Int?

    @Option(help: "How tiles meet: implicit (FSTD), reference (FSTD as published), explicit (blended), none.")
    var overlap = OverlapName.implicit

    @Option(help: "Pixels or latents that neighbouring windows share with --overlap explicit. Default: half a tile.")
    var overlapWidth: Int?

    @Option(help: "How windows are blended with --overlap explicit.")
    var weights = WeightsName.gaussian

    @Option(help: "Seed of all noise and offsets: the same seed gives the same bytes.")
    var seed: UInt64 = 0

    package func validate() throws {
        if let scale {
            guard scale.isFinite, (1...64).contains(scale) else {
                throw ValidationError(CommandError.scale("\(scale)").description)
            }
        }
        if let guidanceScale, !(guidanceScale.isFinite && (0...100).contains(guidanceScale)) {
            throw ValidationError("--guidance-scale \(guidanceScale): must be from 0 to 100")
        }
        if let strength, !(strength > 0 && strength <= 1) {
            throw ValidationError("--strength \(strength): must be above 0, and 1 at most")
        }
        if let noiseLevel, noiseLevel < 0 { throw ValidationError("--noise-level \(noiseLevel): must not be negative") }
        for (name, text) in [("--prompt", prompt), ("--negative-prompt", negativePrompt)] {
            if let text, text.utf8.count > WireLimits.promptBytes {
                throw ValidationError(
                    "\(name): \(text.utf8.count) bytes are too long, the limit is \(WireLimits.promptBytes)")
            }
        }
        if let steps {
            guard (1...1000).contains(steps) else { throw ValidationError("--steps \(steps): must be from 1 to 1000") }
        }
        guard eta.isFinite, (0...1).contains(eta) else { throw ValidationError("--eta \(eta): must be from 0 to 1") }
        if sampler == .ddpm, eta != 0 { throw ValidationError("--eta belongs to --sampler ddim") }
        if let tile, !(8...4096).contains(tile) { throw ValidationError("--tile \(tile): must be from 8 to 4096") }
        if let vaeTile, !(24...1024).contains(vaeTile) {
            throw ValidationError("--vae-tile \(vaeTile): must be from 24 to 1024")
        }
        if guidanceScale == 1, negativePrompt != nil {
            throw ValidationError("--negative-prompt has no effect with --guidance-scale 1: leave one out")
        }
        if let halo, !(0...2048).contains(halo) { throw ValidationError("--halo \(halo): must be from 0 to 2048") }
        if halo != nil, overlap != .implicit { throw ValidationError("--halo belongs to --overlap implicit") }
        if overlapWidth != nil, overlap != .explicit {
            throw ValidationError("--overlap-width belongs to --overlap explicit")
        }
        if let overlapWidth, overlapWidth < 0 {
            throw ValidationError("--overlap-width \(overlapWidth): must not be negative")
        }
        if let offsetRange, offsetRange < 1 {
            throw ValidationError("--offset-range \(offsetRange): must be at least 1")
        }
    }

    /// - Throws: `TilingError`, `CommandError` and others, each a line for the user.
    func plan(_ folder: ModelFolder, inputHeight: Int, inputWidth: Int) throws -> RenderPlan {
        let kind: SamplerKind = sampler == .ddpm ? .ddpm : .ddim(eta: eta)
        let offset: Tiling.Offset = self.offset == .random ? .random : self.offset == .fixed ? .fixed : .none
        if let pipeline = folder.pipeline {
            let precision = try precision ?? folder.naturalPrecision()
            let latent = try latentPlan(pipeline, folder: folder)
            let tile = tile ?? RenderPlan.roundUp(LatentPlan.defaultTile, latent.alignment)
            return try RenderPlan(
                latent: latent, pipeline: pipeline, inputHeight: inputHeight, inputWidth: inputWidth,
                scale: latent.method == .imageToImage ? scale ?? 4 : Double(latent.factor),
                steps: steps ?? LatentPlan.defaultSteps, sampler: kind,
                strength: strength ?? LatentPlan.defaultStrength, tile: tile,
                overlap: overlap(tile: tile, alignment: latent.alignment, halo: LatentPlan.defaultHalo), offset: offset,
                offsetRange: offsetRange,
                seed: seed, precision: precision)
        }
        for (name, isGiven) in [
            ("--prompt", prompt != nil), ("--negative-prompt", negativePrompt != nil),
            ("--guidance-scale", guidanceScale != nil),
            ("--noise-level", noiseLevel != nil), ("--strength", strength != nil),
            ("--precision", precision != nil && precision != .float32), ("--vae-tile", vaeTile != nil),
        ] where isGiven { throw CommandError.optionOfOtherModels(name, model: folder.architecture.rawValue) }
        let scale = scale ?? 4
        let alignment = try RenderPlan.alignment(of: folder, scale: scale)
        let tile = tile ?? RenderPlan.roundUp(RenderPlan.defaultTile, alignment)
        return try RenderPlan(
            folder: folder, inputHeight: inputHeight, inputWidth: inputWidth, scale: scale,
            steps: steps ?? RenderPlan.defaultSteps,
            sampler: kind, tile: tile, overlap: overlap(tile: tile, alignment: alignment, halo: RenderPlan.defaultHalo),
            offset: offset, offsetRange: offsetRange, seed: seed)
    }

    private func overlap(tile: Int, alignment: Int, halo defaultHalo: Int) -> Tiling.Overlap {
        switch overlap {
        case .implicit: .implicit(halo: halo ?? RenderPlan.roundUp(defaultHalo, alignment))
        case .reference: .reference
        case .explicit:
            .explicit(
                width: overlapWidth ?? tile / 2 / alignment * alignment, weights: weights == .mean ? .mean : .gaussian)
        case .none: .none
        }
    }

    private func latentPlan(_ pipeline: PipelineFolder, folder: ModelFolder) throws -> LatentPlan {
        let factor = pipeline.vaeConfiguration.factor
        let method: LatentPlan.Method
        switch pipeline.kind {
        case .upscale:
            let level = noiseLevel ?? min(LatentPlan.defaultNoiseLevel, pipeline.maximumNoiseLevel)
            guard level <= pipeline.maximumNoiseLevel else {
                throw CommandError.noiseLevel(level, most: pipeline.maximumNoiseLevel)
            }
            if let scale, scale != Double(factor) { throw CommandError.scaleOfModel("\(scale)", scale: factor) }
            if strength != nil {
                throw CommandError.optionOfOtherModels("--strength", model: folder.architecture.rawValue)
            }
            method = .upscale(noiseLevel: level)
        case .imageToImage:
            if noiseLevel != nil {
                throw CommandError.optionOfOtherModels("--noise-level", model: folder.architecture.rawValue)
            }
            method = .imageToImage
        }
        var tiling = AutoencoderTiling()
        if let vaeTile { tiling.tile = vaeTile }
        return LatentPlan(
            method: method, prompt: prompt ?? "", negativePrompt: negativePrompt ?? "",
            guidanceScale: guidanceScale ?? LatentPlan.defaultGuidanceScale(method), pipeline: pipeline,
            autoencoderTiling: tiling)
    }
}

extension Precision: ExpressibleByArgument {}
