import Foundation

/// How a super-resolution network is fed, from `tilefarm.json` beside its `config.json`.
///
/// The network denoises `residualScale` x (image - guess), where the guess is the input enlarged; noisy residual and
/// guess are stacked along the channels (residual first), each rearranged from blocks of `spaceToDepth` x
/// `spaceToDepth` pixels to channels.
public struct SuperResolutionConfiguration: Sendable, Hashable {
    /// How the guess is made.
    public enum Conditioning: String, Sendable, CaseIterable {
        case bicubic
    }

    /// Output pixels per input pixel and axis.
    public var scale: Int
    public var spaceToDepth: Int
    public var residualScale: Float
    public var conditioning: Conditioning

    public init(scale: Int, spaceToDepth: Int, residualScale: Float, conditioning: Conditioning) {
        self.scale = scale
        self.spaceToDepth = spaceToDepth
        self.residualScale = residualScale
        self.conditioning = conditioning
    }
}

/// A folder with a model in the layout of diffusers: a network saved by `save_pretrained`, or a pipeline with its parts
/// in folders of their own.
public struct ModelFolder: Sendable {
    /// What can be run.
    public enum Architecture: String, Sendable, CaseIterable {
        /// A denoiser of pixels, alone or as the `unet` of a pipeline without other networks.
        case unet2D = "UNet2DModel"
        case upscale = "StableDiffusionUpscalePipeline"
        case imageToImage = "StableDiffusionPipeline"
    }

    /// A file that a worker needs.
    public struct File: Sendable, Hashable {
        /// Relative to the folder, parts joined by "/".
        public var name: String
        /// In bytes.
        public var size: Int
    }

    public let url: URL
    public let architecture: Architecture
    /// The network that denoises: this folder, or `unet/` in it.
    public let denoiser: NetworkFolder
    /// What the scheduler's configuration says, in the folder or in `scheduler/`; diffusers' defaults where there is
    /// none.
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

/// Why a folder is no model that can be used.
public enum ModelFolderError: Error, Equatable, Sendable {
    case missingFolder(String)
    case unreadable(file: String, reason: String)
    case malformed(file: String, reason: String)
    case outsideFolder(file: String, target: String)
    case missingConfiguration(folder: String)
    case unknownArchitecture(file: String, name: String)
    case missingWeights(file: String)
    case pickledWeights(file: String)
    case missingShard(file: String, index: String)
    case missingPart(folder: String, part: String)
    case wrongPart(file: String, name: String, expected: String)
    case mismatchedParts(folder: String, reason: String)
    case unknownSetting(file: String, key: String)
    case unsupportedSetting(file: String, key: String, value: String, supported: String)
    case impossibleSchedule(file: String, NoiseScheduleError)
    case wrongChannels(file: String, channels: [Int], expected: [Int])
}

extension ModelFolderError: CustomStringConvertible {
    public var description: String {
        let known = ModelFolder.Architecture.allCases.map(\.rawValue).joined(separator: ", ")
        let line =
            switch self {
            case .missingFolder(let folder):
                "\(folder): there is no such folder; give the folder of a model in the diffusers layout"
            case .unreadable(let file, let reason):
                "\(file): cannot be read: \(reason)"
            case .malformed(let file, let reason):
                "\(file): not a JSON object (\(reason)); download or export the model again"
            case .outsideFolder(let file, let target):
                "\(file): is a link to \(target), outside the model's folder; copy the file itself into the folder"
            case .missingConfiguration(let folder):
                "\(folder): holds no config.json, so it is no model in the diffusers layout; give the folder that save_pretrained wrote"
            case .unknownArchitecture(let file, let name):
                "\(file): "
                    + (name.isEmpty ? "names no model class" : "models of class \(name) cannot be run by themselves")
                    + "; the classes known are: \(known)"
            case .missingWeights(let file):
                "\(file): is missing; download the model whole, or export it with save_pretrained(..., safe_serialization=True)"
            case .pickledWeights(let file):
                "\(file): pickled weights are not read, since they can run code; convert them in Python with from_pretrained(...) and save_pretrained(..., safe_serialization=True)"
            case .missingShard(let file, let index):
                "\(file): is missing, but \(index) says that it holds weights; download the model whole"
            case .missingPart(let folder, let part):
                "\(folder): the pipeline has no \(part); download the model whole, with the folder \(part)"
            case .wrongPart(let file, let name, let expected):
                "\(file): " + (name.isEmpty ? "names no class" : "is of class \(name)")
                    + ", but this pipeline needs \(expected); use a model of the Stable Diffusion family"
            case .mismatchedParts(let folder, let reason):
                "\(folder): the parts of the pipeline do not fit together: \(reason); use the parts of one model"
            case .unknownSetting(let file, let key):
                "\(file): \(key) is not a known setting; remove it if the model does not depend on it"
            case .unsupportedSetting(let file, let key, let value, let supported):
                "\(file): \(key) \(value) is not supported; choose \(supported)"
            case .impossibleSchedule(let file, let error):
                "\(file): \(error)"
            case .wrongChannels(let file, let channels, let expected):
                "\(file): in_channels and out_channels are \(channels[0]) and \(channels[1]), but what tilefarm.json says takes \(expected[0]) and \(expected[1]); check space_to_depth"
            }
        return line.replacing("\n", with: " ")
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
