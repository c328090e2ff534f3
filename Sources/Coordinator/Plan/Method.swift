import Engine

/// A way to make a picture: turns a request into a pipeline. A method is one file under `Methods`, and a line in
/// `MethodTable.standard`.
package protocol Method: Sendable {
    /// Its name in a request.
    static var name: String { get }
    /// Whether it is what a model is made for, and so what a request means that names none.
    static func isDefault(for model: ModelFolder) -> Bool
    /// - Throws: `RequestError`, `PipelineError`, `TilingError`, `NoiseScheduleError` and what is wrong with the model.
    static func plan(_ request: RenderRequest, _ context: PlanContext) throws -> JobPlan
}

/// The context of a plan beside the request.
package struct PlanContext: Sendable {
    package var model: ModelFolder
    /// Pixels of the input.
    package var inputHeight, inputWidth: Int
    package var samplers: SamplerTable

    package init(
        model: ModelFolder, inputHeight: Int, inputWidth: Int, samplers: SamplerTable = .standard
    ) {
        self.model = model
        self.inputHeight = inputHeight
        self.inputWidth = inputWidth
        self.samplers = samplers
    }

    /// - Throws: `RequestError.unknownSampler`, `NoiseScheduleError`.
    package func sampler(
        _ request: RenderRequest, schedule: NoiseScheduleConfiguration, defaultSteps: Int, strength: Double = 1
    ) throws -> StepSampler {
        let choice = request.sampler
        guard let type = samplers[choice.name] else {
            throw RequestError.unknownSampler(choice.name, known: samplers.names)
        }
        return try Self.stepSampler(
            type.init(choice.options), schedule, steps: request.steps ?? defaultSteps, strength: strength)
    }

    private static func stepSampler(
        _ sampler: some Sampler, _ schedule: NoiseScheduleConfiguration, steps: Int, strength: Double
    ) throws -> StepSampler {
        try StepSampler(schedule: schedule, sampler: sampler, steps: steps, strength: strength)
    }
}

/// The methods that a program knows.
package struct MethodTable: Sendable {
    package static let standard = MethodTable([SuperResolution.self, LatentUpscale.self, ImageToImage.self])

    private let methods: [any Method.Type]

    package init(_ methods: [any Method.Type]) { self.methods = methods }

    /// A table with one method more.
    package func adding(_ method: any Method.Type) -> MethodTable { MethodTable(methods + [method]) }

    /// - Throws: `RequestError`, and what the method throws.
    package func plan(_ request: RenderRequest, _ context: PlanContext) throws -> JobPlan {
        let plan = try method(of: request, context.model).plan(request, context)
        try plan.checkTasks()
        return plan
    }

    private func method(of request: RenderRequest, _ model: ModelFolder) throws(RequestError) -> any Method.Type {
        if let name = request.method {
            guard let method = methods.first(where: { $0.name == name }) else {
                throw RequestError.unknownMethod(name, known: methods.map { $0.name })
            }
            return method
        }
        guard let method = methods.first(where: { $0.isDefault(for: model) }) else {
            throw RequestError.notForUpscaling(model: model.url.path)
        }
        return method
    }
}

/// A fault of a request. The program's commands word it.
package enum RequestError: Error, Equatable {
    /// A part of a request that a user can name.
    package enum Field: Sendable, Hashable {
        case prompt, negativePrompt, guidanceScale, noiseLevel, strength, precision, tile, autoencoderTile, scale
    }

    case notForUpscaling(model: String)
    case unknownMethod(String, known: [String])
    case unknownSampler(String, known: [String])
    case laterVersion(Int)
    /// The field means nothing to this kind of model.
    case notOfModel(Field, model: String)
    case outputTooLarge(width: Int, height: Int, most: Int)
    case outputTooSmall(width: Int, height: Int, least: Int)
    /// The model enlarges by another factor.
    case scaleOfModel(Double, own: Int)
    case noiseLevel(Int, most: Int)
    /// A window that no message can carry; the field says how large windows are.
    case windowTooLarge(Field, bytes: Int, most: Int)
    /// A task that no message can carry, of a pass of this name.
    case impossibleTask(pass: String, FieldError)
}
