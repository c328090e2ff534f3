/// Ho, Jain and Abbeel 2020 (arXiv 2006.11239), equation 7. Matches `step` of diffusers' `DDPMScheduler`.
public struct DDPM: Sampler {
    public static let name = "ddpm"

    public init() {}

    public init(_ options: SamplerOptions) throws(NoiseScheduleError) {
        guard options.eta == 0 else { throw .impossibleEta(Float(options.eta)) }
    }

    public func next(_ transition: SamplerTransition) -> NextSample {
        let alpha = transition.alphaCumprod, nextAlpha = transition.nextAlphaCumprod ?? 1
        let beta = 1 - alpha / nextAlpha
        let variance = transition.variance == .small ? (1 - nextAlpha) / (1 - alpha) * beta : beta
        return NextSample(
            fromOriginal: nextAlpha.squareRoot() * beta / (1 - alpha),
            direct: LinearForm((1 - beta).squareRoot() * (1 - nextAlpha) / (1 - alpha), 0),
            noise: transition.timestep > 0 ? variance.squareRoot() : 0)
    }
}

extension Sampler where Self == DDPM {
    public static var ddpm: DDPM { DDPM() }
}
