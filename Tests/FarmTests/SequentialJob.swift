import Coordinator
import Engine
import Protocol
import Testing

/// A job whose passes are done one after the other on this thread, as farm and workers do them together.
struct SequentialJob {
    let plan: JobPlan
    let planes: PlaneStore
    let input: InputImage
    private let model: any TaskModel
    private let workspace = Workspace()

    /// A task before it is done: a test may change it.
    struct Task {
        var operation: any TaskOperation
        var inputs: [Frame]
        var sources: [SlotSource]
    }

    init(
        _ plan: JobPlan, _ input: InputImage, model: any TaskModel, storage: PlaneStorage = .memory,
        checkpoint: JobFolder.Checkpoint? = nil
    ) throws {
        self.plan = plan
        self.input = input
        self.model = model
        planes = try PlaneStore(plan.pipeline, input: input, storage: storage, checkpoint: checkpoint)
    }

    var pipeline: Pipeline { plan.pipeline }

    /// - Parameters:
    ///   - change: what a test makes of a task
    ///   - look: called after each pass
    func run(
        _ passes: Range<Int>? = nil, change: (inout Task) -> Void = { _ in },
        look: (Pass, Int) throws -> Void = { _, _ in }
    ) throws {
        for number in passes ?? pipeline.passes.indices {
            let pass = pipeline.passes[number]
            if case .task(let operation) = pass.work {
                var answers: [(slots: [Slot], outputs: [Frame])] = []
                for tile in 0..<pass.count {
                    answers.append(
                        try perform(operation(tile), Scheduler.Tile(pass: number, index: tile), pass, change))
                }
                for (tile, answer) in answers.enumerated() {
                    planes.merge(answer.outputs, slots: answer.slots, of: Scheduler.Tile(pass: number, index: tile))
                }
            } else {
                planes.compute(Scheduler.Tile(pass: number, index: 0))
            }
            planes.finish(pass: number, current: number + 1)
            try look(pass, number)
        }
    }

    private func perform(
        _ operation: any TaskOperation, _ tile: Scheduler.Tile, _ pass: Pass, _ change: (inout Task) -> Void
    ) throws -> (slots: [Slot], outputs: [Frame]) {
        var task = Task(operation: operation, inputs: [], sources: [])
        for (index, (read, slot)) in zip(pass.reads, operation.inputs).enumerated() {
            if case .noise(let field) = read.delivery {
                task.inputs.append(Frame(zeroBytes: 0))
                task.sources.append(.noise(field))
            } else {
                let frame = try planes.frame(index, of: tile, slot: slot)
                #expect(frame.byteCount == slot.byteCount)
                task.inputs.append(frame)
                task.sources.append(read.delivery == .blob ? .blob(frame.blobID) : .frame)
            }
        }
        let slots = operation.outputs
        change(&task)
        // What is sent is what is done.
        task.operation = try type(of: task.operation).init(encoded: task.operation.encoded())
        let answers = try FrameTensors.perform(task.operation, task.sources, task.inputs, on: model, workspace)
        let outputs = zip(answers, zip(task.operation.outputs, slots)).map { frame, slots in
            #expect(frame.byteCount == slots.0.byteCount)
            // A test that changes how an answer is sent gets it stored as it was to be.
            return slots.0.element == slots.1.element ? frame : Frame(frame.floats, as: .float16)
        }
        #expect(outputs.count == slots.count)
        return (slots, outputs)
    }

    /// The sampler's canvas as the passes before `boundary` have left it: height x width x channels.
    func latents(before boundary: Int) throws -> [Float] {
        let plane = try #require(pipeline.planes.firstIndex { $0.name == "sample" })
        let canvas = try #require(planes.canvas(plane, before: boundary))
        var values = [Float](repeating: 0, count: canvas.height * canvas.width * canvas.channels)
        var span = values.mutableSpan
        canvas.load(canvas.whole, into: &span)
        return values
    }

    var picture: FinishedPicture {
        get throws {
            let canvas = try #require(planes.canvas(pipeline.output, before: pipeline.passes.count))
            return FinishedPicture(plan.picture, input: input, canvas: canvas)
        }
    }

    /// Rows of the picture in [0, 1], three numbers a pixel.
    func rows(_ rows: Range<Int>? = nil) throws -> [Float] {
        var picture = try picture
        return try picture.numbers(rows ?? 0..<plan.picture.outputHeight)
    }
}

/// The inputs and outputs of one task, all of them here.
final class FrameTensors: TaskTensors {
    private let sources: [SlotSource]
    private let inputs: [Frame]
    private let slots: [Slot]
    private var outputs: [Frame?]

    /// Does a task.
    /// - Parameter inputs: of every input, whatever its source
    static func perform(
        _ operation: any TaskOperation, _ sources: [SlotSource], _ inputs: [Frame], on model: any TaskModel,
        _ workspace: Workspace
    ) throws -> [Frame] {
        let tensors = FrameTensors(operation, sources, inputs)
        _ = try operation.perform(on: model, tensors, workspace: workspace)
        return try tensors.outputs.map { try #require($0) }
    }

    private init(_ operation: any TaskOperation, _ sources: [SlotSource], _ inputs: [Frame]) {
        (self.sources, self.inputs) = (sources, inputs)
        slots = operation.outputs
        outputs = slots.map { _ in nil }
    }

    func source(_ input: Int) -> SlotSource { sources[input] }
    func tensor(_ input: Int) throws -> any TaskTensor { inputs[input] }

    func write(_ output: Int, _ fill: ((Span<Float>, Int) -> Void) throws -> Void) throws {
        let slot = slots[output]
        outputs[output] = try Frame(
            count: slot.count, of: slot.element == .float16 ? .float16 : .float32, filledBy: fill)
    }

    func write(_ output: Int, doubles: [Double]) { outputs[output] = Frame(doubles: doubles) }
}

/// The plan that these arguments make, as they would be typed after `upscale`.
func plan(_ arguments: [String], model: ModelFolder, height: Int, width: Int) throws -> JobPlan {
    try MethodTable.standard.plan(
        UpscaleOptions.request(arguments), PlanContext(model: model, inputHeight: height, inputWidth: width))
}
