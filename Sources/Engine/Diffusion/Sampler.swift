/// How x_t becomes the next sample.
public enum SamplerKind: Sendable, Hashable {
    /// Song, Meng and Ermon 2020 (arXiv 2010.02502), equations 12 and 16; eta 0 is deterministic, 1 adds as much noise
    /// as DDPM.
    case ddim(eta: Float)
    /// Ho, Jain and Abbeel 2020 (arXiv 2006.11239), equation 7.
    case ddpm
}

/// One step of any sampler as numbers, computed once by whoever plans; applying them is the same arithmetic for every
/// sampler, prediction type and schedule, with no division, hence well-defined where nothing of the image is left.
public struct StepCoefficients: Sendable, Hashable {
    /// x_0 = originalFromSample x_t + originalFromPrediction (model output).
    public var originalFromSample, originalFromPrediction: Float
    /// Where x_0 is clipped to -clipRange ... clipRange; nil for nowhere.
    public var clipRange: Float?
    /// next = nextFromOriginal x_0 + nextFromSample x_t + nextFromPrediction (model output) + noise z.
    ///
    /// Without clipping x_0 is a sum of the other two, so `nextFromOriginal` is 0 and x_0 need not be computed.
    public var nextFromOriginal, nextFromSample, nextFromPrediction, noise: Float

    public init(
        originalFromSample: Float, originalFromPrediction: Float, clipRange: Float?,
        nextFromOriginal: Float, nextFromSample: Float, nextFromPrediction: Float, noise: Float
    ) {
        self.originalFromSample = originalFromSample
        self.originalFromPrediction = originalFromPrediction
        self.clipRange = clipRange
        self.nextFromOriginal = nextFromOriginal
        self.nextFromSample = nextFromSample
        self.nextFromPrediction = nextFromPrediction
        self.noise = noise
    }
}

/// One step of the sampler's loop.
public struct SamplerStep: Sendable, Hashable {
    /// The model's t.
    public var timestep: Int
    public var coefficients: StepCoefficients
}

extension NoiseSchedule {
    /// The whole loop: `steps` timesteps and what is done at each.
    /// - Throws: `NoiseScheduleError`.
    public func plan(_ sampler: SamplerKind, steps: Int) throws(NoiseScheduleError) -> [SamplerStep] {
        let timesteps = try timesteps(steps: steps)
        var plan: [SamplerStep] = []
        for (index, timestep) in timesteps.enumerated() {
            let next = index + 1 < timesteps.count ? timesteps[index + 1] : nil
            plan.append(SamplerStep(timestep: timestep, coefficients: try step(sampler, from: timestep, to: next)))
        }
        return plan
    }

    /// The step from timestep `timestep` to `next`, or to the finished image where `next` is nil. Computed in double
    /// precision.
    ///
    /// Matches `step` of diffusers' `DDIMScheduler` and `DDPMScheduler` where their next timestep, t - T / steps
    /// rounded down, is the next of the list, as it is when steps divides T; elsewhere the list's own next is the right
    /// one. Clipping included (DDIM's direction uses the epsilon from before clipping).
    /// - Throws: `NoiseScheduleError`.
    public func step(_ sampler: SamplerKind, from timestep: Int, to next: Int?) throws(NoiseScheduleError)
        -> StepCoefficients
    {
        guard alphasCumprod.indices.contains(timestep), next.map({ (0..<timestep).contains($0) }) ?? true else {
            throw .timestepOutOfRange(timestep: timestep, next: next, trainTimesteps: configuration.trainTimesteps)
        }
        let alpha = alphasCumprod[timestep]
        let (signal, sigma) = (alpha.squareRoot(), (1 - alpha).squareRoot())

        // x_0 and epsilon as sums of x_t and the model's output.
        let original, epsilon: Pair
        switch configuration.predictionType {
        case .epsilon:
            guard alpha > 0 else { throw .epsilonAtZeroSNR(timestep: timestep) }
            original = Pair(1 / signal, -sigma / signal)
            epsilon = Pair(0, 1)
        case .velocity:
            original = Pair(signal, -sigma)
            epsilon = Pair(sigma, signal)
        case .sample:
            original = Pair(0, 1)
            epsilon = Pair(1 / sigma, -signal / sigma)
        }

        // next = fromOriginal x_0 + direct + noise z
        let fromOriginal, noise: Double
        let direct: Pair
        switch sampler {
        case .ddim(let eta):
            guard (0...1).contains(eta) else { throw .impossibleEta(eta) }
            let nextAlpha = next.map { alphasCumprod[$0] } ?? (configuration.finalAlphaIsOne ? 1 : alphasCumprod[0])
            let variance = (1 - nextAlpha) / (1 - alpha) * (1 - alpha / nextAlpha)
            noise = Double(eta) * max(variance, 0).squareRoot()
            fromOriginal = nextAlpha.squareRoot()
            direct = epsilon * max(1 - nextAlpha - noise * noise, 0).squareRoot()
        case .ddpm:
            let nextAlpha = next.map { alphasCumprod[$0] } ?? 1
            let beta = 1 - alpha / nextAlpha
            fromOriginal = nextAlpha.squareRoot() * beta / (1 - alpha)
            direct = Pair((1 - beta).squareRoot() * (1 - nextAlpha) / (1 - alpha), 0)
            let variance = configuration.variance == .small ? (1 - nextAlpha) / (1 - alpha) * beta : beta
            noise = timestep > 0 ? variance.squareRoot() : 0
        }

        let clipped = configuration.clipRange != nil
        let sum = clipped ? direct : direct + original * fromOriginal
        return StepCoefficients(
            originalFromSample: Float(original.sample), originalFromPrediction: Float(original.prediction),
            clipRange: configuration.clipRange.map { Float($0) },
            nextFromOriginal: clipped ? Float(fromOriginal) : 0,
            nextFromSample: Float(sum.sample), nextFromPrediction: Float(sum.prediction), noise: Float(noise))
    }

    /// A sum of x_t and the model's output.
    private struct Pair {
        var sample, prediction: Double

        init(_ sample: Double, _ prediction: Double) { (self.sample, self.prediction) = (sample, prediction) }
        static func + (a: Pair, b: Pair) -> Pair { Pair(a.sample + b.sample, a.prediction + b.prediction) }
        static func * (a: Pair, factor: Double) -> Pair { Pair(a.sample * factor, a.prediction * factor) }
    }
}

extension StepCoefficients {
    /// Applies the step to every element. Each product and sum is rounded by itself, left to right, so the bits are the
    /// same on every processor.
    /// - Parameters:
    ///   - sample: x_t
    ///   - prediction: the model's output
    ///   - noise: standard normals; may be empty where `self.noise` is 0
    ///   - next: receives as many elements as `sample` has, from `start` on
    public func apply(
        sample: Span<Float>, prediction: Span<Float>, noise normals: Span<Float>, into next: inout MutableSpan<Float>,
        at start: Int = 0
    ) {
        let count = sample.count
        precondition(prediction.count == count && (normals.count == count || noise == 0 && normals.isEmpty))
        precondition(start >= 0 && count <= next.count - start)
        if clipRange == nil {
            for i in 0..<count { next[start &+ i] = nextFromSample * sample[i] + nextFromPrediction * prediction[i] }
        } else {
            for i in 0..<count {
                let original = original(sample[i], prediction[i])
                next[start &+ i] =
                    nextFromOriginal * original + nextFromSample * sample[i] + nextFromPrediction * prediction[i]
            }
        }
        if noise != 0 {
            for i in 0..<count { next[start &+ i] += noise * normals[i] }
        }
    }

    /// What the step takes x_0 to be.
    public func original(sample: Span<Float>, prediction: Span<Float>, into original: inout MutableSpan<Float>) {
        let count = sample.count
        precondition(prediction.count == count && original.count == count)
        for i in 0..<count { original[i] = self.original(sample[i], prediction[i]) }
    }

    @inline(__always)
    private func original(_ sample: Float, _ prediction: Float) -> Float {
        let original = originalFromSample * sample + originalFromPrediction * prediction
        guard let clipRange else { return original }
        return min(max(original, -clipRange), clipRange)
    }
}
