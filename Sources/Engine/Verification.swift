import Foundation

/// How far one tensor of a reference case is from what was expected.
public struct TensorReport: Sendable, Hashable {
    public var name: String
    /// The largest absolute difference over the largest absolute expected value; infinite where a value on either side is not finite.
    public var relativeError: Double
    /// What counts as equal, from the case.
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
        let line = switch self {
        case .unreadable(let file, let reason):
            "\(file): cannot be read: \(reason); \(source)"
        case .malformed(let file, let reason):
            "\(file): \(reason); \(source)"
        case .unknownKind(let folder, let reason):
            "\(folder): not a kind of case that can be verified: \(reason); the kinds are UNet2DModel, schedules and guidance-rescale"
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

/// Runs reference cases: folders with `case.json`, `case.safetensors` (tensors in.* and out.*) and, where a network is tested, `model/`.
public struct Verification {
    /// Computes every tensor that the case expects and compares. The kind of case follows from its content.
    /// - Returns: one report for each tensor out.*, sorted by name.
    /// - Throws: `VerificationError`, or what reading the tensors or the model throws.
    public static func run(caseDirectory: URL) throws -> [TensorReport] {
        let file = try Safetensors(url: caseDirectory.appending(path: "case.safetensors"))
        let verification = Verification(directory: caseDirectory, file: file)
        let tolerance = try verification.tolerance()
        let expected = file.names.filter { $0.hasPrefix("out.") }
        guard !expected.isEmpty else { throw VerificationError.nothingExpected(file: file.url.path) }
        let answer = try verification.answer()
        return try expected.map { name in
            TensorReport(name: name, relativeError: relativeError(try answer(name), try verification.values(name)), tolerance: tolerance)
        }
    }

    private let directory: URL
    private let file: Safetensors

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
        if FileManager.default.fileExists(atPath: directory.appending(path: "model").path) { return try unet2D() }
        if file.names.contains("in.pos") { return try guidance() }
        if file.names.contains(where: { $0.hasPrefix("out.alphas_cumprod.") }) { return try schedules() }
        throw VerificationError.unknownKind(folder: directory.path, reason: "there is no model/, and case.safetensors has no tensors of a known kind")
    }

    private func values(_ name: String) throws -> [Double] {
        switch try file.elementType(of: name) {
        case .float32, .float16, .bfloat16: try file.tensor(name).values.map { Double($0) }
        default: try file.integers(name).map { Double($0) }
        }
    }

    private static func relativeError(_ values: [Double], _ expected: [Double]) -> Double {
        guard !expected.isEmpty, values.count == expected.count, (values + expected).allSatisfy({ $0.isFinite }) else { return .infinity }
        let difference = zip(values, expected).reduce(0) { max($0, abs($1.0 - $1.1)) }
        let scale = expected.reduce(0) { max($0, abs($1)) }
        return difference == 0 ? 0 : difference / scale
    }

    private func unknown(_ tensor: String) -> VerificationError { .unknownTensor(file: file.url.path, tensor: tensor) }

    // MARK: guidance-rescale

    /// Predictions are batch x channels x height x width; each image of the batch has its own deviation.
    private func guidance() throws -> (String) throws -> [Double] {
        let positive = try file.tensor("in.pos")
        let negative = try file.tensor("in.neg", shape: positive.shape)
        guard let batch = positive.shape.first, batch > 0, !positive.values.isEmpty else {
            throw VerificationError.wrongShape(
                file: file.url.path, tensor: "in.pos", shape: positive.shape, expected: "batch x channels x height x width")
        }
        let size = positive.values.count / batch
        return { name in
            guard let match = name.wholeMatch(of: /out\.(?:cfg|rescaled_(?<phi>[0-9.]+))/), let phi = Float(match.phi ?? "0") else {
                throw unknown(name)
            }
            return (0..<batch).flatMap { image in
                let range = image * size..<(image + 1) * size
                let positive = positive.values.span.extracting(range)
                var guided = [Float](repeating: 0, count: size)
                var span = guided.mutableSpan
                Guidance.classifierFree(positive: positive, negative: negative.span.extracting(range), scale: 7.5, into: &span)
                let factor = Guidance.rescaleFactor(positive: Moments(positive), guided: Moments(span.span), phi: phi)
                Guidance.rescale(&span, by: factor)
                return guided.map { Double($0) }
            }
        }
    }

    // MARK: schedules

    /// The settings that make_reference.py gives its schedulers.
    private static func configuration(_ betas: NoiseScheduleConfiguration.BetaSchedule) -> NoiseScheduleConfiguration {
        var configuration = NoiseScheduleConfiguration()
        configuration.betaSchedule = betas
        if betas == .scaledLinear { (configuration.betaStart, configuration.betaEnd) = (0.00085, 0.012) }
        configuration.clipRange = nil
        return configuration
    }

    private func schedules() throws -> (String) throws -> [Double] {
        let sample = try file.tensor("in.sample")
        let prediction = try file.tensor("in.model_output", shape: sample.shape)
        let noise = try file.tensor("in.noise", shape: sample.shape)
        return { name in
            if let match = name.wholeMatch(of: /out\.alphas_cumprod\.(\w+)\.(plain|ztsnr)/),
                let betas = NoiseScheduleConfiguration.BetaSchedule(rawValue: String(match.1)) {
                var configuration = Self.configuration(betas)
                configuration.zeroTerminalSNR = match.2 == "ztsnr"
                return try NoiseSchedule(configuration).alphasCumprod
            }
            if let match = name.wholeMatch(of: /out\.timesteps\.(?:ddim|ddpm)\.(\w+)\.([0-9]+)/), let steps = Int(match.2),
                let spacing = NoiseScheduleConfiguration.TimestepSpacing(rawValue: String(match.1)) {
                var configuration = Self.configuration(.scaledLinear)
                configuration.timestepSpacing = spacing
                configuration.stepsOffset = spacing == .leading ? 1 : 0
                return try NoiseSchedule(configuration).timesteps(steps: steps).map { Double($0) }
            }
            if let match = name.wholeMatch(of: /out\.(ddim|ddim_x0|ddpm)\.(epsilon|v_prediction|sample)(?:\.(plain|ztsnr)\.eta([0-9.]+))?\.t([0-9]+)/),
                let type = NoiseScheduleConfiguration.PredictionType(rawValue: String(match.2)),
                let eta = Float(match.4 ?? "0"), let timestep = Int(match.5) {
                var configuration = Self.configuration(.scaledLinear)
                configuration.timestepSpacing = .trailing
                configuration.predictionType = type
                configuration.zeroTerminalSNR = match.3 == "ztsnr"
                let schedule = try NoiseSchedule(configuration)
                let next = try schedule.timesteps(steps: 20).first { $0 < timestep }
                let step = try schedule.step(match.1 == "ddpm" ? .ddpm : .ddim(eta: eta), from: timestep, to: next)
                var result = [Float](repeating: 0, count: sample.values.count)
                var span = result.mutableSpan
                if match.1 == "ddim_x0" {
                    step.original(sample: sample.values.span, prediction: prediction.span, into: &span)
                } else {
                    step.apply(sample: sample.values.span, prediction: prediction.span, noise: noise.span, into: &span)
                }
                return result.map { Double($0) }
            }
            throw unknown(name)
        }
    }

    // MARK: UNet2DModel

    /// Cases in.N.sample (batch x channels x height x width), in.N.timestep -> out.N.sample.
    private func unet2D() throws -> (String) throws -> [Double] {
        let folder: ModelFolder
        do {
            folder = try ModelFolder(url: directory.appending(path: "model"))
        } catch let error as ModelFolderError {
            guard case .unknownArchitecture(_, let name) = error else { throw error }
            throw VerificationError.unknownKind(folder: directory.path, reason: "its model is of class \(name)")
        }
        let network = try UNet2D(folder: folder.network)
        let workspace = Workspace()
        return { name in
            guard let match = name.wholeMatch(of: /out\.([0-9]+)\.sample/) else { throw unknown(name) }
            let input = "in.\(match.1)."
            let sample = try file.tensor(input + "sample")
            guard sample.shape.count == 4, sample.shape.allSatisfy({ $0 > 0 }) else {
                throw VerificationError.wrongShape(
                    file: file.url.path, tensor: input + "sample", shape: sample.shape, expected: "batch x channels x height x width")
            }
            guard let timestep = try file.integers(input + "timestep").first else {
                throw VerificationError.wrongShape(file: file.url.path, tensor: input + "timestep", shape: [0], expected: "[1]")
            }
            let (channels, height, width) = (sample.shape[1], sample.shape[2], sample.shape[3])
            var result: [Double] = []
            for image in 0..<sample.shape[0] {
                let x = Activation(height: height, width: width, channels: channels)
                let output = Activation(height: height, width: width, channels: network.configuration.outChannels)
                let pixels = height * width
                var span = x.mutableSpan
                for channel in 0..<channels {
                    for pixel in 0..<pixels {
                        span[pixel * channels + channel] = sample.values[(image * channels + channel) * pixels + pixel]
                    }
                }
                try network.predict(x, timestep: Float(timestep), into: output, workspace: workspace)
                for channel in 0..<output.channels {
                    for pixel in 0..<pixels { result.append(Double(output.span[pixel * output.channels + channel])) }
                }
            }
            return result
        }
    }
}
