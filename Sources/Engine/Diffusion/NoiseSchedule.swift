import Foundation

/// A diffusers `scheduler_config.json`: how a model was trained and is sampled. The defaults are those of diffusers'
/// `DDPMScheduler` and `DDIMScheduler`, which hold for keys that a file lacks.
public struct NoiseScheduleConfiguration: Sendable, Hashable {
    /// How beta grows over the training timesteps; the raw value is diffusers' name.
    public enum BetaSchedule: String, Sendable, CaseIterable {
        case linear
        /// The square root of beta is linear: latent diffusion.
        case scaledLinear = "scaled_linear"
        /// Nichol and Dhariwal 2021 (arXiv 2102.09672), equation 17, betas at most 0.999.
        case squaredCosine = "squaredcos_cap_v2"
    }

    /// The meaning of the network's output.
    public enum PredictionType: String, Sendable, CaseIterable {
        case epsilon
        /// Salimans and Ho 2022 (arXiv 2202.00512): v = alpha epsilon - sigma x_0.
        case velocity = "v_prediction"
        /// x_0 itself.
        case sample
    }

    /// Which timesteps are visited: table 2 of arXiv 2305.08891.
    public enum TimestepSpacing: String, Sendable, CaseIterable {
        case leading, linspace, trailing
    }

    /// The variance that DDPM adds at a step: Ho et al. 2020 (arXiv 2006.11239), section 3.2.
    public enum Variance: String, Sendable, CaseIterable {
        case small = "fixed_small"
        case large = "fixed_large"
    }

    public var trainTimesteps = 1000
    public var betaSchedule = BetaSchedule.linear
    public var betaStart = 1e-4
    public var betaEnd = 0.02
    /// Whether the betas are rescaled so that nothing of the image is left at the last timestep: algorithm 1 of arXiv
    /// 2305.08891.
    public var zeroTerminalSNR = false
    public var predictionType = PredictionType.epsilon
    public var timestepSpacing = TimestepSpacing.leading
    /// Added to every timestep of the leading spacing.
    public var stepsOffset = 0
    /// x_0 is clipped to -clipRange ... clipRange at every step; nil for never.
    public var clipRange: Double? = 1
    /// Whether DDIM's last step ends at alphas_cumprod 1, or at that of timestep 0 (`set_alpha_to_one`). DDPM's always
    /// ends at 1.
    public var finalAlphaIsOne = true
    public var variance = Variance.small

    public init() {}
}

/// A schedule or step that is impossible, with what to choose instead.
public enum NoiseScheduleError: Error, Equatable, Sendable {
    case impossibleTrainTimesteps(Int)
    case impossibleBetas(start: Double, end: Double)
    case impossibleClipRange(Double)
    case impossibleStepsOffset(Int)
    case impossibleStepCount(steps: Int, trainTimesteps: Int)
    case timestepOutOfRange(timestep: Int, next: Int?, trainTimesteps: Int)
    case epsilonAtZeroSNR(timestep: Int)
    case impossibleEta(Float)
}

extension NoiseScheduleError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .impossibleTrainTimesteps(let count):
            """
            num_train_timesteps is \(count): it must be between 2 and 1000000, as in the scheduler_config.json that \
            came with the model
            """
        case .impossibleBetas(let start, let end):
            """
            betas from \(start) to \(end) are impossible: 0 < beta_start <= beta_end < 1 must hold in \
            scheduler_config.json
            """
        case .impossibleClipRange(let range):
            "clip_sample_range is \(range): it must be above 0, or clip_sample false, in scheduler_config.json"
        case .impossibleStepsOffset(let offset):
            """
            steps_offset is \(offset): it must be 0 or a little more, as in the scheduler_config.json that came with \
            the model
            """
        case .impossibleStepCount(let steps, let trainTimesteps):
            "\(steps) steps are impossible with this model: choose between 1 and \(trainTimesteps)"
        case .timestepOutOfRange(let timestep, let next, let trainTimesteps):
            """
            a step from timestep \(timestep) to \(next.map(String.init) ?? "the end") is impossible: timesteps must \
            fall and stay within 0..<\(trainTimesteps); check steps_offset in scheduler_config.json or \
            choose fewer steps
            """
        case .epsilonAtZeroSNR(let timestep):
            """
            the model predicts epsilon, but at timestep \(timestep) nothing of the image is left (zero terminal SNR), \
            so that no x_0 follows from it: use a model trained for v_prediction, set rescale_betas_zero_snr to false, \
            or timestep_spacing to leading
            """
        case .impossibleEta(let eta):
            "eta \(eta) is impossible: choose between 0 (deterministic) and 1 (as much noise as DDPM)"
        }
    }
}

/// How much of the image and how much noise there is at each training timestep.
public struct NoiseSchedule: Sendable {
    public let configuration: NoiseScheduleConfiguration
    /// Cumulative products of alphas: the part of the image's variance that is left at timestep t,
    /// x_t = sqrt(a) x_0 + sqrt(1 - a) epsilon. Falls with t. In double precision throughout; diffusers computes it in
    /// single, from which it differs by rounding alone.
    public let alphasCumprod: [Double]

    /// - Throws: `NoiseScheduleError` if the configuration's numbers are impossible.
    public init(_ configuration: NoiseScheduleConfiguration) throws(NoiseScheduleError) {
        let count = configuration.trainTimesteps
        let (start, end) = (configuration.betaStart, configuration.betaEnd)
        guard (2...1_000_000).contains(count) else { throw .impossibleTrainTimesteps(count) }
        guard 0 < start, start <= end, end < 1 else { throw .impossibleBetas(start: start, end: end) }
        guard (0..<count).contains(configuration.stepsOffset) else {
            throw .impossibleStepsOffset(configuration.stepsOffset)
        }
        if let range = configuration.clipRange, !(range > 0 && range.isFinite) { throw .impossibleClipRange(range) }

        func linear(_ from: Double, _ to: Double) -> [Double] {
            (0..<count).map { from + (to - from) * Double($0) / Double(count - 1) }
        }
        let betas: [Double] =
            switch configuration.betaSchedule {
            case .linear: linear(start, end)
            case .scaledLinear: linear(start.squareRoot(), end.squareRoot()).map { $0 * $0 }
            case .squaredCosine:
                (0..<count).map { t in
                    func alphaBar(_ t: Int) -> Double {
                        let cosine = cos((Double(t) / Double(count) + 0.008) / 1.008 * .pi / 2)
                        return cosine * cosine
                    }
                    return min(1 - alphaBar(t + 1) / alphaBar(t), 0.999)
                }
            }
        var product = 1.0
        var alphasCumprod = betas.map { beta in
            product *= 1 - beta
            return product
        }
        // Betas so small that no noise is added, or so large that nothing is left long before the end.
        guard alphasCumprod[0] < 1, alphasCumprod.dropLast().allSatisfy({ $0 > 1e-30 }) else {
            throw .impossibleBetas(start: start, end: end)
        }
        if configuration.zeroTerminalSNR {
            // Algorithm 1 of arXiv 2305.08891: sqrt(alphas_cumprod) shifted to 0 at the end and scaled to keep its
            // start.
            let (first, last) = (alphasCumprod[0].squareRoot(), alphasCumprod[count - 1].squareRoot())
            alphasCumprod = alphasCumprod.map { alpha in
                let root = (alpha.squareRoot() - last) * first / (first - last)
                return root * root
            }
        }
        self.configuration = configuration
        self.alphasCumprod = alphasCumprod
    }

    /// The timesteps that `steps` steps visit, falling: those of `set_timesteps` of diffusers, except that where its
    /// trailing spacing slips by rounding and appends a timestep of -1 (62 of the numbers of steps up to 1000), that
    /// one is not there.
    /// - Throws: `NoiseScheduleError` if there are none such.
    public func timesteps(steps: Int) throws(NoiseScheduleError) -> [Int] {
        let count = configuration.trainTimesteps
        guard (1...count).contains(steps) else { throw .impossibleStepCount(steps: steps, trainTimesteps: count) }
        let timesteps: [Int]
        switch configuration.timestepSpacing {
        case .leading:
            timesteps = (0..<steps).reversed().map { $0 * (count / steps) + configuration.stepsOffset }
        case .linspace:
            let stride = Double(count - 1) / Double(max(steps - 1, 1))
            timesteps = (0..<steps).reversed().map { Int((Double($0) * stride).rounded(.toNearestOrEven)) }
        case .trailing:
            // numpy.arange adds a rounded difference, which decides ties.
            let difference = (Double(count) - Double(count) / Double(steps)) - Double(count)
            timesteps = (0..<steps).map { Int((Double(count) + Double($0) * difference).rounded(.toNearestOrEven)) - 1 }
        }
        for (timestep, next) in zip(timesteps, timesteps.dropFirst().map(Optional.some) + [nil]) {
            guard timestep < count, timestep > next ?? -1 else {
                throw .timestepOutOfRange(timestep: timestep, next: next, trainTimesteps: count)
            }
        }
        return timesteps
    }
}
