extension ModelFolder {
    /// Looks, before anything of a job is sent, whether the weights are those that the configurations speak of: every
    /// tensor that a network reads is there, with its shape, and of a type that is read. The networks are built as
    /// always, so that what they need stands in one place, but from the headers alone: no weight is read.
    /// - Throws: `SafetensorsError`, `ModelError`, `KernelError`.
    public func checkWeights() throws {
        let kernels = try KernelSet.chosen()
        guard let pipeline else {
            _ = try UNet2D(folder: denoiser, kernels: kernels, headersOnly: true)
            return
        }
        _ = try UNet2DCondition(folder: pipeline.unet, kernels: kernels, headersOnly: true)
        _ = try AutoencoderKL(folder: pipeline.vae, kernels: kernels, headersOnly: true)
        _ = try CLIPText(folder: pipeline.textEncoder, kernels: kernels, headersOnly: true)
    }
}
