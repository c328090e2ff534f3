import Engine
import Protocol

/// The state of a job: the canvas and what else comes in from tiles and goes out to them. It knows nothing of workers and messages.
package final class Rendering {
    private let plan: RenderPlan
    private let input: RGBImage
    private var canvas: Canvas
    private var blend: PredictionBlend?
    /// Embeddings of the prompts, and those of all of them side by side once they are there.
    private var embeddings: [Int: Frame] = [:]
    private var text: Frame?
    /// The sums that the present pass gathers, and those of the passes before.
    private var gathered: [Double] = []
    private var sums: [Double] = []
    /// Canvas high and wide: what stands between the autoencoder's layers at the latents' resolution and the others.
    private var features: Canvas?
    /// What was decoded: canvas times the autoencoder's factor.
    private var pixels: Canvas?

    package init(plan: RenderPlan, input: RGBImage) {
        self.plan = plan
        self.input = input
        canvas = Canvas(height: plan.tiling.canvasHeight, width: plan.tiling.canvasWidth, channels: plan.channels)
        blend = plan.tiling.writesDisjointCells ? nil : PredictionBlend(plan: plan)
        if plan.startsWithNoise { blend?.fillWithNoise(&canvas) }
    }

    /// The frames of a task, cut out of the present state.
    package func inputs(of work: Work, tile: Int) -> [Frame] {
        switch work {
        case .denoise(let request):
            var frames = request.sampleIsNoise ? [] : [canvas.cut(request.window)]
            switch request.conditioning {
            case .none: break
            case .enlarged(let enlargement): frames.append(cut(enlargement.source))
            case .noised: frames.append(cut(request.window))
            }
            if request.text != nil, let text { frames.append(text) }
            return frames
        case .encodeText:
            return [Frame(copying: Array((plan.latent?.prompts[tile] ?? "").utf8))]
        case .autoencode(let request):
            let values: Frame =
                switch (request.direction, request.layers) {
                case (.encode, .all), (.encode, .detail): cut(request.enlargement?.source ?? request.window)
                case (.encode, .trunk), (.decode, .detail): features?.cut(request.window) ?? Frame(zeros: 0)
                case (.decode, .all), (.decode, .trunk): canvas.cut(request.window)
                }
            return [values] + (request.givenNorms > 0 ? [Frame(doubles: Array(sums.prefix(request.sumCount(request.givenNorms))))] : [])
        }
    }

    /// Takes an answer of the right size.
    package func merge(_ answer: Frame, of work: Work, tile: Int) {
        switch work {
        case .denoise(let request):
            if blend != nil { blend?.add(answer, window: request.window) } else { canvas.write(answer, at: request.cell) }
        case .encodeText:
            embeddings[tile] = answer
        case .autoencode(let request):
            guard request.wantedNorms.isEmpty else {
                let sums = answer.doubles
                gathered = gathered.isEmpty ? sums : zip(gathered, sums).map { $0 + $1 }
                return
            }
            switch (request.direction, request.layers) {
            case (.encode, .all), (.encode, .trunk):
                canvas.write(answer, at: request.cell)
            case (.encode, .detail), (.decode, .trunk):
                if features == nil { features = Canvas(height: canvas.height, width: canvas.width, channels: request.featureChannels) }
                features?.write(answer, at: request.cell)
            case (.decode, .all), (.decode, .detail):
                if pixels == nil {
                    pixels = Canvas(height: canvas.height * request.factor, width: canvas.width * request.factor, channels: 3)
                }
                pixels?.write(answer, at: request.cell.scaled(by: request.factor))
            }
        }
    }

    /// Every tile of the phase is merged.
    package func finish(phase index: Int) {
        switch plan.phases[index] {
        case .denoise(let step):
            blend?.finish(step: step, grid: plan.tiling.grid(step: step), canvas: &canvas)
        case .encodeText:
            text = Frame(joining: embeddings.sorted { $0.key < $1.key }.map(\.value))
            embeddings = [:]
        case .encode(let pass):
            finish(pass, of: plan.latent?.encoding ?? [])
        case .decode(let pass):
            finish(pass, of: plan.latent?.decoding ?? [])
        }
    }

    private func finish(_ index: Int, of passes: [AutoencoderPass]) {
        let wanted = passes[index].wantedNorms
        if !wanted.isEmpty {
            // Passes gather the norms in their order.
            sums += gathered
            gathered = []
        }
        guard index == passes.count - 1 else { return }
        sums = []
        features = nil
    }

    /// The canvas: height x width x channels.
    package var latents: [Float] { canvas.withSpan { span in (0..<span.count).map { span[$0] } } }

    /// Rows of the finished picture, without padding, in [0, 1].
    package func finishedRows(_ rows: Range<Int>) throws -> [Float] {
        switch plan.model {
        case .superResolution(let superResolution):
            // The enlarged picture and the residual that the canvas holds at the end. The model's values are in [-1, 1], so a difference of
            // theirs counts half in [0, 1].
            let gain = 0.5 / superResolution.residualScale
            var result = try plan.enlargedRows(rows, input: input)
            canvas.withRows(rows, width: plan.outputWidth) { at, value in result[at] += gain * value }
            return result
        case .latent:
            var result = [Float](repeating: 0, count: rows.count * plan.outputWidth * 3)
            pixels?.withRows(rows, width: plan.outputWidth) { at, value in result[at] = value }
            return result
        }
    }

    /// A part of the input; where it reaches beyond (a canvas is padded), the nearest pixels.
    private func cut(_ rect: Rect) -> Frame {
        let input = input
        return Frame(floatCount: rect.area * 3) { frame in
            let inside = Rect(y: 0, x: 0, height: input.height, width: input.width).contains(rect)
            guard !inside else {
                RowCopy.copy(
                    from: input.pixels.span, start: (rect.y * input.width + rect.x) * 3, stride: input.width * 3,
                    to: &frame, start: 0, stride: rect.width * 3, rows: rect.height, count: rect.width * 3)
                return
            }
            var at = 0
            for y in rect.y..<rect.maxY {
                let row = min(y, input.height - 1) * input.width
                for x in rect.x..<rect.maxX {
                    let from = (row + min(x, input.width - 1)) * 3
                    for c in 0..<3 { frame[at + c] = input.pixels[from + c] }
                    at += 3
                }
            }
        }
    }
}
