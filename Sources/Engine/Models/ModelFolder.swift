import Foundation

/// A folder with a model in the layout of diffusers: a network saved by `save_pretrained`, or a pipeline with its parts
/// in folders of their own.
public struct ModelFolder: Sendable {
    public typealias Architecture = ModelArchitecture

    public typealias File = FolderFile

    public let url: URL
    public let architecture: Architecture
    /// The network that denoises: this folder, or `unet/` in it.
    public let denoiser: NetworkFolder
    /// The scheduler's configuration, in the folder or in `scheduler/`; diffusers' defaults where there is none.
    public let schedule: NoiseScheduleConfiguration
    /// From `tilefarm.json`; nil where there is none.
    public let superResolution: SuperResolutionConfiguration?
    /// The parts of a latent model; nil for a `UNet2DModel`.
    public let pipeline: PipelineFolder?
    /// Everything that was looked at here and the weights, in a fixed order.
    public let files: [File]

    /// Where the denoiser's `config.json` and weights are.
    public var network: URL { denoiser.url }

    /// Finds out what the folder holds; the weights themselves are not read.
    /// - Throws: `ModelFolderError`, `ModelError`.
    public init(url: URL) throws {
        var reader = try FolderReader(root: url)
        let index = try reader.isFile("model_index.json") ? try reader.object("model_index.json") : nil
        if let index, let kind = PipelineFolder.Kind(index) {
            let pipeline = try PipelineFolder(&reader, index, kind)
            architecture = kind.architecture
            denoiser = pipeline.unet
            schedule = pipeline.schedule
            superResolution = nil
            self.pipeline = pipeline
        } else {
            // Any pipeline with no more to it than a network: diffusers' for DDPM and DDIM, or one's own.
            if let index {
                guard let name = index["unet"]?.array?.last?.string, name == Architecture.unet2D.rawValue else {
                    throw ModelFolderError.unknownArchitecture(
                        file: reader.path("model_index.json"), name: index["_class_name"]?.string ?? "")
                }
            }
            denoiser = try NetworkFolder(&reader, index == nil ? "" : "unet/")
            guard denoiser.className == Architecture.unet2D.rawValue else {
                throw ModelFolderError.unknownArchitecture(file: denoiser.configuration.path, name: denoiser.className)
            }
            architecture = .unet2D
            schedule =
                try reader.schedule(at: ["scheduler_config.json", "scheduler/scheduler_config.json"])
                ?? NoiseScheduleConfiguration()
            superResolution =
                try reader.isFile("tilefarm.json")
                ? try Settings(file: reader.path("tilefarm.json"), values: try reader.object("tilefarm.json"))
                    .superResolution(network: try reader.object(index == nil ? "config.json" : "unet/config.json"))
                : nil
            pipeline = nil
        }
        self.url = url
        files = reader.files
    }
}

extension FolderReader {
    /// The noise schedule of the first of these files that is there; nil if none is.
    mutating func schedule(at names: [String]) throws -> NoiseScheduleConfiguration? {
        for name in names where try isFile(name) {
            return try Settings(file: path(name), values: try object(name)).schedule()
        }
        return nil
    }
}

extension ModelFolder {
    /// The precision that the denoiser's weights have in the folder.
    /// - Throws: `SafetensorsError`.
    public func naturalPrecision() throws -> Precision {
        switch try denoiser.parameters().type {
        case .float16: .float16
        case .bfloat16: .bfloat16
        default: .float32
        }
    }
}
