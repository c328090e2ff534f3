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
    /// Made by the plan, when the canvas is known.
    package var encoding, decoding: AutoencoderPasses?

    /// What is encoded: the prompt and, where there is guidance, the negative prompt.
    package var prompts: [String] { guidanceScale == 1 ? [prompt] : [prompt, negativePrompt] }
}

extension LatentPlan {
    package init(
        method: Method, prompt: String, negativePrompt: String, guidanceScale: Float, tokens: Int, textWidth: Int, channels: Int, factor: Int,
        alignment: Int, encoderStatistics: Int, decoderStatistics: Int, autoencoderTiling: AutoencoderTiling = AutoencoderTiling()
    ) {
        self.method = method
        self.prompt = prompt
        self.negativePrompt = negativePrompt
        self.guidanceScale = guidanceScale
        self.tokens = tokens
        self.textWidth = textWidth
        self.channels = channels
        self.factor = factor
        self.alignment = alignment
        self.encoderStatistics = encoderStatistics
        self.decoderStatistics = decoderStatistics
        self.autoencoderTiling = autoencoderTiling
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
