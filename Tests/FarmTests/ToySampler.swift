import Engine

/// Goes to what the model takes the picture to be, and noises that to the next timestep: no part of the present noise
/// is kept.
struct Jump: Sampler {
    static let name = "jump"

    init(_ options: SamplerOptions) throws(NoiseScheduleError) {
        guard options.eta == 0 else { throw .impossibleEta(Float(options.eta)) }
    }

    func next(_ transition: SamplerTransition) -> NextSample {
        let alpha = transition.nextAlphaCumprod ?? 1
        return NextSample(
            fromOriginal: alpha.squareRoot(), direct: LinearForm(0, 0), noise: (1 - alpha).squareRoot())
    }
}
