import Foundation

/// The settings of one file. Whatever changes the result is read or refused, never passed over.
struct Settings {
    let file: String
    let values: [String: JSON]

    func value<Value>(_ key: String, default missing: Value? = nil, _ supported: String, _ read: (JSON) -> Value?)
        throws -> Value
    {
        guard let value = values[key] else {
            if let missing { return missing }
            throw ModelFolderError.unsupportedSetting(file: file, key: key, value: "missing", supported: supported)
        }
        guard let result = read(value) else {
            throw ModelFolderError.unsupportedSetting(file: file, key: key, value: value.text, supported: supported)
        }
        return result
    }

    func choice<Value: RawRepresentable & CaseIterable>(_ key: String, default missing: Value? = nil) throws -> Value
    where Value.RawValue == String {
        try value(key, default: missing, Value.allCases.map(\.rawValue).joined(separator: " or ")) {
            $0.string.flatMap(Value.init)
        }
    }

    /// How a scheduler class of diffusers differs from the others in what a file may leave out. All train on the same
    /// noise and differ in how they sample, which here the job decides.
    private struct Scheduler {
        var spacing = NoiseScheduleConfiguration.TimestepSpacing.linspace
        var betas = (0.0001, 0.02)
        var betaSchedule = NoiseScheduleConfiguration.BetaSchedule.linear
        /// Whether x_0 is clipped; nil where the class cannot.
        var clips: Bool?
        var finalAlphaIsOne = true

        init?(_ className: String) {
            switch className {
            case "DDIMScheduler", "DDPMScheduler": (spacing, clips) = (.leading, true)
            case "PNDMScheduler": (spacing, finalAlphaIsOne) = (.leading, false)
            case "LCMScheduler":
                (spacing, clips, betas, betaSchedule) = (.leading, false, (0.00085, 0.012), .scaledLinear)
            case "HeunDiscreteScheduler": (betas, clips) = ((0.00085, 0.012), false)
            case "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler":
                betas = (0.00085, 0.012)
            case "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler",
                "DPMSolverMultistepScheduler",
                "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler":
                break
            default: return nil
            }
        }
    }

    /// Options of solvers, without effect on the noise. Files carry those of other classes along.
    private static let solverOptions: Set<String> = [
        "skip_prk_steps", "interpolation_type", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
        "use_lu_lambdas", "sigma_min",
        "sigma_max", "final_sigmas_type", "solver_order", "algorithm_type", "solver_type", "lower_order_final",
        "euler_at_final",
        "lambda_min_clipped", "predict_x0", "disable_corrector", "solver_p", "noise_sampler_seed", "time_shift_type",
        "flow_shift",
        "original_inference_steps", "timestep_scaling",
    ]

    func schedule() throws -> NoiseScheduleConfiguration {
        let scheduler = try value("_class_name", "DDIMScheduler or another one of diffusers' for discrete timesteps") {
            $0.string.flatMap(Scheduler.init)
        }
        _ = try value("thresholding", default: true, "false") { $0 == .bool(false) ? true : nil }
        _ = try value("trained_betas", default: true, "null, with a beta_schedule") { $0 == .null ? true : nil }
        _ = try value("predict_epsilon", default: true, "a prediction_type instead") { $0 == .bool(true) ? true : nil }
        _ = try value("timestep_type", default: true, "discrete") { $0 == .string("discrete") ? true : nil }

        var schedule = NoiseScheduleConfiguration()
        schedule.trainTimesteps = try value(
            "num_train_timesteps", default: schedule.trainTimesteps, "an integer", \.integer)
        schedule.betaSchedule = try choice("beta_schedule", default: scheduler.betaSchedule)
        schedule.betaStart = try value("beta_start", default: scheduler.betas.0, "a number", \.number)
        schedule.betaEnd = try value("beta_end", default: scheduler.betas.1, "a number", \.number)
        schedule.zeroTerminalSNR = try value(
            "rescale_betas_zero_snr", default: schedule.zeroTerminalSNR, "true or false", \.bool)
        schedule.predictionType = try choice("prediction_type", default: schedule.predictionType)
        schedule.timestepSpacing = try choice("timestep_spacing", default: scheduler.spacing)
        schedule.stepsOffset = try value("steps_offset", default: schedule.stepsOffset, "an integer", \.integer)
        let clips = try value("clip_sample", default: scheduler.clips ?? false, "true or false", \.bool)
        let range = try value("clip_sample_range", default: 1, "a number", \.number)
        schedule.clipRange = clips && scheduler.clips != nil ? range : nil
        schedule.finalAlphaIsOne = try value(
            "set_alpha_to_one", default: scheduler.finalAlphaIsOne, "true or false", \.bool)
        if values["variance_type"] != .null {
            schedule.variance = try choice("variance_type", default: schedule.variance)
        }

        try refuse(
            except: Self.solverOptions.union([
                "thresholding", "trained_betas", "predict_epsilon", "timestep_type", "num_train_timesteps",
                "beta_schedule", "beta_start", "beta_end",
                "rescale_betas_zero_snr", "prediction_type", "timestep_spacing", "steps_offset", "clip_sample",
                "clip_sample_range",
                "set_alpha_to_one", "variance_type",
                // Without effect unless thresholding; long gone from diffusers.
                "dynamic_thresholding_ratio", "sample_max_value", "tensor_format",
            ]))
        do {
            _ = try NoiseSchedule(schedule)
        } catch {
            throw ModelFolderError.impossibleSchedule(file: file, error)
        }
        return schedule
    }

    func superResolution(network: [String: JSON]) throws -> SuperResolutionConfiguration {
        func integer(_ range: ClosedRange<Int>) -> (JSON) -> Int? {
            { $0.integer.flatMap { range.contains($0) ? $0 : nil } }
        }
        _ = try value("task", "super-resolution") { $0 == .string("super-resolution") ? true : nil }
        let configuration = SuperResolutionConfiguration(
            scale: try value("scale", "an integer from 1 to 64", integer(1...64)),
            spaceToDepth: try value("space_to_depth", default: 1, "an integer from 1 to 64", integer(1...64)),
            residualScale: try value("residual_scale", "a number above 0") {
                $0.number.flatMap { $0 > 0 && $0 < 1e6 ? Float($0) : nil }
            },
            conditioning: try choice("conditioning"))
        try refuse(except: ["task", "scale", "space_to_depth", "residual_scale", "conditioning"])

        let residual = 3 * configuration.spaceToDepth * configuration.spaceToDepth
        let channels = [network["in_channels"]?.integer ?? 0, network["out_channels"]?.integer ?? 0]
        guard channels == [2 * residual, residual] else {
            throw ModelFolderError.wrongChannels(file: file, channels: channels, expected: [2 * residual, residual])
        }
        return configuration
    }

    /// Any other setting that is neither false nor null might mean something.
    func refuse(except known: Set<String>) throws {
        for (key, value) in values.sorted(by: { $0.key < $1.key }) where !known.contains(key) && !key.hasPrefix("_") {
            guard value == .null || value == .bool(false) else {
                throw ModelFolderError.unknownSetting(file: file, key: key)
            }
        }
    }
}
