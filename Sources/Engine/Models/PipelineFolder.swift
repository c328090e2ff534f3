import Foundation

/// A latent diffusion model as diffusers saves it: a folder for each part, and `model_index.json` saying what they are.
///
/// Parts that only check, mark or describe pictures (safety_checker, feature_extractor, watermarker, image_encoder) are
/// not looked at.
public struct PipelineFolder: Sendable {
    public enum Kind: Sendable, Hashable {
        /// `StableDiffusionUpscalePipeline`: denoises beside the low-resolution pixels, which are noised at a level of
        /// their own.
        case upscale
        /// `StableDiffusionPipeline`, and what differs from it only in how it is called.
        case imageToImage

        /// Nil for a pipeline of another class.
        init?(_ index: [String: JSON]) {
            switch index["_class_name"]?.string {
            case "StableDiffusionUpscalePipeline": self = .upscale
            case "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline": self = .imageToImage
            default: return nil
            }
        }

        var architecture: ModelFolder.Architecture { self == .upscale ? .upscale : .imageToImage }
    }

    public let kind: Kind
    public let unet, vae, textEncoder: NetworkFolder
    public let unetConfiguration: UNet2DConditionConfiguration
    public let vaeConfiguration: AutoencoderKLConfiguration
    /// Positions and hidden size of the text encoder.
    public let tokens, textWidth: Int
    /// With `vocab.json` and `merges.txt`, or `tokenizer.json`.
    public let tokenizer: URL
    public let schedule: NoiseScheduleConfiguration
    /// How the low-resolution pixels are noised; nil for `imageToImage`.
    public let lowResolutionSchedule: NoiseScheduleConfiguration?
    /// The largest level that the low-resolution pixels were noised at in training.
    public let maximumNoiseLevel: Int
    /// Latents are multiplied by this after encoding and divided by it before decoding.
    public let scalingFactor: Float

    /// - Throws: `ModelFolderError` if a part is missing, of another class, or does not fit the others; `ModelError`
    ///   for an option of a network that the engine does not have.
    init(_ reader: inout FolderReader, _ index: [String: JSON], _ kind: Kind) throws {
        let root = reader
        func missing(_ part: String) -> ModelFolderError { .missingPart(folder: root.root.path, part: part) }
        /// A part's class as the index has it, null where there is none.
        func require(_ part: String) throws {
            guard let name = index[part]?.array?.last, name != .null else { throw missing(part) }
        }
        func network(_ part: String, _ expected: String) throws -> NetworkFolder {
            try require(part)
            guard try reader.isFile(part + "/config.json") else { throw missing(part) }
            let folder = try NetworkFolder(&reader, part + "/")
            guard folder.className == expected else {
                throw ModelFolderError.wrongPart(
                    file: folder.configuration.path, name: folder.className, expected: expected)
            }
            return folder
        }
        func schedule(_ part: String) throws -> NoiseScheduleConfiguration {
            try require(part)
            guard let schedule = try reader.schedule(at: [part + "/scheduler_config.json"]) else { throw missing(part) }
            return schedule
        }

        unet = try network("unet", "UNet2DConditionModel")
        unetConfiguration = try UNet2DConditionConfiguration(file: unet.configuration)
        vae = try network("vae", "AutoencoderKL")
        vaeConfiguration = try AutoencoderKLConfiguration(file: vae.configuration)
        textEncoder = try network("text_encoder", "CLIPTextModel")
        try require("tokenizer")
        // transformers 5 saves the second alone.
        let names =
            try reader.isFile("tokenizer/vocab.json") || !reader.isFile("tokenizer/tokenizer.json")
            ? ["vocab.json", "merges.txt"] : ["tokenizer.json"]
        for name in names {
            guard try reader.isFile("tokenizer/" + name) else { throw missing("tokenizer/" + name) }
            try reader.add("tokenizer/" + name)
        }
        for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
        where try reader.isFile("tokenizer/" + name) {
            try reader.add("tokenizer/" + name)
        }
        tokenizer = reader.url("tokenizer")

        var noise = try schedule("scheduler")
        switch kind {
        case .upscale:
            lowResolutionSchedule = try schedule("low_res_scheduler")
            // As the pipeline does, whatever the VAE's configuration says: that of the first release says nothing.
            scalingFactor = 0.08333
        case .imageToImage:
            lowResolutionSchedule = nil
            scalingFactor = Float(vaeConfiguration.scalingFactor)
            // As the pipeline does: configurations of the first releases say otherwise.
            noise.stepsOffset = 1
            noise.clipRange = nil
        }
        self.schedule = noise
        let level = index["max_noise_level"].map(\.integer) ?? 350
        guard let level, level >= 0 else {
            throw ModelFolderError.malformed(
                file: root.path("model_index.json"), reason: "max_noise_level is not an integer of at least 0")
        }
        maximumNoiseLevel = min(
            level, (unetConfiguration.classEmbeddings ?? .max) - 1, (lowResolutionSchedule?.trainTimesteps ?? .max) - 1)
        self.kind = kind

        func fits(_ condition: Bool, _ reason: String) throws {
            guard condition else { throw ModelFolderError.mismatchedParts(folder: root.root.path, reason: reason) }
        }
        let latent = vaeConfiguration.latentChannels, pixels = vaeConfiguration.inChannels
        let inputs = kind == .upscale ? latent + 3 : latent
        try fits(
            pixels == 3 && vaeConfiguration.outChannels == 3,
            "the VAE takes \(pixels) channels and gives \(vaeConfiguration.outChannels), not 3")
        try fits(
            unetConfiguration.inChannels == inputs && unetConfiguration.outChannels == latent,
            """
            the U-Net takes \(unetConfiguration.inChannels) channels and gives \(unetConfiguration.outChannels), not \
            \(inputs) and \(latent)
            """
        )
        try fits(
            (unetConfiguration.classEmbeddings != nil) == (kind == .upscale),
            """
            the U-Net has \(unetConfiguration.classEmbeddings == nil ? "no " : "")embeddings of classes \
            (num_class_embeds)
            """
        )
        let text = try CLIPTextConfiguration(file: textEncoder.configuration)
        (tokens, textWidth) = (text.maxPositions, text.hiddenSize)
        let width = textWidth
        try fits(
            width == unetConfiguration.crossAttentionDim,
            "the text encoder gives \(width) values a token, the U-Net takes \(unetConfiguration.crossAttentionDim)")
    }
}
