/// Sums from which a mean and a standard deviation follow; those of parts add up to those of the whole, in whatever
/// order is fixed.
public struct Moments: Sendable, Hashable {
    public var count = 0
    public var sum = 0.0
    public var sumOfSquares = 0.0

    public init() {}

    public init(_ values: Span<Float>) {
        count = values.count
        for i in 0..<values.count {
            let value = Double(values[i])
            sum += value
            sumOfSquares += value * value
        }
    }

    public static func + (a: Moments, b: Moments) -> Moments {
        var result = a
        result.count += b.count
        result.sum += b.sum
        result.sumOfSquares += b.sumOfSquares
        return result
    }

    /// With Bessel's correction, as `torch.std`; NaN for fewer than two values.
    public var standardDeviation: Double {
        guard count > 1 else { return .nan }
        return (max(sumOfSquares - sum * sum / Double(count), 0) / Double(count - 1)).squareRoot()
    }
}

/// Terms that are added to the model's raw prediction.
public enum Guidance {
    /// Classifier-free guidance, Ho and Salimans 2022 (arXiv 2207.12598) in the form of diffusers: negative + scale
    /// (positive - negative).
    public static func classifierFree(
        positive: Span<Float>, negative: Span<Float>, scale: Float, into guided: inout MutableSpan<Float>
    ) {
        let count = positive.count
        precondition(negative.count == count && guided.count == count)
        for i in 0..<count { guided[i] = negative[i] + scale * (positive[i] - negative[i]) }
    }

    /// The factor by which guidance is scaled back to the deviation of the positive prediction: section 3.4 of arXiv
    /// 2305.08891, equations 14 to 16.
    ///
    /// The deviations are those of the whole canvas, or tiles would differ in gain; hence moments, not values, come in.
    /// - Parameter phi: between none (0) and all (1) of the correction; the paper's choice is 0.7.
    /// - Returns: 1 where the guided prediction has no deviation.
    public static func rescaleFactor(positive: Moments, guided: Moments, phi: Float) -> Float {
        let deviation = guided.standardDeviation
        guard deviation > 0 else { return 1 }
        return Float(Double(phi) * positive.standardDeviation / deviation + (1 - Double(phi)))
    }

    /// Multiplies a guided prediction by its rescale factor.
    public static func rescale(_ guided: inout MutableSpan<Float>, by factor: Float) {
        for i in 0..<guided.count { guided[i] *= factor }
    }
}
