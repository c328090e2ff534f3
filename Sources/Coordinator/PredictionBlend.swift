import Engine
import Protocol

/// Blends the predictions of overlapping windows and takes the sampler's step for the whole canvas: explicit overlap
/// (MultiDiffusion, Mixture of Diffusers) and the published form of FSTD.
///
/// Where no window of a step lies, the prediction of the step before stays, as the published code has it.
struct PredictionBlend: ~Copyable {
    private let weights: BlendWeights
    private let seed: UInt64
    private let sampler: StepSampler
    /// The blended prediction of the last step, and the weighted sums of this one.
    private var prediction: Canvas
    private var sum: Canvas

    init(plan: borrowing RenderPlan) {
        weights = plan.tiling.blendWeights
        seed = plan.seed
        sampler = plan.sampler
        prediction = Canvas(height: plan.tiling.canvasHeight, width: plan.tiling.canvasWidth, channels: plan.channels)
        sum = Canvas(height: plan.tiling.canvasHeight, width: plan.tiling.canvasWidth, channels: plan.channels)
    }

    static func bytes(canvasBytes: Int) -> Int { 2 * canvasBytes }

    /// x_T, which these methods need before the first step.
    func fillWithNoise(_ canvas: inout Canvas) {
        let (height, width, channels) = (canvas.height, canvas.width, canvas.channels)
        canvas.withValues { values in
            Noise.fill(
                &values, window: Rect(y: 0, x: 0, height: height, width: width), channels: channels, seed: seed,
                field: NoiseField(.initial))
        }
    }

    /// Adds one window's prediction. Sums have a fixed order when the tiles come in one.
    mutating func add(_ frame: Frame, window: Rect) {
        let rows = weights.weights(count: window.height)
        let columns = weights.weights(count: window.width)
        let (width, channels) = (sum.width, sum.channels)
        sum.withValues { sum in
            frame.withFloats { frame in
                for y in 0..<window.height {
                    for x in 0..<window.width {
                        let weight = rows[y] * columns[x]
                        let from = (y * window.width + x) * channels
                        let to = ((window.y + y) * width + window.x + x) * channels
                        for c in 0..<channels { sum[to + c] += weight * frame[from + c] }
                    }
                }
            }
        }
    }

    /// Ends a step: x_{t-1} of the whole canvas from the blended prediction.
    mutating func finish(step: Int, grid: TileGrid, canvas: inout Canvas) {
        let rows = totals(grid.rows, length: canvas.height)
        let columns = totals(grid.columns, length: canvas.width)
        let (height, width, channels) = (canvas.height, canvas.width, canvas.channels)
        sum.withValues { sum in
            prediction.withValues { prediction in
                for y in 0..<height {
                    for x in 0..<width {
                        let total = rows[y] * columns[x]
                        let at = (y * width + x) * channels
                        for c in at..<at + channels {
                            if total > 0 { prediction[c] = sum[c] / total }
                            sum[c] = 0
                        }
                    }
                }
            }
        }
        let (coefficients, seed) = (sampler[step].coefficients, seed)
        var next = [Float](repeating: 0, count: width * channels)
        canvas.withValues { values in
            prediction.withSpan { prediction in
                // Row by row, so that the canvas can be read and written.
                for y in 0..<height {
                    let row = Rect(y: y, x: 0, height: 1, width: width)
                    let range = y * width * channels..<(y + 1) * width * channels
                    var target = next.mutableSpan
                    coefficients.step(
                        sample: values.span.extracting(range), prediction: prediction.extracting(range), window: row, rect: row,
                        channels: channels, seed: seed, step: step, into: &target)
                    RowCopy.copy(
                        from: next.span, start: 0, stride: 0, to: &values, start: range.lowerBound, stride: 0, rows: 1, count: next.count)
                }
            }
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
