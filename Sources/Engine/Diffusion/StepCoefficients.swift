/// One step of any sampler as numbers, computed once by whoever plans; applying them is the same arithmetic for every sampler, prediction type
/// and schedule, with no division, hence well-defined where nothing of the image is left.
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
