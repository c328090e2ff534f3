import Engine

/// Denoises a residual over the upsampled picture with a network of pixels: FSTD (arXiv 2308.16582, Algorithm 2) on one
/// canvas, or the ways of tiling to compare it with.
package enum SuperResolution: Method {
    package static let name = "super-resolution"

    /// Found best for the default model: `docs/default-model.md` and `docs/methods.md` have the measurements.
    package static let defaultSteps = 4
    package static let defaultTile = 256
    package static let defaultHalo = 16
    package static let defaultScale = 4.0
    /// Smaller canvases are padded to this: GroupNorm needs some pixels to have statistics of.
    private static let leastCanvas = 64

    package static func isDefault(for model: ModelFolder) -> Bool { model.superResolution != nil }

    package static func plan(_ request: RenderRequest, _ context: PlanContext) throws -> JobPlan {
        let model = context.model
        guard let superResolution = model.superResolution else {
            throw RequestError.notForUpscaling(model: model.url.path)
        }
        try refuseLatentFields(request, model)
        let scale = request.scale ?? defaultScale
        // The model's values are in [-1, 1], so a difference of theirs counts half in [0, 1].
        let picture = try PictureGeometry(context, scale: scale, residualGain: 0.5 / superResolution.residualScale)
        let alignment = try alignment(of: model, scale: scale)
        let tile = request.tiling.tile ?? roundUp(defaultTile, alignment)
        let least = min(leastCanvas, tile)
        let tiling = try request.tiling.tiling(
            canvasHeight: roundUp(max(picture.outputHeight, least), alignment),
            canvasWidth: roundUp(max(picture.outputWidth, least), alignment), tile: tile, alignment: alignment,
            defaultHalo: defaultHalo, seed: request.seed)
        let sampler = try context.sampler(request, schedule: model.schedule, defaultSteps: defaultSteps)

        let loop = DenoisingPasses(
            tiling: tiling, sampler: sampler, channels: 3, element: request.storage, seed: request.seed,
            startsWithNoise: true)
        var planes = [Plane("picture", .picture(height: picture.inputHeight, width: picture.inputWidth))]
        let numbers = loop.addPlanes(to: &planes)
        let pixels: @Sendable (TileGrid) -> Read = { grid in
            Read(0, .part { tile in try picture.enlargement(of: grid.window(tile)).source })
        }
        let passes = loop.passes(numbers, network: "unet", cost: 1, reads: [pixels]) { tile, window in
            DenoisePixels(tile: tile, enlargement: try picture.enlargement(of: window))
        }
        return try JobPlan(
            pipeline: Pipeline(planes: planes, stages: [Stage(passes)], output: numbers.sample), picture: picture,
            tiling: tiling, sampler: sampler, seed: request.seed, precision: .float32)
    }

    /// Windows stand at multiples of this: the network's own stride in canvas pixels, and the phase of the conditioning
    /// where the scale has a short one.
    package static func alignment(of model: ModelFolder, scale: Double) throws -> Int {
        guard let superResolution = model.superResolution else {
            throw RequestError.notForUpscaling(model: model.url.path)
        }
        let stride =
            try UNet2DConfiguration(file: model.network.appending(path: "config.json")).alignment
            * superResolution.spaceToDepth
        guard scale == scale.rounded(), scale <= 8 else { return stride }
        var multiple = stride
        while multiple % Int(scale) != 0 { multiple += stride }
        return multiple
    }

    private static func refuseLatentFields(_ request: RenderRequest, _ model: ModelFolder) throws {
        let fields: [(RequestError.Field, Bool)] = [
            (.prompt, request.guidance.prompt != nil), (.negativePrompt, request.guidance.negativePrompt != nil),
            (.guidanceScale, request.guidance.scale != nil), (.noiseLevel, request.noiseLevel != nil),
            (.strength, request.strength != nil),
            (.precision, request.precision.map { $0 != .float32 } ?? false),
            (.autoencoderTile, request.tiling.autoencoderTile != nil),
        ]
        for (field, isGiven) in fields where isGiven {
            throw RequestError.notOfModel(field, model: model.architecture.rawValue)
        }
    }
}

extension RenderRequest.TilingChoice {
    /// - Throws: `TilingError`.
    func tiling(
        canvasHeight: Int, canvasWidth: Int, tile: Int, alignment: Int, defaultHalo: Int, seed: UInt64
    ) throws -> Tiling {
        let overlap: Tiling.Overlap =
            switch self.overlap {
            case .implicit: .implicit(halo: halo ?? roundUp(defaultHalo, alignment))
            case .reference: .reference
            case .explicit: .explicit(width: overlapWidth ?? tile / 2 / alignment * alignment, weights: weights)
            case .none: .none
            }
        let offset: Tiling.Offset =
            switch self.offset {
            case .random: .random
            case .fixed: .fixed
            case .none: .none
            }
        return try Tiling(
            canvasHeight: canvasHeight, canvasWidth: canvasWidth, tile: tile, overlap: overlap, offset: offset,
            offsetRange: offsetRange, alignment: alignment, seed: seed)
    }
}
