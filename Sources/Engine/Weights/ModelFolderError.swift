/// Networks that can be run.
public enum ModelArchitecture: String, Sendable, CaseIterable {
    /// A denoiser of pixels, alone or as the `unet` of a pipeline without other networks.
    case unet2D = "UNet2DModel"
    case upscale = "StableDiffusionUpscalePipeline"
    case imageToImage = "StableDiffusionPipeline"
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
        let known = ModelArchitecture.allCases.map(\.rawValue).joined(separator: ", ")
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
                """
                \(folder): holds no config.json, so it is no model in the diffusers layout; give the folder that \
                save_pretrained wrote
                """
            case .unknownArchitecture(let file, let name):
                "\(file): "
                    + (name.isEmpty ? "names no model class" : "models of class \(name) cannot be run by themselves")
                    + "; the classes known are: \(known)"
            case .missingWeights(let file):
                """
                \(file): is missing; download the model whole, or export it with save_pretrained(..., \
                safe_serialization=True)
                """
            case .pickledWeights(let file):
                """
                \(file): pickled weights are not read, since they can run code; convert them in Python with \
                from_pretrained(...) and save_pretrained(..., safe_serialization=True)
                """
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
                """
                \(file): in_channels and out_channels are \(channels[0]) and \(channels[1]), but what tilefarm.json \
                says takes \(expected[0]) and \(expected[1]); check space_to_depth
                """
            }
        return line.replacing("\n", with: " ")
    }
}
