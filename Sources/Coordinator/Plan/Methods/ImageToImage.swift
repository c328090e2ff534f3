import Engine

/// The upsampled picture is encoded, noised and denoised again: diffusers' `StableDiffusionImg2ImgPipeline`, in tiles.
package enum ImageToImage: Method {
    package static let name = "image-to-image"

    /// As diffusers' pipeline.
    package static let defaultGuidanceScale = 7.5
    /// An upscaler shall keep the picture: diffusers' 0.8 would make another one.
    package static let defaultStrength = 0.5
    package static let defaultScale = 4.0

    package static func isDefault(for model: ModelFolder) -> Bool { model.pipeline?.kind == .imageToImage }

    package static func plan(_ request: RenderRequest, _ context: PlanContext) throws -> JobPlan {
        let model = context.model
        guard let folder = model.pipeline, folder.kind == .imageToImage else {
            throw RequestError.notForUpscaling(model: model.url.path)
        }
        if request.noiseLevel != nil { throw RequestError.notOfModel(.noiseLevel, model: model.architecture.rawValue) }
        let latent = try LatentCanvas(
            request, context, folder, scale: request.scale ?? defaultScale, guidanceScale: defaultGuidanceScale)
        let sampler = try context.sampler(
            request, schedule: folder.schedule, defaultSteps: LatentCanvas.defaultSteps,
            strength: request.strength ?? defaultStrength)
        let encoding = try AutoencoderSweep.sweeps(
            .encode, latent.autoencoderTiling, folder.vaeConfiguration, height: latent.tiling.canvasHeight,
            width: latent.tiling.canvasWidth)
        return try latent.plan(sampler, startsWithNoise: false, noiseLevel: nil, encoding: encoding, reads: [])
    }
}
