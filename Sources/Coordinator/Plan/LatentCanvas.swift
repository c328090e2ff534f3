import Engine

/// A canvas of latents and what a latent model's methods have in common: the text, the loop, and the way in and out
/// through the autoencoder.
struct LatentCanvas {
    static let defaultSteps = 20
    /// In latents, as the halo: the size that Stable Diffusion was trained at, and any-size-diffusion's (arXiv
    /// 2308.16582).
    static let defaultTile = 64
    static let defaultHalo = 8

    let request: RenderRequest
    let folder: PipelineFolder
    let picture: PictureGeometry
    let tiling: Tiling
    let autoencoderTiling: AutoencoderTiling
    let precision: Precision
    let guidanceScale: Float

    /// - Parameter guidanceScale: where the request has none
    init(
        _ request: RenderRequest, _ context: PlanContext, _ folder: PipelineFolder, scale: Double,
        guidanceScale: Double
    ) throws {
        self.request = request
        self.folder = folder
        picture = try PictureGeometry(context, scale: scale)
        precision = try request.precision ?? context.model.naturalPrecision()
        self.guidanceScale = Float(request.guidance.scale ?? guidanceScale)
        var windows = AutoencoderTiling()
        if let tile = request.tiling.autoencoderTile { windows.tile = tile }
        autoencoderTiling = windows

        let alignment = folder.unetConfiguration.alignment, factor = folder.vaeConfiguration.factor
        let height = (picture.outputHeight + factor - 1) / factor, width = (picture.outputWidth + factor - 1) / factor
        guard height >= alignment, width >= alignment else {
            throw RequestError.outputTooSmall(
                width: picture.outputWidth, height: picture.outputHeight, least: alignment * factor)
        }
        tiling = try request.tiling.tiling(
            canvasHeight: roundUp(height, alignment), canvasWidth: roundUp(width, alignment),
            tile: request.tiling.tile ?? roundUp(Self.defaultTile, alignment), alignment: alignment,
            defaultHalo: Self.defaultHalo, seed: request.seed)
    }

    /// The number of the picture's plane in every pipeline.
    static let picturePlane: Plane.ID = 0

    /// - Parameters:
    ///   - encoding: the way into the latents; empty where the loop begins with noise
    ///   - reads: what a task gets beside the sample and the embeddings
    func plan(
        _ sampler: StepSampler, startsWithNoise: Bool, noiseLevel: Int?, encoding: [AutoencoderSweep],
        reads: [@Sendable (TileGrid) -> Read]
    ) throws -> JobPlan {
        var planes = [Plane("picture", .picture(height: picture.inputHeight, width: picture.inputWidth))]
        let decoding = try AutoencoderSweep.sweeps(
            .decode, autoencoderTiling, folder.vaeConfiguration, height: tiling.canvasHeight, width: tiling.canvasWidth)
        let needs = try needs(encoding + decoding)
        let (text, embeddings) = textPasses(&planes, cost: needs.parts[.text]?.flops ?? 1)

        let loop = DenoisingPasses(
            tiling: tiling, sampler: sampler, channels: folder.vaeConfiguration.latentChannels,
            element: request.storage, seed: request.seed, startsWithNoise: startsWithNoise)
        let numbers = loop.addPlanes(to: &planes)
        let (tokens, width, guidanceScale) = (folder.tokens, folder.textWidth, guidanceScale)
        let texts = embeddings.map { plane in { @Sendable (_: TileGrid) in Read(plane, .whole, .blob) } }
        let denoising = loop.passes(
            numbers, network: PipelineFolder.Part.unet.rawValue,
            cost: (needs.parts[.unet]?.flops ?? 1) * (guidanceScale == 1 ? 1 : 2), reads: texts + reads
        ) { tile, _ in
            DenoiseLatents(
                tile: tile, tokens: tokens, width: width, guidanceScale: guidanceScale, noiseLevel: noiseLevel)
        }

        let way = AutoencoderPasses(
            folder: folder, tiling: tiling, picture: picture, seed: request.seed, start: sampler.start,
            element: request.storage, cost: needs.parts[.vae]?.flops ?? 1)
        let encode = way.encode(encoding, to: numbers.sample, planes: &planes)
        let (decode, pixels) = way.decode(decoding, from: numbers.sample, planes: &planes)
        let plan = try JobPlan(
            pipeline: Pipeline(planes: planes, stages: [Stage(text + encode + denoising + decode)], output: pixels),
            picture: picture, tiling: tiling, sampler: sampler, seed: request.seed, precision: precision, needs: needs)
        try check(plan)
        return plan
    }

    /// One pass for the prompt and, where there is guidance, one for the negative prompt.
    /// - Returns: the passes, and the planes that they write.
    private func textPasses(_ planes: inout [Plane], cost: Double) -> (passes: [Pass], embeddings: [Plane.ID]) {
        let prompt = (name: "prompt", text: request.guidance.prompt ?? "")
        let negative = (name: "negative-prompt", text: request.guidance.negativePrompt ?? "")
        var passes: [Pass] = [], embeddings: [Plane.ID] = []
        for (name, text) in guidanceScale == 1 ? [prompt] : [prompt, negative] {
            planes.append(Plane(name, .text(text)))
            planes.append(
                Plane("embeddings.\(name)", .values(count: folder.tokens * folder.textWidth, element: .float32)))
            let plane = planes.count - 1
            let operation = EncodeText(
                byteCount: text.utf8.count, tokens: folder.tokens, width: folder.textWidth,
                isNegative: !embeddings.isEmpty)
            passes.append(
                Pass(
                    "text", places: .one, reads: [Read(plane - 1, .whole)], writes: [Write(plane, .whole)],
                    network: PipelineFolder.Part.text.rawValue, cost: cost, work: .task { _ in operation }))
            embeddings.append(plane)
        }
        return (passes, embeddings)
    }

    /// Memory and work of the networks at the windows of this canvas.
    private func needs(_ sweeps: [AutoencoderSweep]) throws -> NetworkNeeds {
        let (height, width) = (tiling.canvasHeight, tiling.canvasWidth), vae = folder.vaeConfiguration
        var needs = NetworkNeeds()
        for part in PipelineFolder.Part.allCases {
            let side = part == .vae ? autoencoderTiling.tile : tiling.tile
            needs.parts[part] = try folder.need(
                of: part, height: min(side, height), width: min(side, width), precision: precision)
        }
        // The layers at the latents' resolution see the whole canvas: eight activations of theirs.
        if sweeps.contains(where: { $0.layers == .trunk }) {
            let whole = 32 * height * width * max(vae.encoderFeatureChannels, vae.decoderFeatureChannels)
            let tile = needs.parts[.vae]?.laneBytes ?? 0
            needs.parts[.vae]?.laneBytes = max(tile, whole)
        }
        needs.keepsTiles = sweeps.contains { !$0.wantedNorms.isEmpty }
        return needs
    }

    /// No window is larger than a message may carry.
    private func check(_ plan: JobPlan) throws {
        let channels = folder.vaeConfiguration.latentChannels
        let window = 4 * min(tiling.tile, tiling.canvasHeight) * min(tiling.tile, tiling.canvasWidth) * channels
        guard window <= TaskLimits.tensorBytes else {
            throw RequestError.windowTooLarge(.tile, bytes: window, most: TaskLimits.tensorBytes)
        }
        let largest = plan.sizes.largestFrame
        guard largest <= TaskLimits.tensorBytes else {
            throw RequestError.windowTooLarge(.autoencoderTile, bytes: largest, most: TaskLimits.tensorBytes)
        }
    }
}
