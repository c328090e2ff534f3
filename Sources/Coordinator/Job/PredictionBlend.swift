import Engine
import Protocol

/// Blends the predictions of overlapping windows and takes the sampler's step for the whole canvas: explicit overlap
/// (MultiDiffusion, Mixture of Diffusers) and the published form of FSTD.
///
/// Where no window of a step lies, the prediction of the step before stays, as the published code has it.
struct PredictionBlend {
    private let weights: BlendWeights
    private let seed: UInt64
    private let sampler: StepSampler
    /// The blended predictions of the last step, by the numbers of the canvases that they go with, where a step may
    /// leave a strip as it was.
    private let predictions: [Canvas]
    /// The weighted sums of this step.
    private let sum: Canvas

    init(plan: RenderPlan, sum: Canvas, predictions: [Canvas]) {
        weights = plan.tiling.blendWeights
        seed = plan.seed
        sampler = plan.sampler
        self.sum = sum
        self.predictions = predictions
    }

    /// x_T, which these methods need before the first step.
    func fillWithNoise(_ canvas: Canvas) {
        var values = [Float](repeating: 0, count: canvas.width * canvas.channels)
        for y in 0..<canvas.height {
            var row = values.mutableSpan
            Noise.fill(
                &row, window: canvas.rows(y..<y + 1), channels: canvas.channels, seed: seed, field: NoiseField(.initial)
            )
            canvas.store(values.span, at: canvas.rows(y..<y + 1))
        }
    }

    /// Adds one window's prediction. Sums have a fixed order when the tiles come in one.
    func add(_ frame: Frame, window: Rect) {
        let rows = weights.weights(count: window.height)
        let columns = weights.weights(count: window.width)
        let channels = sum.channels
        var values = [Float](repeating: 0, count: window.width * channels)
        frame.withValues(of: Float.self) { frame in
            for y in 0..<window.height {
                let row = Rect(y: window.y + y, x: window.x, height: 1, width: window.width)
                var span = values.mutableSpan
                sum.load(row, into: &span)
                for x in 0..<window.width {
                    let weight = rows[y] * columns[x]
                    for c in x * channels..<(x + 1) * channels {
                        span[c] += weight * frame[y * window.width * channels + c]
                    }
                }
                sum.store(values.span, at: row)
            }
        }
    }

    /// Ends a step: x_{t-1} of the whole canvas from the blended prediction.
    /// - Parameters:
    ///   - canvas: x_t
    ///   - next: receives x_{t-1}; may be the same canvas
    ///   - beat: called after every row
    func finish(
        step: Int, phase: Int, grid: TileGrid, from canvas: Canvas, to next: Canvas, in history: CanvasHistory,
        beat: () -> Void
    ) {
        let rows = totals(grid.rows, length: canvas.height)
        let columns = totals(grid.columns, length: canvas.width)
        let (width, channels) = (canvas.width, canvas.channels)
        let coefficients = sampler[step].coefficients
        let stale = predictions.isEmpty ? nil : predictions[history.number(writtenBy: phase - 1)]
        let blended = predictions.isEmpty ? nil : predictions[history.number(writtenBy: phase)]
        let zeros = [Float](repeating: 0, count: width * channels)
        var (prediction, sums, sample, result) = (zeros, zeros, zeros, zeros)
        for y in 0..<canvas.height {
            let row = canvas.rows(y..<y + 1)
            do {
                var prediction = prediction.mutableSpan
                var sums = sums.mutableSpan
                stale?.load(row, into: &prediction)
                sum.load(row, into: &sums)
                for x in 0..<width {
                    let total = rows[y] * columns[x]
                    if total > 0 { for c in x * channels..<(x + 1) * channels { prediction[c] = sums[c] / total } }
                }
                var sample = sample.mutableSpan
                canvas.load(row, into: &sample)
            }
            sum.store(zeros.span, at: row)
            blended?.store(prediction.span, at: row)
            var target = result.mutableSpan
            coefficients.step(
                sample: sample.span, prediction: prediction.span, window: row, rect: row, channels: channels,
                seed: seed, step: step, into: &target)
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
