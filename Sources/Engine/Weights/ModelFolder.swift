import Foundation

/// How a super-resolution network is fed, from `tilefarm.json` beside its `config.json`.
///
/// The network denoises `residualScale` x (image - guess), where the guess is the input enlarged; noisy residual and guess are stacked along the
/// channels (residual first), each rearranged from blocks of `spaceToDepth` x `spaceToDepth` pixels to channels.
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

/// A folder with a denoiser in the layout of diffusers: a network saved by `save_pretrained`, or a pipeline with the network in `unet/`.
public struct ModelFolder: Sendable {
    /// The networks that the engine has.
    public enum Architecture: String, Sendable, CaseIterable {
        case unet2D = "UNet2DModel"
    }

    /// A file that a worker needs.
    public struct File: Sendable, Hashable {
        /// Relative to the folder, parts joined by "/".
        public var name: String
        /// In bytes.
        public var size: Int
    }

    public let url: URL
    /// Where the network's `config.json` and weights are: `url`, or `unet/` in it.
    public let network: URL
    public let architecture: Architecture
    /// From `scheduler_config.json`, in the folder or in `scheduler/`; diffusers' defaults where there is none.
    public let schedule: NoiseScheduleConfiguration
    /// From `tilefarm.json`; nil where there is none.
    public let superResolution: SuperResolutionConfiguration?
    /// Everything that was looked at here and the weights, in a fixed order.
    public let files: [File]

    /// Finds out what the folder holds; the weights themselves are not read.
    /// - Throws: `ModelFolderError`.
    public init(url: URL) throws {
        var reader = Reader(root: url)
        let prefix = try reader.isFile("model_index.json") ? try Self.networkFolder(&reader) : ""
        guard try reader.isFile(prefix + "config.json") else {
            throw ModelFolderError.missingConfiguration(folder: reader.path(prefix))
        }
        let config = try reader.object(prefix + "config.json")
        let className = config["_class_name"]?.string ?? ""
        guard let architecture = Architecture(rawValue: className) else {
            throw ModelFolderError.unknownArchitecture(file: reader.path(prefix + "config.json"), name: className)
        }

        let weights = prefix + "diffusion_pytorch_model"
        guard try reader.isFile(weights + ".safetensors") else {
            if try reader.isFile(weights + ".safetensors.index.json") {
                throw ModelFolderError.shardedWeights(file: reader.path(weights + ".safetensors.index.json"))
            }
            if try reader.isFile(weights + ".bin") { throw ModelFolderError.pickledWeights(file: reader.path(weights + ".bin")) }
            throw ModelFolderError.missingWeights(file: reader.path(weights + ".safetensors"))
        }
        try reader.add(weights + ".safetensors")

        var schedule = NoiseScheduleConfiguration()
        for name in ["scheduler_config.json", "scheduler/scheduler_config.json"] where try reader.isFile(name) {
            schedule = try Settings(file: reader.path(name), values: try reader.object(name)).schedule()
            break
        }
        superResolution = try reader.isFile("tilefarm.json")
            ? try Settings(file: reader.path("tilefarm.json"), values: try reader.object("tilefarm.json")).superResolution(network: config)
            : nil
        self.url = url
        self.network = prefix.isEmpty ? url : url.appending(path: prefix)
        self.architecture = architecture
        self.schedule = schedule
        self.files = reader.files
    }

    /// The folder of a pipeline's network, with a slash at its end.
    private static func networkFolder(_ reader: inout Reader) throws -> String {
        let index = try reader.object("model_index.json")
        guard index["unet"]?.array?.last?.string != nil else {
            throw ModelFolderError.unknownArchitecture(
                file: reader.path("model_index.json"), name: index["_class_name"]?.string ?? "")
        }
        return "unet/"
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
    case shardedWeights(file: String)
    case unknownSetting(file: String, key: String)
    case unsupportedSetting(file: String, key: String, value: String, supported: String)
    case impossibleSchedule(file: String, NoiseScheduleError)
    case wrongChannels(file: String, channels: [Int], expected: [Int])
}

extension ModelFolderError: CustomStringConvertible {
    public var description: String {
        let known = ModelFolder.Architecture.allCases.map(\.rawValue).joined(separator: ", ")
        let line = switch self {
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
            "\(file): " + (name.isEmpty ? "names no model class" : "models of class \(name) cannot be run") + "; the classes known are: \(known)"
        case .missingWeights(let file):
            "\(file): is missing; download the model whole, or export it with save_pretrained(..., safe_serialization=True)"
        case .pickledWeights(let file):
            "\(file): pickled weights are not read, since they can run code; convert them in Python with from_pretrained(...) and save_pretrained(..., safe_serialization=True)"
        case .shardedWeights(let file):
            "\(file): weights in several files are not read yet; save them as one with save_pretrained(..., max_shard_size=\"100GB\")"
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

/// Reads the folder's files by their fixed names and notes them.
private struct Reader {
    static let configurationLimit = 1 << 20  // bytes
    let root: URL
    var files: [ModelFolder.File] = []

    init(root: URL) { self.root = root }

    func path(_ name: String) -> String { root.appending(path: name).path }

    /// - Throws: `ModelFolderError.outsideFolder` if the file is a link that leads out of the folder. The blobs beside the snapshots of a Hugging Face
    ///   cache, where each file of a model is such a link, count as inside.
    func isFile(_ name: String) throws -> Bool {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: root.path, isDirectory: &isDirectory), isDirectory.boolValue else {
            throw ModelFolderError.missingFolder(root.path)
        }
        guard FileManager.default.fileExists(atPath: path(name), isDirectory: &isDirectory), !isDirectory.boolValue else { return false }
        let target = root.appending(path: name).resolvingSymlinksInPath().path
        let folder = root.resolvingSymlinksInPath()
        // snapshots/HASH, or a network's own folder in it.
        let above = folder.deletingLastPathComponent().deletingLastPathComponent()
        let blobs = [above, above.deletingLastPathComponent()].map { $0.appending(path: "blobs").path + "/" }
        guard target.hasPrefix(folder.path + "/") || blobs.contains(where: target.hasPrefix) else {
            throw ModelFolderError.outsideFolder(file: path(name), target: target)
        }
        return true
    }

    mutating func add(_ name: String) throws {
        do {
            let size = try root.appending(path: name).resolvingSymlinksInPath().resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0
            files.append(.init(name: name, size: size))
        } catch {
            throw ModelFolderError.unreadable(file: path(name), reason: error.localizedDescription)
        }
    }

    mutating func object(_ name: String) throws -> [String: JSON] {
        try add(name)
        guard let size = files.last?.size, size <= Self.configurationLimit else {
            throw ModelFolderError.malformed(file: path(name), reason: "larger than \(Self.configurationLimit) bytes")
        }
        let data: Data
        do { data = try Data(contentsOf: root.appending(path: name)) } catch {
            throw ModelFolderError.unreadable(file: path(name), reason: error.localizedDescription)
        }
        do {
            guard let object = try JSON([UInt8](data)).object else {
                throw ModelFolderError.malformed(file: path(name), reason: "something else")
            }
            return object
        } catch let error as JSONError {
            throw ModelFolderError.malformed(file: path(name), reason: error.description)
        }
    }
}

/// The settings of one file. Whatever changes the result is read or refused, never passed over.
private struct Settings {
    let file: String
    let values: [String: JSON]

    func value<Value>(_ key: String, default missing: Value? = nil, _ supported: String, _ read: (JSON) -> Value?) throws -> Value {
        guard let value = values[key] else {
            if let missing { return missing }
            throw ModelFolderError.unsupportedSetting(file: file, key: key, value: "missing", supported: supported)
        }
        guard let result = read(value) else {
            throw ModelFolderError.unsupportedSetting(file: file, key: key, value: value.text, supported: supported)
        }
        return result
    }

    func choice<Value: RawRepresentable & CaseIterable>(_ key: String, default missing: Value? = nil) throws -> Value
    where Value.RawValue == String {
        try value(key, default: missing, Value.allCases.map(\.rawValue).joined(separator: " or ")) { $0.string.flatMap(Value.init) }
    }

    func schedule() throws -> NoiseScheduleConfiguration {
        /// Classes that differ in how they sample, not in the noise.
        let classes = ["DDIMScheduler", "DDPMScheduler"]
        _ = try value("_class_name", classes.joined(separator: " or ")) { $0.string.flatMap { classes.contains($0) ? $0 : nil } }
        _ = try value("thresholding", default: true, "false") { $0 == .bool(false) ? true : nil }
        _ = try value("trained_betas", default: true, "null, with a beta_schedule") { $0 == .null ? true : nil }
        _ = try value("predict_epsilon", default: true, "a prediction_type instead") { $0 == .bool(true) ? true : nil }

        var schedule = NoiseScheduleConfiguration()
        schedule.trainTimesteps = try value("num_train_timesteps", default: schedule.trainTimesteps, "an integer", \.integer)
        schedule.betaSchedule = try choice("beta_schedule", default: schedule.betaSchedule)
        schedule.betaStart = try value("beta_start", default: schedule.betaStart, "a number", \.number)
        schedule.betaEnd = try value("beta_end", default: schedule.betaEnd, "a number", \.number)
        schedule.zeroTerminalSNR = try value("rescale_betas_zero_snr", default: schedule.zeroTerminalSNR, "true or false", \.bool)
        schedule.predictionType = try choice("prediction_type", default: schedule.predictionType)
        schedule.timestepSpacing = try choice("timestep_spacing", default: schedule.timestepSpacing)
        schedule.stepsOffset = try value("steps_offset", default: schedule.stepsOffset, "an integer", \.integer)
        let clips = try value("clip_sample", default: true, "true or false", \.bool)
        let range = try value("clip_sample_range", default: 1, "a number", \.number)
        schedule.clipRange = clips ? range : nil
        schedule.finalAlphaIsOne = try value("set_alpha_to_one", default: schedule.finalAlphaIsOne, "true or false", \.bool)
        schedule.variance = try choice("variance_type", default: schedule.variance)

        try refuse(except: [
            "thresholding", "trained_betas", "predict_epsilon", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end",
            "rescale_betas_zero_snr", "prediction_type", "timestep_spacing", "steps_offset", "clip_sample", "clip_sample_range",
            "set_alpha_to_one", "variance_type",
            // Without effect unless thresholding; long gone from diffusers.
            "dynamic_thresholding_ratio", "sample_max_value", "tensor_format",
        ])
        do {
            _ = try NoiseSchedule(schedule)
        } catch {
            throw ModelFolderError.impossibleSchedule(file: file, error)
        }
        return schedule
    }

    func superResolution(network: [String: JSON]) throws -> SuperResolutionConfiguration {
        func integer(_ range: ClosedRange<Int>) -> (JSON) -> Int? {
            { $0.integer.flatMap { range.contains($0) ? $0 : nil } }
        }
        _ = try value("task", "super-resolution") { $0 == .string("super-resolution") ? true : nil }
        let configuration = SuperResolutionConfiguration(
            scale: try value("scale", "an integer from 1 to 64", integer(1...64)),
            spaceToDepth: try value("space_to_depth", default: 1, "an integer from 1 to 64", integer(1...64)),
            residualScale: try value("residual_scale", "a number above 0") { $0.number.flatMap { $0 > 0 && $0 < 1e6 ? Float($0) : nil } },
            conditioning: try choice("conditioning"))
        try refuse(except: ["task", "scale", "space_to_depth", "residual_scale", "conditioning"])

        let residual = 3 * configuration.spaceToDepth * configuration.spaceToDepth
        let channels = [network["in_channels"]?.integer ?? 0, network["out_channels"]?.integer ?? 0]
        guard channels == [2 * residual, residual] else {
            throw ModelFolderError.wrongChannels(file: file, channels: channels, expected: [2 * residual, residual])
        }
        return configuration
    }

    /// Any other setting that is neither false nor null might mean something.
    func refuse(except known: Set<String>) throws {
        for (key, value) in values.sorted(by: { $0.key < $1.key }) where !known.contains(key) && !key.hasPrefix("_") {
            guard value == .null || value == .bool(false) else { throw ModelFolderError.unknownSetting(file: file, key: key) }
        }
    }
}

extension JSON {
    /// For messages.
    fileprivate var text: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .string(let value): "\"\(value)\""
        case .array: "[...]"
        case .object: "{...}"
        }
    }
}
