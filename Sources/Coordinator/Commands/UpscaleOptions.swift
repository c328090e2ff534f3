import ArgumentParser
import Engine
import Foundation
import Protocol

/// Options that `upscale` and `plan` have in common: the picture, the model, the sampler, the tiling.
package struct UpscaleOptions: ParsableArguments {
    package init() {}

    /// The request that these arguments make, as they would be typed after `upscale`.
    package static func request(_ arguments: [String]) throws -> RenderRequest {
        try parse(["input.png"] + arguments).request(nil)
    }

    @Argument(help: "The picture to enlarge: a PNG of any kind.")
    var input: String

    @Option(help: "How much larger the output is, in each direction. Default: 4, or what an upscale pipeline has.")
    var scale: Double?

    @Option(help: "A model folder in the diffusers layout. Without it: the model that comes with tilefarm.")
    var model: String?

    @Option(
        help:
            """
            Steps of the sampler. Default: \(SuperResolution.defaultSteps), 1 being the most faithful; \
            \(LatentCanvas.defaultSteps) for latent models.
            """
    )
    var steps: Int?

    @Option(help: "The sampler: \(SamplerTable.standard.names.joined(separator: ", ")).")
    var sampler = DDIM.name

    @Option(help: "The share of fresh noise in each DDIM step, 0 to 1.")
    var eta: Float = 0

    @Option(help: "What the picture shows (latent models).")
    var prompt: String?

    @Option(help: "What it shall not show (latent models).")
    var negativePrompt: String?

    @Option(
        help:
            """
            How strongly the prompt guides (latent models); 1 for not at all. Default: 9 for upscale pipelines, 7.5 \
            for image to image.
            """
    )
    var guidanceScale: Float?

    @Option(
        help:
            """
            Level of the noise on the low-resolution picture (upscale pipelines): more for a picture with more flaws. \
            Default: \(LatentUpscale.defaultNoiseLevel).
            """
    )
    var noiseLevel: Int?

    @Option(
        help:
            """
            How much of the picture is made anew (image to image), above 0 to 1. Default: \
            \(ImageToImage.defaultStrength).
            """
    )
    var strength: Double?

    @Option(
        help:
            """
            Weights and products (latent models): float32, float16 (halves the memory), bfloat16. Default: as the \
            folder has its weights.
            """
    )
    var precision: Precision?

    @Option(
        help:
            """
            Side of a tile's window in pixels (latents for latent models), a multiple of the model's alignment. \
            Default: \(SuperResolution.defaultTile), or \(LatentCanvas.defaultTile) latents.
            """
    )
    var tile: Int?

    @Option(
        help:
            """
            Pixels or latents of context around each tile that are read and thrown away. Default: \
            \(SuperResolution.defaultHalo), or \(LatentCanvas.defaultHalo) latents; with --overlap implicit only.
            """
    )
    var halo: Int?

    @Option(
        help: "Side of the autoencoder's windows in latents (latent models): larger ones take more memory. Default: 64."
    )
    var vaeTile: Int?

    @Option(help: "How the cut lines move from step to step.")
    var offset = RenderRequest.TilingChoice.Offset.random

    @Option(help: "Bound of the offsets in pixels or latents. Default: as far as costs no more tiles.")
    var offsetRange: Int?

    @Option(help: "How tiles meet: implicit (FSTD), reference (FSTD as published), explicit (blended), none.")
    var overlap = RenderRequest.TilingChoice.Overlap.implicit

    @Option(help: "Pixels or latents that neighbouring windows share with --overlap explicit. Default: half a tile.")
    var overlapWidth: Int?

    @Option(help: "How windows are blended with --overlap explicit.")
    var weights = BlendWeights.gaussian

    @Option(help: "Seed of all noise and offsets: the same seed gives the same bytes.")
    var seed: UInt64 = 0

    package func validate() throws {
        if let scale {
            guard scale.isFinite, (1...64).contains(scale) else {
                throw ValidationError("--scale \(scale): must be from 1 to 64")
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
            if let text, text.utf8.count > TaskLimits.promptBytes {
                throw ValidationError(
                    "\(name): \(text.utf8.count) bytes are too long, the limit is \(TaskLimits.promptBytes)")
            }
        }
        if let steps {
            guard (1...1000).contains(steps) else { throw ValidationError("--steps \(steps): must be from 1 to 1000") }
        }
        guard eta.isFinite, (0...1).contains(eta) else { throw ValidationError("--eta \(eta): must be from 0 to 1") }
        guard SamplerTable.standard[sampler] != nil else {
            let names = SamplerTable.standard.names.joined(separator: ", ")
            throw ValidationError("--sampler \(sampler): there is none of this name, choose one of \(names)")
        }
        if sampler == DDPM.name, eta != 0 { throw ValidationError("--eta belongs to --sampler ddim") }
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

    /// The request that was typed, as a value; paths are those of the folder that it was typed in.
    /// - Parameter output: nil where nothing is going to be written
    func request(_ output: OutputOptions?) -> RenderRequest {
        func absolute(_ path: String) -> String { URL(filePath: path).standardizedFileURL.path }
        var request = RenderRequest(
            input: absolute(input),
            output: .init(png: output.map { absolute($0.output) } ?? "", deepZoom: output?.deepzoom.map(absolute)))
        request.model = model.map(absolute)
        request.scale = scale
        request.strength = strength
        request.noiseLevel = noiseLevel
        request.steps = steps
        request.sampler.name = sampler
        request.sampler.options.eta = Double(eta)
        request.guidance.prompt = prompt
        request.guidance.negativePrompt = negativePrompt
        request.guidance.scale = guidanceScale.map { Double($0) }
        request.tiling.overlap = overlap
        request.tiling.offset = offset
        request.tiling.tile = tile
        request.tiling.halo = halo
        request.tiling.offsetRange = offsetRange
        request.tiling.overlapWidth = overlapWidth
        request.tiling.weights = weights
        request.tiling.autoencoderTile = vaeTile
        request.precision = precision
        request.seed = seed
        request.storage = output?.storage ?? .float32
        return request
    }
}

extension RenderRequest.TilingChoice.Overlap: ExpressibleByArgument {}
extension RenderRequest.TilingChoice.Offset: ExpressibleByArgument {}
extension BlendWeights: ExpressibleByArgument {}
extension Precision: ExpressibleByArgument {}
