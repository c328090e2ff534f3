import Engine
import Testing

private typealias Configuration = NoiseScheduleConfiguration

@Suite struct ScheduleTests {
    @Test(
        "alphas_cumprod falls from nearly 1 and ends at 0 exactly with the rescale, above it without",
        arguments: NoiseScheduleConfiguration.BetaSchedule.allCases, [false, true])
    func falls(betas: NoiseScheduleConfiguration.BetaSchedule, zero: Bool) throws {
        var configuration = Configuration()
        configuration.betaSchedule = betas
        configuration.zeroTerminalSNR = zero
        for count in [2, 10, 1000] {
            configuration.trainTimesteps = count
            let alphas = try NoiseSchedule(configuration).alphasCumprod
            #expect(alphas.count == count)
            #expect(zip(alphas, alphas.dropFirst()).allSatisfy { $0 > $1 })
            #expect(alphas[0] < 1)
            #expect(zero ? alphas[count - 1] == 0 : alphas[count - 1] > 0)
        }
    }

    @Test(
        "any number of steps visits that many falling timesteps",
        arguments: NoiseScheduleConfiguration.TimestepSpacing.allCases)
    func timesteps(spacing: NoiseScheduleConfiguration.TimestepSpacing) throws {
        var configuration = Configuration()
        configuration.timestepSpacing = spacing
        let schedule = try NoiseSchedule(configuration)
        for steps in 1...1000 {
            let timesteps = try schedule.timesteps(steps: steps)
            #expect(timesteps.count == steps)
            #expect(zip(timesteps, timesteps.dropFirst()).allSatisfy { $0 > $1 })
            switch spacing {
            case .leading: #expect(timesteps.last == 0)
            case .linspace: #expect(timesteps.last == 0 && (timesteps[0] == 999 || steps == 1))
            case .trailing: #expect(timesteps.first == 999)
            }
        }
    }

    @Test("impossible numbers are named errors")
    func impossible() throws {
        func name(_ change: (inout NoiseScheduleConfiguration) -> Void) -> String {
            var configuration = Configuration()
            change(&configuration)
            do { _ = try NoiseSchedule(configuration) } catch { return caseName(error) }
            return ""
        }
        #expect(name { $0.trainTimesteps = 1 } == "impossibleTrainTimesteps")
        #expect(name { $0.trainTimesteps = .max } == "impossibleTrainTimesteps")
        #expect(name { $0.betaStart = 0 } == "impossibleBetas")
        #expect(name { $0.betaEnd = 1 } == "impossibleBetas")
        #expect(name { $0.betaEnd = .nan } == "impossibleBetas")
        #expect(name { $0.clipRange = -1 } == "impossibleClipRange")
        #expect(name { $0.stepsOffset = .max } == "impossibleStepsOffset")
        let schedule = try NoiseSchedule(Configuration())
        for steps in [0, -1, 1001, .max] {
            #expect(throws: NoiseScheduleError.impossibleStepCount(steps: steps, trainTimesteps: 1000)) {
                try schedule.timesteps(steps: steps)
            }
        }
        var offset = Configuration()
        offset.stepsOffset = 1
        let error = try #require(throws: NoiseScheduleError.self) { try NoiseSchedule(offset).timesteps(steps: 1000) }
        #expect(caseName(error) == "timestepOutOfRange")
    }
}
