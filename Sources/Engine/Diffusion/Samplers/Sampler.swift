/// How x_t becomes the next sample. A sampler is one file, and a line in `SamplerTable.standard`.
public protocol Sampler: Sendable, Hashable {
    /// Its name on a command line and in a request.
    static var name: String { get }
    /// - Throws: `NoiseScheduleError` for options that it does not have, or values that it does not take.
    init(_ options: SamplerOptions) throws(NoiseScheduleError)
    /// The step from one timestep to the next, in double precision.
    func next(_ transition: SamplerTransition) -> NextSample
}

/// A user's choices for a sampler.
public struct SamplerOptions: Sendable, Hashable, Codable {
    /// Fresh noise in each DDIM step, from 0, none, to 1, as much as DDPM's.
    public var eta: Double

    public init(eta: Double = 0) { self.eta = eta }
}

/// The samplers that a program knows, by name.
public struct SamplerTable: Sendable {
    public static let standard = SamplerTable([DDIM.self, DDPM.self])

    public let samplers: [any Sampler.Type]

    public init(_ samplers: [any Sampler.Type]) { self.samplers = samplers }

    /// A table with one sampler more.
    public func adding(_ sampler: any Sampler.Type) -> SamplerTable { SamplerTable(samplers + [sampler]) }

    public var names: [String] { samplers.map { $0.name } }

    public subscript(name: String) -> (any Sampler.Type)? { samplers.first { $0.name == name } }
}

/// A sum of x_t and the model's output.
public struct LinearForm: Sendable, Hashable {
    public var sample, prediction: Double

    public init(_ sample: Double, _ prediction: Double) { (self.sample, self.prediction) = (sample, prediction) }

    public static func + (a: Self, b: Self) -> Self { Self(a.sample + b.sample, a.prediction + b.prediction) }
    public static func * (a: Self, factor: Double) -> Self { Self(a.sample * factor, a.prediction * factor) }
}

/// From one timestep to the next.
public struct SamplerTransition: Sendable {
    public var timestep: Int
    /// The schedule's cumulative product of alphas at the timestep.
    public var alphaCumprod: Double
    /// The same at the next timestep; nil at the end of the loop.
    public var nextAlphaCumprod: Double?
    /// The schedule's `alphasCumprod` at the end of the loop.
    public var finalAlphaCumprod: Double
    public var variance: NoiseScheduleConfiguration.Variance
    /// The noise in x_t that the model's output tells.
    public var epsilon: LinearForm
}

/// next = fromOriginal x_0 + direct + noise z, with z standard normal.
public struct NextSample: Sendable {
    public var fromOriginal: Double
    public var direct: LinearForm
    public var noise: Double

    public init(fromOriginal: Double, direct: LinearForm, noise: Double) {
        self.fromOriginal = fromOriginal
        self.direct = direct
        self.noise = noise
    }
}
