import Engine

/// The model enlarges by the autoencoder's factor and sees the low-resolution pixels beside the sample, noised to a
/// level of their own: diffusers' `StableDiffusionUpscalePipeline`, in tiles.
package enum LatentUpscale: Method {
    package static let name = "latent-upscale"

    /// As diffusers' pipeline.
    package static let defaultGuidanceScale = 9.0
    package static let defaultNoiseLevel = 20

    package static func isDefault(for model: ModelFolder) -> Bool { model.pipeline?.kind == .upscale }

    package static func plan(_ request: RenderRequest, _ context: PlanContext) throws -> JobPlan {
        let model = context.model
        guard let folder = model.pipeline, folder.kind == .upscale else {
            throw RequestError.notForUpscaling(model: model.url.path)
        }
        let level = request.noiseLevel ?? min(defaultNoiseLevel, folder.maximumNoiseLevel)
        guard level <= folder.maximumNoiseLevel else {
            throw RequestError.noiseLevel(level, most: folder.maximumNoiseLevel)
        }
        let factor = folder.vaeConfiguration.factor
        if let scale = request.scale, scale != Double(factor) { throw RequestError.scaleOfModel(scale, own: factor) }
        if request.strength != nil { throw RequestError.notOfModel(.strength, model: model.architecture.rawValue) }

        let latent = try LatentCanvas(
            request, context, folder, scale: Double(factor), guidanceScale: defaultGuidanceScale)
        let sampler = try context.sampler(
            request, schedule: folder.schedule, defaultSteps: LatentCanvas.defaultSteps)
        // The grid's positions are those of the input's pixels.
        let pixels: @Sendable (TileGrid) -> Read = { _ in Read(LatentCanvas.picturePlane, .window()) }
        return try latent.plan(sampler, startsWithNoise: true, noiseLevel: level, encoding: [], reads: [pixels])
    }
}
