/// A sampler's whole loop over one canvas: timesteps, coefficients, and the step itself with the noise it adds.
///
/// Workers take a step for a tile's cell, whoever blends predictions takes it for the whole canvas; both get the same
/// bits.
public struct StepSampler: Sendable {
    private let plan: [SamplerStep]

    /// Weights of the image and of the noise in the sample that the loop begins with: x_T = signal x_0 + noise
    /// z.
    public let start: (signal: Float, noise: Float)

    /// - Parameter strength: the last part of the schedule's steps that is taken, above 0 to 1: image to image begins
    ///   in the middle, at step count - int(count * strength), as diffusers'
    ///   `StableDiffusionImg2ImgPipeline.get_timesteps` has it, but takes one step at least.
    /// - Throws: `NoiseScheduleError`.
    public init(schedule: NoiseScheduleConfiguration, sampler: some Sampler, steps: Int, strength: Double = 1) throws {
        let schedule = try NoiseSchedule(schedule)
        let taken = min(steps, max(1, Int(Double(steps) * strength)))
        plan = Array(try schedule.plan(sampler, steps: steps).suffix(taken))
        let alphaCumprod = schedule.alphasCumprod[plan[0].timestep]
        start = (Float(alphaCumprod.squareRoot()), Float((1 - alphaCumprod).squareRoot()))
    }

    /// Steps of the loop.
    public var count: Int { plan.count }

    public subscript(step: Int) -> SamplerStep { plan[step] }
}

extension StepCoefficients {
    /// Takes the step for `rect` of the canvas: x_t to x_{t-1}.
    ///
    /// - Parameters:
    ///   - sample: x_t of `window`, window.height x window.width x channels.
    ///   - prediction: the model's output, as large as `sample`.
    ///   - window: where `sample` and `prediction` lie in the canvas.
    ///   - rect: what to compute, inside `window`.
    ///   - next: receives rect.height x rect.width x channels, and may be longer.
    public func step(
        sample: Span<Float>, prediction: Span<Float>, window: Rect, rect: Rect, channels: Int, seed: UInt64,
        stage: Int = 0,
        step: Int, into next: inout MutableSpan<Float>
    ) {
        precondition(
            window.contains(rect) && sample.count == window.area * channels && next.count >= rect.area * channels)
        let count = rect.width * channels
        var normals = [Float](repeating: 0, count: noise == 0 ? 0 : count)
        for row in 0..<rect.height {
            if noise != 0 {
                var span = normals.mutableSpan
                Noise.fill(
                    &span, window: Rect(y: rect.y + row, x: rect.x, height: 1, width: rect.width), channels: channels,
                    seed: seed,
                    field: NoiseField(
                        .sampler, stage: UInt8(truncatingIfNeeded: stage), step: UInt16(truncatingIfNeeded: step)))
            }
            let from = ((rect.y - window.y + row) * window.width + rect.x - window.x) * channels
            apply(
                sample: sample.extracting(from..<from + count), prediction: prediction.extracting(from..<from + count),
                noise: normals.span, into: &next, at: row * count)
        }
    }
}
