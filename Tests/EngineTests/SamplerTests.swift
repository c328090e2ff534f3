import Engine
import Foundation
import Testing

private func schedule(
    _ type: NoiseScheduleConfiguration.PredictionType, zero: Bool = false, clip: Double? = nil,
    variance: NoiseScheduleConfiguration.Variance = .small
) throws -> NoiseSchedule {
    var configuration = NoiseScheduleConfiguration()
    configuration.betaSchedule = .scaledLinear
    (configuration.betaStart, configuration.betaEnd) = (0.00085, 0.012)
    configuration.predictionType = type
    configuration.zeroTerminalSNR = zero
    configuration.timestepSpacing = .trailing
    configuration.clipRange = clip
    configuration.variance = variance
    return try NoiseSchedule(configuration)
}

private func normals(_ count: Int, seed: UInt64) -> [Float] {
    var values = [Float](repeating: 0, count: count)
    var span = values.mutableSpan
    Noise.fill(
        &span, window: Rect(y: 0, x: 0, height: 1, width: count), channels: 1, seed: seed, field: NoiseField(.initial))
    return values
}

private func apply(_ step: StepCoefficients, _ sample: [Float], _ prediction: [Float], _ noise: [Float]) -> [Float] {
    var next = [Float](repeating: .nan, count: sample.count)
    var span = next.mutableSpan
    step.apply(sample: sample.span, prediction: prediction.span, noise: noise.span, into: &span)
    return next
}

private func largestDifference(_ a: [Float], _ b: [Float]) -> Float {
    zip(a, b).map { abs($0 - $1) }.max() ?? 0
}

/// The output of a network that knows x_0 and the noise.
private func perfect(_ schedule: NoiseSchedule, _ timestep: Int, _ sample: [Float], original: [Float]) -> [Float] {
    let alpha = schedule.alphasCumprod[timestep]
    let (a, s) = (alpha.squareRoot(), (1 - alpha).squareRoot())
    return zip(sample, original).map { x, x0 in
        let epsilon = (Double(x) - a * Double(x0)) / s
        return switch schedule.configuration.predictionType {
        case .epsilon: Float(epsilon)
        case .velocity: Float(a * epsilon - s * Double(x0))
        case .sample: x0
        }
    }
}

@Suite struct SamplerTests {
    static let samplers: [any Sampler] = [DDIM(eta: 0), DDIM(eta: 0.3), DDIM(eta: 1), DDPM()]

    @Test(
        """
        with a perfect network every sampler ends at the image, whatever the prediction, the schedule and the clipping
        """,
        arguments: samplers, NoiseScheduleConfiguration.PredictionType.allCases)
    func perfectNetwork(sampler: any Sampler, type: NoiseScheduleConfiguration.PredictionType) throws {
        let original = normals(256, seed: 1).map { max(-1, min(1, $0)) }
        for zero in [false, true] where !(zero && type == .epsilon) {
            for clip in [nil, 1.0] {
                let schedule = try schedule(type, zero: zero, clip: clip)
                for steps in [1, 4, 25] {
                    var sample = normals(256, seed: 2)
                    for (index, step) in try schedule.plan(sampler, steps: steps).enumerated() {
                        let output = perfect(schedule, step.timestep, sample, original: original)
                        sample = apply(step.coefficients, sample, output, normals(256, seed: UInt64(10 + index)))
                    }
                    #expect(largestDifference(sample, original) < 1e-4)
                }
            }
        }
    }

    @Test("DDIM with eta 1 is DDPM")
    func etaOne() throws {
        for type in NoiseScheduleConfiguration.PredictionType.allCases {
            let schedule = try schedule(type)
            for (ddim, ddpm) in zip(try schedule.plan(.ddim(eta: 1), steps: 20), try schedule.plan(.ddpm, steps: 20)) {
                let (a, b) = (ddim.coefficients, ddpm.coefficients)
                #expect(abs(a.nextFromSample - b.nextFromSample) < 1e-6)
                #expect(abs(a.nextFromPrediction - b.nextFromPrediction) < 1e-6)
                #expect(abs(a.noise - b.noise) < 1e-6)
            }
        }
    }

    @Test("a step keeps the variance that the schedule has at its end", arguments: samplers)
    func variance(sampler: any Sampler) throws {
        // With x_0 and epsilon independent of variance 1, so is every x_t.
        let schedule = try schedule(.velocity, zero: true)
        for step in try schedule.plan(sampler, steps: 10).dropLast() {
            let alpha = schedule.alphasCumprod[step.timestep]
            let (a, s) = (alpha.squareRoot(), (1 - alpha).squareRoot())
            let c = step.coefficients
            let fromOriginal = Double(c.nextFromSample) * a - Double(c.nextFromPrediction) * s
            let fromEpsilon = Double(c.nextFromSample) * s + Double(c.nextFromPrediction) * a
            #expect(abs(fromOriginal * fromOriginal + fromEpsilon * fromEpsilon + Double(c.noise * c.noise) - 1) < 1e-5)
        }
    }

    @Test("clipping holds x_0 within its range and changes nothing where x_0 is inside", arguments: samplers)
    func clipping(sampler: any Sampler) throws {
        let (sample, output, noise) = (normals(512, seed: 3), normals(512, seed: 4), normals(512, seed: 5))
        for type in NoiseScheduleConfiguration.PredictionType.allCases {
            for step in [399, 49] {
                let next = step == 399 ? 349 : nil
                let free = try schedule(type).step(sampler, from: step, to: next)
                let tight = try schedule(type, clip: 0.5).step(sampler, from: step, to: next)
                let wide = try schedule(type, clip: 1000).step(sampler, from: step, to: next)
                var original = [Float](repeating: 0, count: 512)
                var span = original.mutableSpan
                tight.original(sample: sample.span, prediction: output.span, into: &span)
                #expect(original.contains { abs($0) == 0.5 } && original.allSatisfy { abs($0) <= 0.5 })
                let unclipped = apply(free, sample, output, noise)
                #expect(largestDifference(apply(wide, sample, output, noise), unclipped) < 2e-5)
                for (index, value) in apply(tight, sample, output, noise).enumerated() {
                    #expect(
                        (abs(value - unclipped[index]) < 2e-5) == (abs(original[index]) < 0.5)
                            || abs(original[index]) > 0.4999)
                }
            }
        }
    }

    @Test("where nothing of the image is left, epsilon is a named error and the others are finite")
    func zeroSNR() throws {
        #expect(throws: NoiseScheduleError.epsilonAtZeroSNR(timestep: 999)) {
            try schedule(.epsilon, zero: true).plan(.ddpm, steps: 4)
        }
        for type in [NoiseScheduleConfiguration.PredictionType.velocity, .sample] {
            for sampler in Self.samplers {
                let step = try schedule(type, zero: true).step(sampler, from: 999, to: 749)
                let next = apply(step, normals(64, seed: 1), normals(64, seed: 2), normals(64, seed: 3))
                #expect(next.allSatisfy { $0.isFinite })
            }
        }
    }

    @Test("the large variance is beta, and the last timestep adds none")
    func largeVariance() throws {
        let large = try schedule(.epsilon, variance: .large)
        let beta = 1 - large.alphasCumprod[499] / large.alphasCumprod[449]
        #expect(abs(Double(try large.step(.ddpm, from: 499, to: 449).noise) - beta.squareRoot()) < 1e-7)
        #expect(try large.step(.ddpm, from: 0, to: nil).noise == 0)
    }

    @Test("DDIM may end at the alpha of timestep 0")
    func finalAlpha() throws {
        var configuration = NoiseScheduleConfiguration()
        configuration.clipRange = nil
        configuration.finalAlphaIsOne = false
        let schedule = try NoiseSchedule(configuration)
        let step = try schedule.step(.ddim(eta: 0), from: 100, to: nil)
        let towards0 = try schedule.step(.ddim(eta: 0), from: 100, to: 0)
        #expect(step == towards0)
    }

    @Test("impossible steps are named errors")
    func impossible() throws {
        let schedule = try schedule(.velocity)
        for (timestep, next) in [(1000, 500), (-1, nil), (5, 5), (5, 6), (5, -1), (.max, nil), (.min, .min)]
            as [(Int, Int?)]
        {
            #expect(throws: NoiseScheduleError.timestepOutOfRange(timestep: timestep, next: next, trainTimesteps: 1000))
            {
                try schedule.step(.ddpm, from: timestep, to: next)
            }
        }
        for eta in [-0.1, 1.5, Float.infinity] {
            #expect(throws: NoiseScheduleError.impossibleEta(eta)) { try DDIM(SamplerOptions(eta: Double(eta))) }
        }
        #expect(throws: NoiseScheduleError.self) { try DDIM(SamplerOptions(eta: .nan)) }
        #expect(throws: NoiseScheduleError.self) { try DDPM(SamplerOptions(eta: 0.5)) }
    }
}
