import Engine
import Protocol

/// What a render with a latent model has beside the sizes: the text, the autoencoder, and the way in and out of the
/// latents.
package struct LatentPlan: Sendable {
    /// How the picture gets larger.
    package enum Method: Sendable, Hashable {
        /// The model enlarges by the autoencoder's factor and sees the low-resolution pixels, noised to this level
        /// (StableDiffusionUpscalePipeline).
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
    package var autoencoder: AutoencoderKLConfiguration
    package var autoencoderTiling: AutoencoderTiling
    /// Of the networks, at the plan's windows and precision.
    package private(set) var needs: [PipelineFolder.Part: PipelineFolder.Need] = [:]
    /// The way into the latents and the way out; made when the canvas is known.
    package var encoding: [AutoencoderPass] = []
    package var decoding: [AutoencoderPass] = []

    /// Of what stands between the autoencoder's layers at the latents' resolution and the others.
    package func featureChannels(_ direction: AutoencodeRequest.Direction) -> Int {
        autoencoder.featureChannels(direction)
    }

    package func passes(_ direction: AutoencodeRequest.Direction) -> [AutoencoderPass] {
        direction == .encode ? encoding : decoding
    }

    /// Whether the layers at the latents' resolution are done in one piece.
    func hasTrunk(_ direction: AutoencodeRequest.Direction) -> Bool {
        passes(direction).contains { $0.layers == .trunk }
    }

    /// What is encoded: the prompt and, where there is guidance, the negative prompt.
    package var prompts: [String] { guidanceScale == 1 ? [prompt] : [prompt, negativePrompt] }
}

extension AutoencoderKLConfiguration {
    fileprivate func featureChannels(_ direction: AutoencodeRequest.Direction) -> Int {
        direction == .encode ? encoderFeatureChannels : decoderFeatureChannels
    }
}

extension LatentPlan {
    package static let defaultSteps = 20
    /// In latents, as the halo: the size that Stable Diffusion was trained at, and any-size-diffusion's (arXiv
    /// 2308.16582).
    package static let defaultTile = 64
    package static let defaultHalo = 8
    /// As diffusers' pipeline.
    package static let defaultNoiseLevel = 20
    /// An upscaler shall keep the picture: diffusers' 0.8 would make another one.
    package static let defaultStrength = 0.5

    /// As diffusers' pipelines.
    package static func defaultGuidanceScale(_ method: Method) -> Float { method == .imageToImage ? 7.5 : 9 }

    package init(
        method: Method, prompt: String, negativePrompt: String, guidanceScale: Float, pipeline: PipelineFolder,
        autoencoderTiling: AutoencoderTiling
    ) {
        let vae = pipeline.vaeConfiguration
        self.method = method
        self.prompt = prompt
        self.negativePrompt = negativePrompt
        self.guidanceScale = guidanceScale
        (tokens, textWidth) = (pipeline.tokens, pipeline.textWidth)
        (channels, factor) = (vae.latentChannels, vae.factor)
        alignment = pipeline.unetConfiguration.alignment
        autoencoder = vae
        self.autoencoderTiling = autoencoderTiling
    }

    /// What the networks take at the windows of this canvas.
    mutating func measureNeeds(_ pipeline: PipelineFolder, tiling: Tiling, precision: Precision) throws {
        let (height, width) = (tiling.canvasHeight, tiling.canvasWidth)
        for part in PipelineFolder.Part.allCases {
            let side = part == .vae ? autoencoderTiling.tile : tiling.tile
            needs[part] = try pipeline.need(
                of: part, height: min(side, height), width: min(side, width), precision: precision)
        }
        // The layers at the latents' resolution see the whole canvas: eight activations of theirs.
        if hasTrunk(.encode) || hasTrunk(.decode) {
            let whole = 32 * height * width * max(featureChannels(.encode), featureChannels(.decode))
            let tiles = needs[.vae]?.laneBytes ?? 0
            needs[.vae]?.laneBytes = max(tiles, whole)
        }
    }
}

/// How pictures are cut for the autoencoder, in latents. `docs/stable-diffusion.md` has the measurements.
package struct AutoencoderTiling: Sendable, Hashable {
    /// Side of a window.
    package var tile = 64
    /// Context around each cell.
    package var halo = 8
    /// Canvases of up to so many latents have the layers at their own resolution done in one piece: the attention then
    /// sees everything. Beyond, it sees a window.
    package var wholeLimit = 256 * 256
    /// Up to so many tiles make up the group norms' statistics: all tiles of a canvas that has no more, exactly; or so
    /// many spread over it.
    package var statisticsTiles = 16

    package init() {}
}

/// One visit of tiles on the way through the autoencoder.
package struct AutoencoderPass: Sendable {
    package var layers: AutoencodeRequest.Layers
    package var grid: TileGrid
    /// Which tiles of the grid are visited.
    package var tiles: [Int]
    /// The layers' first norms, by the sums of the passes before; the others are the tile's own.
    package var givenNorms = 0
    /// The one whose sums are gathered, or none in the pass that answers.
    package var wantedNorms = 0..<0

    /// Sums are added in a fixed order; pixels need none.
    var shape: Scheduler.Step.Shape { .barrier(count: tiles.count, inOrder: !wantedNorms.isEmpty) }

    /// What names a tile from pass to pass.
    var keys: [Int] { layers == .trunk ? [] : tiles }

    /// What a tile of a pass costs, about, beside one that goes all the way: workers keep what they have computed from
    /// pass to pass.
    static func share(_ index: Int, of passes: [AutoencoderPass]) -> Double {
        let pass = passes[index]
        // The layers at the latents' resolution are an eighth of a decoder.
        if pass.layers == .trunk {
            let window = passes.first { $0.layers == .detail }?.grid.window(0) ?? pass.grid.window(0)
            return 0.125 * Double(pass.grid.window(0).area) / Double(window.area)
        }
        let gathering = passes.filter { !$0.wantedNorms.isEmpty }
        let part = 1 / Double(gathering.count + 1)
        guard pass.wantedNorms.isEmpty, let sample = gathering.first?.tiles.count else { return part }
        return (part * Double(sample) + Double(pass.tiles.count - sample)) / Double(pass.tiles.count)
    }

    /// The passes of one way over a canvas of `height` x `width` latents.
    ///
    /// One norm's statistics after the other, each with all norms before it as they will be in the end: statistics that
    /// were taken under other ones do not fit, and a network of thirty norms multiplies the misfit.
    /// - Throws: `TilingError`.
    package static func passes(
        _ direction: AutoencodeRequest.Direction, _ tiling: AutoencoderTiling,
        _ autoencoder: AutoencoderKLConfiguration, height: Int, width: Int
    ) throws -> [AutoencoderPass] {
        func grid(_ tile: Int, halo: Int) throws -> TileGrid {
            try Tiling(
                canvasHeight: height, canvasWidth: width, tile: tile, overlap: .implicit(halo: halo), offset: .none,
                alignment: 1, seed: 0
            ).grid(step: 0)
        }
        let tiles = try grid(tiling.tile, halo: tiling.halo)
        let all = Array(0..<tiles.count)
        // One window has the canvas's own statistics.
        guard tiles.count > 1 else { return [AutoencoderPass(layers: .all, grid: tiles, tiles: all)] }
        let isWhole =
            height * width <= tiling.wholeLimit && max(height, width) <= WireLimits.windowSide
            && 4 * height * width * autoencoder.featureChannels(direction) <= WireLimits.tensorBytes
        let layers: AutoencodeRequest.Layers = isWhole ? .detail : .all
        let norms = autoencoder.norms(direction, layers).count
        let count = min(tiles.count, tiling.statisticsTiles)
        let sample = (0..<count).map { $0 * tiles.count / count }
        var passes = (0..<norms).map {
            AutoencoderPass(layers: layers, grid: tiles, tiles: sample, givenNorms: $0, wantedNorms: $0..<$0 + 1)
        }
        passes.append(AutoencoderPass(layers: layers, grid: tiles, tiles: all, givenNorms: norms))
        guard isWhole else { return passes }
        let whole = AutoencoderPass(layers: .trunk, grid: try grid(max(height, width), halo: 0), tiles: [0])
        return direction == .decode ? [whole] + passes : passes + [whole]
    }
}
