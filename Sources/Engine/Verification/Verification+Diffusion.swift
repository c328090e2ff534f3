// Cases without a network.
extension Verification {
    // MARK: guidance-rescale

    /// Predictions are batch x channels x height x width; each image of the batch has its own deviation.
    func guidance() throws -> (String) throws -> [Double] {
        let positive = try file.tensor("in.pos")
        let negative = try file.tensor("in.neg", shape: positive.shape)
        guard let batch = positive.shape.first, batch > 0, !positive.values.isEmpty else {
            throw VerificationError.wrongShape(
                file: file.url.path, tensor: "in.pos", shape: positive.shape,
                expected: "batch x channels x height x width")
        }
        let size = positive.values.count / batch
        return { name in
            guard let match = name.wholeMatch(of: /out\.(?:cfg|rescaled_(?<phi>[0-9.]+))/),
                let phi = Float(match.phi ?? "0")
            else {
                throw unknown(name)
            }
            return (0..<batch).flatMap { image in
                let range = image * size..<(image + 1) * size
                let positive = positive.values.span.extracting(range)
                var guided = [Float](repeating: 0, count: size)
                var span = guided.mutableSpan
                Guidance.classifierFree(
                    positive: positive, negative: negative.span.extracting(range), scale: 7.5, into: &span)
                let factor = Guidance.rescaleFactor(positive: Moments(positive), guided: Moments(span.span), phi: phi)
                Guidance.rescale(&span, by: factor)
                return guided.map { Double($0) }
            }
        }
    }

    // MARK: schedules

    /// The settings that make_reference.py gives its schedulers.
    private static func configuration(_ betas: NoiseScheduleConfiguration.BetaSchedule) -> NoiseScheduleConfiguration {
        var configuration = NoiseScheduleConfiguration()
        configuration.betaSchedule = betas
        if betas == .scaledLinear { (configuration.betaStart, configuration.betaEnd) = (0.00085, 0.012) }
        configuration.clipRange = nil
        return configuration
    }

    func schedules() throws -> (String) throws -> [Double] {
        let sample = try file.tensor("in.sample")
        let prediction = try file.tensor("in.model_output", shape: sample.shape)
        let noise = try file.tensor("in.noise", shape: sample.shape)
        return { name in
            if let match = name.wholeMatch(of: /out\.alphas_cumprod\.(\w+)\.(plain|ztsnr)/),
                let betas = NoiseScheduleConfiguration.BetaSchedule(rawValue: String(match.1))
            {
                var configuration = Self.configuration(betas)
                configuration.zeroTerminalSNR = match.2 == "ztsnr"
                return try NoiseSchedule(configuration).alphasCumprod
            }
            if let match = name.wholeMatch(of: /out\.timesteps\.(?:ddim|ddpm)\.(\w+)\.([0-9]+)/),
                let steps = Int(match.2),
                let spacing = NoiseScheduleConfiguration.TimestepSpacing(rawValue: String(match.1))
            {
                var configuration = Self.configuration(.scaledLinear)
                configuration.timestepSpacing = spacing
                configuration.stepsOffset = spacing == .leading ? 1 : 0
                return try NoiseSchedule(configuration).timesteps(steps: steps).map { Double($0) }
            }
            if let match = name.wholeMatch(
                of:
                    #/
                    out\.(ddim|ddim_x0|ddpm)\.(epsilon|v_prediction|sample)
                    (?:\.(plain|ztsnr)\.eta([0-9.]+))?\.t([0-9]+)
                    /#
            ),
                let type = NoiseScheduleConfiguration.PredictionType(rawValue: String(match.2)),
                let eta = Float(match.4 ?? "0"), let timestep = Int(match.5)
            {
                var configuration = Self.configuration(.scaledLinear)
                configuration.timestepSpacing = .trailing
                configuration.predictionType = type
                configuration.zeroTerminalSNR = match.3 == "ztsnr"
                let schedule = try NoiseSchedule(configuration)
                let next = try schedule.timesteps(steps: 20).first { $0 < timestep }
                let step =
                    try match.1 == "ddpm"
                    ? schedule.step(.ddpm, from: timestep, to: next)
                    : schedule.step(.ddim(eta: eta), from: timestep, to: next)
                var result = [Float](repeating: 0, count: sample.values.count)
                var span = result.mutableSpan
                if match.1 == "ddim_x0" {
                    step.original(sample: sample.values.span, prediction: prediction.span, into: &span)
                } else {
                    step.apply(sample: sample.values.span, prediction: prediction.span, noise: noise.span, into: &span)
                }
                return result.map { Double($0) }
            }
            throw unknown(name)
        }
    }

    // MARK: upsample-guidance

    /// At timestep 700 with factor 2 and the betas of latent diffusion; in.eps_low is the model's answer to
    /// out.low_input.
    func upsampleGuidance() -> (String) throws -> [Double] {
        { name in
            let schedule = try NoiseSchedule(Self.configuration(.scaledLinear))
            if let match = name.wholeMatch(of: /out\.(tau|power)\.([1-9][0-9]?)/), let factor = Int(match.2) {
                let guidance = UpsampleGuidance(factor: factor)
                return match.1 == "tau"
                    ? guidance.timesteps(schedule.alphasCumprod).map { Double($0) }
                    : schedule.alphasCumprod.map(guidance.power)
            }
            let guidance = UpsampleGuidance(factor: 2)
            if name == "out.low_input" {
                return try images("in.x").flatMap { sample in
                    try requireEven(sample, "in.x")
                    let low = Activation(height: sample.height / 2, width: sample.width / 2, channels: sample.channels)
                    guidance.lowInput(sample, alphaCumprod: schedule.alphasCumprod[700], into: low)
                    return planar(low, channels: 0..<low.channels)
                }
            }
            guard let match = name.wholeMatch(of: /out\.eps_guided_([0-9.]+)/), let weight = Float(match.1) else {
                throw unknown(name)
            }
            let low = try images("in.eps_low")
            return try zip(images("in.eps_high"), low).flatMap { prediction, low in
                try requireEven(prediction, "in.eps_high")
                guard
                    (low.height * 2, low.width * 2, low.channels) == (
                        prediction.height, prediction.width, prediction.channels
                    )
                else {
                    throw VerificationError.wrongShape(
                        file: file.url.path, tensor: "in.eps_low", shape: [low.channels, low.height, low.width],
                        expected: "half of in.eps_high")
                }
                guidance.guide(prediction, low: low, weight: weight, workspace: Workspace())
                return planar(prediction, channels: 0..<prediction.channels)
            }
        }
    }

    private func requireEven(_ image: Activation, _ tensor: String) throws {
        guard image.height % 2 == 0, image.width % 2 == 0 else {
            throw VerificationError.wrongShape(
                file: file.url.path, tensor: tensor, shape: [image.channels, image.height, image.width],
                expected: "of even height and width")
        }
    }
}
