import Foundation

/// Upsample guidance (arXiv 2404.01709): a sample m times larger than the model was trained for is kept consistent with
/// what the model says about the same sample made m times smaller, whose noise is then weaker: averaging m x m values
/// divides its variance by m squared.
public struct UpsampleGuidance: Sendable, Hashable {
    /// How many times larger, along an axis; at least 1.
    public let factor: Int

    /// - Precondition: factor is at least 1.
    public init(factor: Int) {
        precondition(factor >= 1)
        self.factor = factor
    }

    /// The timestep at which a sample of the trained size has the signal-to-noise ratio of the smaller sample at
    /// timestep t, for every t: the nearest of the integers, the lower one of two. The ratio grows with m squared, as
    /// in the code of the paper's appendix; its text has m.
    public func timesteps(_ alphasCumprod: [Double]) -> [Int] {
        // nothing is left of the image at zero terminal SNR
        let ratios = alphasCumprod.map { log(max($0, 1e-30) / (1 - $0)) }
        let gain = 2 * log(Double(factor))
        return ratios.map { ratio in
            var best = 0
            for timestep in ratios.indices where abs(ratio + gain - ratios[timestep]) < abs(ratio + gain - ratios[best])
            { best = timestep }
            return best
        }
    }

    /// P: what is left of the sample's power after the averaging, where the noise is independent and the image is
    /// smooth.
    public func power(_ alphaCumprod: Double) -> Double {
        alphaCumprod + (1 - alphaCumprod) / Double(factor * factor)
    }

    /// The model's second input beside the sample: the sample averaged over blocks of m x m and brought back to the
    /// power of a sample.
    /// - Parameters:
    ///   - sample: (height * m) x (width * m) x channels
    ///   - lowInput: height x width x channels
    public func lowInput(_ sample: Activation, alphaCumprod: Double, into lowInput: Activation) {
        let scale = Float(1 / power(alphaCumprod).squareRoot())
        average(sample, into: lowInput)
        var values = lowInput.mutableSpan
        for i in values.indices { values[i] *= scale }
    }

    /// Equation 4: prediction + weight U[low / m - D[prediction]], D averaging over blocks of m x m and U repeating,
    /// for predictions of noise.
    /// - Parameters:
    ///   - prediction: (height * m) x (width * m) x channels, guided in place
    ///   - low: what the model says about the low input at its timestep, height x width x channels
    ///   - weight: see `weight(timestep:of:theta:eta:)`
    public func guide(_ prediction: Activation, low: Activation, weight: Float, workspace: Workspace) {
        let mean = workspace.activation(height: low.height, width: low.width, channels: low.channels)
        average(prediction, into: mean)
        var values = prediction.mutableSpan
        let (low, averages, channels) = (low.span, mean.span, mean.channels)
        let scale = 1 / Float(factor)
        for y in 0..<prediction.height {
            for x in 0..<prediction.width {
                let block = (y / factor * mean.width + x / factor) * channels,
                    pixel = (y * prediction.width + x) * channels
                for c in 0..<channels { values[pixel + c] += weight * (low[block + c] * scale - averages[block + c]) }
            }
        }
    }

    /// w_t = theta where t >= (1 - eta) T, else 0: the late steps are left to the details. The paper's balanced setting
    /// is theta 1, eta 0.6; eta 1 for pixels.
    public static func weight(timestep: Int, of trainTimesteps: Int, theta: Float, eta: Double) -> Float {
        Double(timestep) >= (1 - eta) * Double(trainTimesteps) ? theta : 0
    }

    private func average(_ large: Activation, into small: Activation) {
        precondition(
            large.height == small.height * factor && large.width == small.width * factor
                && large.channels == small.channels)
        var to = small.mutableSpan
        let from = large.span, channels = large.channels
        let scale = 1 / Float(factor * factor)
        for y in 0..<small.height {
            for x in 0..<small.width {
                for c in 0..<channels {
                    var sum: Float = 0
                    for dy in 0..<factor {
                        for dx in 0..<factor {
                            sum += from[((y * factor + dy) * large.width + x * factor + dx) * channels + c]
                        }
                    }
                    to[(y * small.width + x) * channels + c] = sum * scale
                }
            }
        }
    }
}
