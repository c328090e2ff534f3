/// One step of a sampler in x_0 form (placeholder until the samplers are merged).
public struct StepCoefficients: Sendable, Hashable {
    /// x_0 = originalFromSample x_t + originalFromPrediction (model output).
    public var originalFromSample, originalFromPrediction: Float
    /// x_{t-1} = nextFromOriginal x_0 + nextFromSample x_t + noise z.
    public var nextFromOriginal, nextFromSample, noise: Float

    public init(
        originalFromSample: Float, originalFromPrediction: Float, nextFromOriginal: Float, nextFromSample: Float,
        noise: Float
    ) {
        self.originalFromSample = originalFromSample
        self.originalFromPrediction = originalFromPrediction
        self.nextFromOriginal = nextFromOriginal
        self.nextFromSample = nextFromSample
        self.noise = noise
    }
}
