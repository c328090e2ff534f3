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
    public func plan(_ sampler: some Sampler, steps: Int) throws(NoiseScheduleError) -> [SamplerStep] {
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
    public func step(_ sampler: some Sampler, from timestep: Int, to next: Int?) throws(NoiseScheduleError)
        -> StepCoefficients
    {
        guard alphasCumprod.indices.contains(timestep), next.map({ (0..<timestep).contains($0) }) ?? true else {
            throw .timestepOutOfRange(timestep: timestep, next: next, trainTimesteps: configuration.trainTimesteps)
        }
        let alpha = alphasCumprod[timestep]
        let (signal, sigma) = (alpha.squareRoot(), (1 - alpha).squareRoot())

        // x_0 and epsilon as sums of x_t and the model's output.
        let original, epsilon: LinearForm
        switch configuration.predictionType {
        case .epsilon:
            guard alpha > 0 else { throw .epsilonAtZeroSNR(timestep: timestep) }
            original = LinearForm(1 / signal, -sigma / signal)
            epsilon = LinearForm(0, 1)
        case .velocity:
            original = LinearForm(signal, -sigma)
            epsilon = LinearForm(sigma, signal)
        case .sample:
            original = LinearForm(0, 1)
            epsilon = LinearForm(1 / sigma, -signal / sigma)
        }

        let next = sampler.next(
            SamplerTransition(
                timestep: timestep, alphaCumprod: alpha, nextAlphaCumprod: next.map { alphasCumprod[$0] },
                finalAlphaCumprod: configuration.finalAlphaIsOne ? 1 : alphasCumprod[0],
                variance: configuration.variance, epsilon: epsilon))
        let clipped = configuration.clipRange != nil
        let sum = clipped ? next.direct : next.direct + original * next.fromOriginal
        return StepCoefficients(
            originalFromSample: Float(original.sample), originalFromPrediction: Float(original.prediction),
            clipRange: configuration.clipRange.map { Float($0) },
            nextFromOriginal: clipped ? Float(next.fromOriginal) : 0,
            nextFromSample: Float(sum.sample), nextFromPrediction: Float(sum.prediction), noise: Float(next.noise))
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

    /// Computes the step's estimate of x_0.
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
