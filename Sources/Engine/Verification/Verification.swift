import Foundation

/// How far one tensor of a reference case is from what was expected.
public struct TensorReport: Sendable, Hashable {
    public var name: String
    /// The largest absolute difference over the largest absolute expected value; infinite where a value on either side
    /// is not finite.
    public var relativeError: Double
    /// The largest error that counts as equal, from the case.
    public var tolerance: Double
    public var passed: Bool { relativeError <= tolerance }
}

/// Why a folder is no reference case, or not one that can be run.
public enum VerificationError: Error, Equatable, Sendable {
    case unreadable(file: String, reason: String)
    case malformed(file: String, reason: String)
    case unknownKind(folder: String, reason: String)
    case unknownTensor(file: String, tensor: String)
    case wrongShape(file: String, tensor: String, shape: [Int], expected: String)
    case nothingExpected(file: String)
}

extension VerificationError: CustomStringConvertible {
    public var description: String {
        let source = "use a case folder that make_reference.py wrote"
        let line =
            switch self {
            case .unreadable(let file, let reason):
                "\(file): cannot be read: \(reason); \(source)"
            case .malformed(let file, let reason):
                "\(file): \(reason); \(source)"
            case .unknownKind(let folder, let reason):
                """
                \(folder): not a kind of case that can be verified: \(reason); the kinds are UNet2DModel, \
                UNet2DConditionModel, AutoencoderKL, CLIPTextModel, tokenizer, schedules, guidance-rescale and \
                upsample-guidance
                """
            case .unknownTensor(let file, let tensor):
                "\(file): nothing is known that answers tensor \(tensor); \(source)"
            case .wrongShape(let file, let tensor, let shape, let expected):
                "\(file): tensor \(tensor): has shape \(shape), not \(expected); \(source)"
            case .nothingExpected(let file):
                "\(file): holds no tensor named out.*, so nothing can be compared; \(source)"
            }
        return line.replacing("\n", with: " ")
    }
}

/// Runs reference cases: folders with `case.json`, `case.safetensors` (tensors in.* and out.*) and, where a network is
/// tested, `model/`.
public struct Verification {
    /// Computes every tensor that the case expects and compares. The kind of case follows from its content.
    /// - Parameter precision: of the networks of latent models; the references are float32.
    /// - Returns: one report for each tensor out.*, sorted by name.
    /// - Throws: `VerificationError`, or what reading the tensors or the model throws.
    public static func run(caseDirectory: URL, precision: Precision = .float32) throws -> [TensorReport] {
        if let reports = try tokenizer(caseDirectory) { return reports }
        let file = try Safetensors(url: caseDirectory.appending(path: "case.safetensors"))
        let verification = Verification(directory: caseDirectory, file: file, precision: precision)
        let tolerance = try verification.tolerance()
        let expected = file.names.filter { $0.hasPrefix("out.") }
        guard !expected.isEmpty else { throw VerificationError.nothingExpected(file: file.url.path) }
        let answer = try verification.answer()
        return try expected.map { name in
            TensorReport(
                name: name, relativeError: relativeError(try answer(name), try verification.values(name)),
                tolerance: tolerance)
        }
    }

    let directory: URL
    let file: Safetensors
    let precision: Precision

    private func tolerance() throws -> Double {
        let url = directory.appending(path: "case.json")
        do {
            let json = try JSON([UInt8](Data(contentsOf: url)))
            guard let tolerance = json.object?["tolerance"]?.number, tolerance >= 0 else {
                throw VerificationError.malformed(file: url.path, reason: "tolerance is not a number of at least 0")
            }
            return tolerance
        } catch let error as JSONError {
            throw VerificationError.malformed(file: url.path, reason: error.description)
        } catch let error as CocoaError {
            throw VerificationError.unreadable(file: url.path, reason: error.localizedDescription)
        }
    }

    /// A function from the name of an expected tensor to our values for it.
    private func answer() throws -> (String) throws -> [Double] {
        let model = directory.appending(path: "model")
        if FileManager.default.fileExists(atPath: model.path) {
            let folder = try NetworkFolder(url: model)
            switch folder.className {
            case "UNet2DModel": return try unet2D(folder)
            case "UNet2DConditionModel": return try unet2DCondition(folder)
            case "AutoencoderKL": return try autoencoderKL(folder)
            case "CLIPTextModel": return try clipText(folder)
            default:
                throw VerificationError.unknownKind(
                    folder: directory.path, reason: "its model is of class \(folder.className)")
            }
        }
        if file.names.contains("in.pos") { return try guidance() }
        if file.names.contains(where: { $0.hasPrefix("out.alphas_cumprod.") }) { return try schedules() }
        if file.names.contains(where: { $0.hasPrefix("out.tau.") }) { return upsampleGuidance() }
        throw VerificationError.unknownKind(
            folder: directory.path, reason: "there is no model/, and case.safetensors has no tensors of a known kind")
    }

    private func values(_ name: String) throws -> [Double] {
        switch try file.elementType(of: name) {
        case .float32, .float16, .bfloat16: try file.tensor(name).values.map { Double($0) }
        default: try file.integers(name).map { Double($0) }
        }
    }

    private static func relativeError(_ values: [Double], _ expected: [Double]) -> Double {
        guard !expected.isEmpty, values.count == expected.count, (values + expected).allSatisfy({ $0.isFinite }) else {
            return .infinity
        }
        let difference = zip(values, expected).reduce(0) { max($0, abs($1.0 - $1.1)) }
        let scale = expected.reduce(0) { max($0, abs($1)) }
        return difference == 0 ? 0 : difference / scale
    }

    func unknown(_ tensor: String) -> VerificationError { .unknownTensor(file: file.url.path, tensor: tensor) }
}
