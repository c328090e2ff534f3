import Engine
import Foundation
import Protocol

/// The state of a job: the canvas and what else comes in from tiles and goes out to them. It knows nothing of workers
/// and messages.
package final class Rendering {
    private let plan: RenderPlan
    private let input: InputImage
    /// Height x width x channels.
    private var history: CanvasHistory
    private var blend: PredictionBlend?
    /// Embeddings of the prompts, and those of all of them side by side once they are there.
    private var embeddings: [Int: Frame] = [:]
    private var text: Frame?
    /// The sums that the present pass gathers, and those of the passes before.
    private var gathered: [Double] = []
    private var sums: [Double] = []
    /// Canvas high and wide: what stands between the autoencoder's layers at the latents' resolution and the others.
    private var features: [AutoencodeRequest.Direction: Canvas] = [:]
    /// What was decoded: canvas times the autoencoder's factor.
    private let pixels: Canvas?

    /// Everything in memory.
    package convenience init(plan: RenderPlan, input: RGBImage) throws {
        try self.init(plan: plan, input: InputImage(input), stores: plan.stores(canvases: 1))
    }

    /// - Parameters:
    ///   - stores: of the plan
    ///   - checkpoint: what the phases before it have left in the storage
    /// - Throws: `StorageError`.
    package init(
        plan: RenderPlan, input: InputImage, stores: [RenderPlan.Store], storage: CanvasStorage = .memory,
        checkpoint: JobFolder.Checkpoint? = nil
    ) throws {
        self.plan = plan
        self.input = input
        var canvases: [String: Canvas] = [:]
        for store in stores {
            canvases[store.name] = try storage.canvas(
                store.name, store.element, height: store.height, width: store.width, channels: store.channels)
        }
        func numbered(_ name: (Int) -> String) -> [Canvas] { (0..<stores.count).compactMap { canvases[name($0)] } }
        history = CanvasHistory(numbered(RenderPlan.Store.canvas))
        features[.encode] = canvases[RenderPlan.Store.features(.encode)]
        features[.decode] = canvases[RenderPlan.Store.features(.decode)]
        pixels = canvases[RenderPlan.Store.pixels]
        blend = canvases[RenderPlan.Store.sum].map {
            PredictionBlend(plan: plan, sum: $0, predictions: numbered(RenderPlan.Store.prediction))
        }
        if let checkpoint {
            if let canvas = checkpoint.canvas {
                history.resume(at: checkpoint.phase, canvas: canvas, isWritten: writesCanvas(checkpoint.phase))
            }
            sums = checkpoint.sums.map { Double(bitPattern: $0) }
            text = checkpoint.text.map { Frame(copying: $0) }
        }
        if plan.startsWithNoise, checkpoint?.canvas == nil { blend?.fillWithNoise(history.read(by: 0)) }
    }

    /// Whether the phase moves the canvas on from a state to the next.
    private func writesCanvas(_ phase: Int) -> Bool {
        guard plan.phases.indices.contains(phase), case .denoise = plan.phases[phase] else { return false }
        return true
    }

    // MARK: Checkpoints

    /// What the phases before `phase` write is to be a checkpoint; `phase` and those after it have written nothing yet.
    /// - Parameter safe: the checkpoint that there is.
    package func prepareCheckpoint(at phase: Int, keeping safe: JobFolder.Checkpoint?) {
        if writesCanvas(phase) { history.turn(at: phase, keeping: safe?.canvas) }
    }

    /// The state between the phases before `phase`, which are done, and itself, and the files that hold what is too big
    /// for the checkpoint.
    package func checkpoint(at phase: Int, job: UInt64) -> (JobFolder.Checkpoint, files: [String]) {
        let canvas = plan.hasCanvas(before: phase) ? history.number(writtenBy: phase - 1) : nil
        let checkpoint = JobFolder.Checkpoint(
            job: job, phase: phase, canvas: canvas, sums: sums.map(\.bitPattern), text: text?.withBytes { Data($0) })
        return (checkpoint, plan.filesOfCheckpoint(at: phase, canvas: canvas))
    }

    // MARK: Tiles

    /// The frames of a task, cut out of the present state.
    package func inputs(of work: Work, phase: Int, tile: Int) -> [Frame] {
        let canvas = history.read(by: phase)
        switch work {
        case .denoise(let request):
            var frames = request.sampleIsNoise ? [] : [canvas.cut(request.window, as: request.element)]
            switch request.conditioning {
            case .none: break
            case .enlarged(let enlargement): frames.append(input.cut(enlargement.source))
            case .noised: frames.append(input.cut(request.window))
            }
            if request.text != nil, let text { frames.append(text) }
            return frames
        case .encodeText:
            return [Frame(copying: Array((plan.latent?.prompts[tile] ?? "").utf8))]
        case .autoencode(let request):
            let values: Frame =
                switch (request.direction, request.layers) {
                case (.encode, .all), (.encode, .detail): input.cut(request.enlargement?.source ?? request.window)
                case (.encode, .trunk), (.decode, .detail):
                    features[request.direction]?.cut(request.window) ?? Frame(zeros: 0)
                case (.decode, .all), (.decode, .trunk): canvas.cut(request.window)
                }
            return [values]
                + (request.givenNorms > 0
                    ? [Frame(doubles: Array(sums.prefix(request.sumCount(request.givenNorms))))] : [])
        }
    }

    /// Takes an answer of the right size.
    package func merge(_ answer: Frame, of work: Work, phase: Int, tile: Int) {
        switch work {
        case .denoise(let request):
            if let blend {
                blend.add(answer, window: request.window)
            } else {
                history.written(by: phase).write(answer, at: request.cell, as: request.element)
            }
        case .encodeText:
            embeddings[tile] = answer
        case .autoencode(let request):
            guard request.wantedNorms.isEmpty else {
                let sums = answer.doubles
                gathered = gathered.isEmpty ? sums : zip(gathered, sums).map { $0 + $1 }
                return
            }
            switch (request.direction, request.layers) {
            case (.encode, .all), (.encode, .trunk): history.written(by: phase).write(answer, at: request.cell)
            case (.encode, .detail), (.decode, .trunk): features[request.direction]?.write(answer, at: request.cell)
            case (.decode, .all), (.decode, .detail): pixels?.write(answer, at: request.cell.scaled(by: request.factor))
            }
        }
    }

    /// Every tile of the phase is merged.
    /// - Parameter beat: called again and again where that takes long.
    package func finish(phase index: Int, beat: () -> Void = {}) {
        switch plan.phases[index] {
        case .denoise(let step):
            blend?.finish(
                step: step, phase: index, grid: plan.grids[step], from: history.read(by: index),
                to: history.written(by: index), in: history,
                beat: beat)
        case .encodeText:
            text = Frame(joining: embeddings.sorted { $0.key < $1.key }.map(\.value))
            embeddings = [:]
        case .encode(let pass):
            finish(pass, .encode)
        case .decode(let pass):
            finish(pass, .decode)
        }
    }

    private func finish(_ index: Int, _ direction: AutoencodeRequest.Direction) {
        guard let passes = plan.latent?.passes(direction) else { return }
        let wanted = passes[index].wantedNorms
        if !wanted.isEmpty {
            // Passes gather the norms in their order.
            sums += gathered
            gathered = []
        }
        guard index == passes.count - 1 else { return }
        sums = []
        features[direction] = nil
    }

    // MARK: The picture

    /// The canvas at the end of the job: height x width x channels.
    package var latents: [Float] {
        let canvas = history.read(by: plan.phases.count)
        var values = [Float](repeating: 0, count: canvas.height * canvas.width * canvas.channels)
        var span = values.mutableSpan
        canvas.load(canvas.rows(0..<canvas.height), into: &span)
        return values
    }

    /// The finished picture.
    package var picture: FinishedPicture {
        // Latent models decode theirs.
        if let pixels { return FinishedPicture(plan: plan, input: input, canvas: pixels, gain: nil) }
        // The enlarged picture and the residual that the canvas holds at the end. The model's values are in [-1, 1], so
        // a difference of theirs counts half in [0, 1].
        let scale = if case .superResolution(let model) = plan.model { model.residualScale } else { 1 as Float }
        return FinishedPicture(plan: plan, input: input, canvas: history.read(by: plan.phases.count), gain: 0.5 / scale)
    }

    /// Rows of it in [0, 1], three numbers a pixel: what tests compare.
    package func finishedRows(_ rows: Range<Int>) throws -> [Float] {
        var picture = picture
        return try picture.numbers(rows)
    }
}
