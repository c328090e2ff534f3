import Engine

/// x_T over a whole canvas: where predictions are blended the sample has to be here before the first step.
struct InitialNoise: LocalWork {
    let channels: Int
    let seed: UInt64
    let stage: Int

    func run(reads: [Canvas], writes: [Canvas], beat: () -> Void) {
        let canvas = writes[0]
        var values = [Float](repeating: 0, count: canvas.width * channels)
        for y in 0..<canvas.height {
            let row = canvas.rows(y..<y + 1)
            var span = values.mutableSpan
            Noise.fill(
                &span, window: row, channels: channels, seed: seed,
                field: NoiseField(.initial, stage: UInt8(truncatingIfNeeded: stage)))
            canvas.store(values.span, at: row)
            beat()
        }
    }
}

/// The sampler's step of a whole canvas from the blended predictions of overlapping windows: explicit overlap
/// (MultiDiffusion, Mixture of Diffusers) and the published form of FSTD.
///
/// Where no window of a step lies, the prediction of the step before stays, as the published code has it.
struct BlendedStep: LocalWork {
    let grid: TileGrid
    let weights: BlendWeights
    let coefficients: StepCoefficients
    let step, stage: Int
    let seed: UInt64

    /// - Parameters:
    ///   - reads: the weighted sums, x_t and, where there is one, the blended prediction of the step before
    ///   - writes: x_{t-1} and, where there is one, the blended prediction
    func run(reads: [Canvas], writes: [Canvas], beat: () -> Void) {
        let (sum, canvas, next) = (reads[0], reads[1], writes[0])
        let former = reads.count > 2 ? reads[2] : nil, blended = writes.count > 1 ? writes[1] : nil
        let rows = totals(grid.rows, length: canvas.height)
        let columns = totals(grid.columns, length: canvas.width)
        let (width, channels) = (canvas.width, canvas.channels)
        let zeros = [Float](repeating: 0, count: width * channels)
        var (prediction, sums, sample, result) = (zeros, zeros, zeros, zeros)
        for y in 0..<canvas.height {
            let row = canvas.rows(y..<y + 1)
            do {
                var prediction = prediction.mutableSpan
                var sums = sums.mutableSpan
                former?.load(row, into: &prediction)
                sum.load(row, into: &sums)
                for x in 0..<width {
                    let total = rows[y] * columns[x]
                    if total > 0 {
                        for c in x * channels..<(x + 1) * channels { prediction[c] = sums[c] / total }
                    }
                }
                var sample = sample.mutableSpan
                canvas.load(row, into: &sample)
            }
            blended?.store(prediction.span, at: row)
            var target = result.mutableSpan
            coefficients.step(
                sample: sample.span, prediction: prediction.span, window: row, rect: row, channels: channels,
                seed: seed, stage: stage, step: step, into: &target)
            next.store(result.span, at: row)
            beat()
        }
    }

    /// The sum of the weights that lie on each position of an axis, in the order of the tiles.
    private func totals(_ axis: TileAxis, length: Int) -> [Float] {
        var totals = [Float](repeating: 0, count: length)
        for window in axis.windows {
            for (weight, position) in zip(weights.weights(count: window.count), window) { totals[position] += weight }
        }
        return totals
    }
}
