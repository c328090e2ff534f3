/// Song, Meng and Ermon 2020 (arXiv 2010.02502), equations 12 and 16; eta 0 is deterministic, 1 adds as much noise as
/// DDPM. Matches `step` of diffusers' `DDIMScheduler`; its direction uses the epsilon from before clipping.
public struct DDIM: Sampler {
    public static let name = "ddim"

    public var eta: Float

    public init(eta: Float = 0) { self.eta = eta }

    public init(_ options: SamplerOptions) throws(NoiseScheduleError) {
        eta = Float(options.eta)
        guard (0...1).contains(eta) else { throw .impossibleEta(eta) }
    }

    public func next(_ transition: SamplerTransition) -> NextSample {
        let alpha = transition.alphaCumprod, nextAlpha = transition.nextAlphaCumprod ?? transition.finalAlphaCumprod
        let variance = (1 - nextAlpha) / (1 - alpha) * (1 - alpha / nextAlpha)
        let noise = Double(eta) * max(variance, 0).squareRoot()
        return NextSample(
            fromOriginal: nextAlpha.squareRoot(),
            direct: transition.epsilon * max(1 - nextAlpha - noise * noise, 0).squareRoot(), noise: noise)
    }
}

extension Sampler where Self == DDIM {
    public static func ddim(eta: Float) -> DDIM { DDIM(eta: eta) }
}
