import Engine

/// What a render with a latent model has beside the sizes: the text, the autoencoder, and the way in and out of the latents.
package struct LatentPlan: Sendable {
    /// How the picture gets larger.
    package enum Method: Sendable, Hashable {
        /// The model enlarges by the autoencoder's factor and sees the low-resolution pixels, noised to this level (StableDiffusionUpscalePipeline).
        case upscale(noiseLevel: Int)
        /// The enlarged picture is encoded, noised and denoised again.
        case imageToImage
    }

    package var method: Method
    package var prompt: String
    package var negativePrompt: String
    package var guidanceScale: Float
    /// Positions and hidden size of the text encoder.
    package var tokens, textWidth: Int
    /// Of a latent.
    package var channels: Int
    /// Pixels per latent and axis.
    package var factor: Int
    /// Of the denoiser, in latents.
    package var alignment: Int
    /// Sums that the group norms of the encoder, and of the decoder, have.
    package var encoderStatistics, decoderStatistics: Int
    package var autoencoderTiling: AutoencoderTiling
    /// Of the networks, at the plan's windows and precision.
    package var needs: [PipelineFolder.Part: PipelineFolder.Need]
    /// Made by the plan, when the canvas is known.
    package var encoding, decoding: AutoencoderPasses?

    /// What is encoded: the prompt and, where there is guidance, the negative prompt.
    package var prompts: [String] { guidanceScale == 1 ? [prompt] : [prompt, negativePrompt] }
}

extension LatentPlan {
    package static let defaultSteps = 20
    /// In latents, as the halo: the size that Stable Diffusion was trained at, and any-size-diffusion's (arXiv 2308.16582).
    package static let defaultTile = 64
    package static let defaultHalo = 8
    /// As diffusers' pipeline.
    package static let defaultNoiseLevel = 20
    /// An upscaler shall keep the picture: diffusers' 0.8 would make another one.
    package static let defaultStrength = 0.5

    /// As diffusers' pipelines.
    package static func defaultGuidanceScale(_ method: Method) -> Float { method == .imageToImage ? 7.5 : 9 }

    package init(method: Method, prompt: String, negativePrompt: String, guidanceScale: Float, pipeline: PipelineFolder, tile: Int?, precision: Precision) throws {
        let vae = pipeline.vaeConfiguration
        self.method = method
        self.prompt = prompt
        self.negativePrompt = negativePrompt
        self.guidanceScale = guidanceScale
        (tokens, textWidth) = (pipeline.tokens, pipeline.textWidth)
        (channels, factor) = (vae.latentChannels, vae.factor)
        alignment = pipeline.unetConfiguration.alignment
        // Of every norm and group: sum, sum of squares, count.
        encoderStatistics = 3 * vae.normNumGroups * vae.encoderNorms
        decoderStatistics = 3 * vae.normNumGroups * vae.decoderNorms
        autoencoderTiling = AutoencoderTiling()
        needs = [:]
        for part in PipelineFolder.Part.allCases {
            let side = part == .vae ? autoencoderTiling.tile : tile ?? Self.defaultTile
            needs[part] = try pipeline.need(of: part, side: side, precision: precision)
        }
    }
}

/// How pictures are cut for the autoencoder, in latents.
package struct AutoencoderTiling: Sendable, Hashable {
    /// Side of a window.
    package var tile = 64
    /// Context around each cell.
    package var halo = 8
    /// Passes that gather group-norm statistics before the one that answers pixels. Each uses the statistics of the one before.
    package var statisticsPasses = 2

    package init() {}
}

/// The tiles of one way through the autoencoder, and how often they are visited.
package struct AutoencoderPasses: Sendable {
    package let grid: TileGrid
    /// Those that gather statistics, and one.
    package let passes: Int

    package var count: Int { grid.count }

    /// Sums are added in a fixed order; pixels need none.
    func shape(of pass: Int) -> Scheduler.Step.Shape { .barrier(count: grid.count, inOrder: pass + 1 < passes) }

    /// - Throws: `TilingError`.
    package init(_ tiling: AutoencoderTiling, height: Int, width: Int) throws {
        grid = try Tiling(
            canvasHeight: height, canvasWidth: width, tile: tiling.tile, overlap: .implicit(halo: tiling.halo), offset: .none, alignment: 1, seed: 0
        ).grid(step: 0)
        // One window has the canvas's own statistics.
        passes = grid.count == 1 ? 1 : tiling.statisticsPasses + 1
    }
}
