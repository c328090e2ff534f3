import Coordinator
import Engine
import Foundation
import Protocol
import Testing
import Worker

/// What a checkpoint keeps, at every place where one can be taken.
@Suite("Checkpoints")
struct CheckpointTests {
    enum Job: String, CaseIterable, Sendable {
        case pixels, explicit, reference, upscale, img2img

        /// Many tiles, for the autoencoder too.
        func plan() throws -> (plan: RenderPlan, input: RGBImage, model: URL) {
            let (height, width) = self == .upscale ? (20, 22) : (40, 44)
            let input = RGBImage(
                width: width, height: height, pixels: (0..<height * width * 3).map { Float(($0 * 7919) % 251) / 250 })
            guard self == .upscale || self == .img2img else {
                let options =
                    ["--tile", "64", "--steps", "5"] + (self == .pixels ? ["--halo", "8"] : ["--overlap", rawValue])
                return (
                    try UpscaleOptions.plan(
                        options, folder: ModelFolder(url: DefaultModel.url), inputHeight: height, inputWidth: width),
                    input, DefaultModel.url
                )
            }
            let reference = try PipelineCase(rawValue)
            var options = ["--prompt", "a castle", "--tile", "32", "--halo", "4", "--vae-tile", "24", "--steps", "3"]
            if self == .img2img { options += ["--scale", "8", "--strength", "1"] }
            return (
                try UpscaleOptions.plan(
                    options, folder: ModelFolder(url: reference.model), inputHeight: height, inputWidth: width), input,
                reference.model
            )
        }
    }

    /// Does the phases of a job one after the other, as farm and workers do it together; calls `look` after each.
    static func work(
        _ plan: RenderPlan, _ rendering: Rendering, phases: Range<Int>, perform: LaneWork,
        look: (RenderPlan.Phase) throws -> Void = { _ in }
    ) throws {
        for phase in phases {
            let tiles = try (0..<plan.step(phase).count).map { tile in
                let work = try plan.work(phase: phase, tile: tile)
                let inputs = rendering.inputs(of: work, phase: phase, tile: tile)
                #expect(inputs.map(\.byteCount) == work.inputByteCounts)
                return (tile, work, try perform(work, inputs).frame)
            }
            for (tile, work, answer) in tiles {
                #expect(answer.byteCount == work.answerByteCount)
                rendering.merge(answer, of: work, phase: phase, tile: tile)
            }
            rendering.finish(phase: phase)
            try look(plan.phases[phase])
        }
    }

    @Test(
        "a job that goes on from a checkpoint before any of its phases ends in the picture of the unbroken job",
        arguments: Job.allCases)
    func anyPhase(job: Job) throws {
        let (plan, input, model) = try job.plan()
        let perform = try Denoiser.load(model, precision: plan.precision).makeLane()
        let stores = plan.stores(canvases: 3)
        let unbroken = try Rendering(plan: plan, input: input)
        try Self.work(plan, unbroken, phases: plan.phases.indices, perform: perform)
        let expected = try unbroken.finishedRows(0..<plan.outputHeight)

        let scratch = try Scratch()
        let png = try scratch.picture("in.png", width: 4, height: 4)
        for phase in 1..<plan.phases.count {
            let path = scratch.path("job-\(phase)")
            do {
                let folder = try JobFolder.create(path, input: png)
                try folder.write(
                    JobFolder.Description(
                        job: 7, arguments: [], workingDirectory: "/", inputDigest: "", modelDigest: "", planDigest: ""))
                let first = try Rendering(plan: plan, input: InputImage(input), stores: stores, storage: .job(folder))
                try Self.work(plan, first, phases: 0..<phase, perform: perform)
                first.prepareCheckpoint(at: phase, keeping: nil)
                var (checkpoint, files) = first.checkpoint(at: phase, job: 7)
                for file in files { checkpoint.files[file] = try ContentDigest(file: folder.path(file)).hex }
                try folder.write(checkpoint)
                // What comes after the checkpoint goes on for a while and is lost.
                try Self.work(plan, first, phases: phase..<min(phase + 2, plan.phases.count), perform: perform)
            }
            let (folder, _) = try JobFolder.open(path)
            let checkpoint = try #require(folder.checkpoint)
            try folder.verify(checkpoint)
            let second = try Rendering(
                plan: plan, input: InputImage(input), stores: stores, storage: .job(folder), checkpoint: checkpoint)
            try Self.work(plan, second, phases: checkpoint.phase..<plan.phases.count, perform: perform)
            #expect(
                try second.finishedRows(0..<plan.outputHeight) == expected, "from phase \(phase), \(plan.phases[phase])"
            )
        }
    }

    @Test(
        "a job whose canvas has half precision sends it as it is, and ends where one that sends float32 and rounds what comes back would",
        arguments: Job.allCases)
    func halvesOnTheWire(job: Job) throws {
        var (plan, input, model) = try job.plan()
        plan.element = .float16
        let perform = try Denoiser.load(model, precision: plan.precision).makeLane()
        func widened(_ work: Work, _ inputs: [Frame]) throws -> LaneAnswer {
            guard case .denoise(var request) = work, request.element == .float16 else {
                return try perform(work, inputs)
            }
            var inputs = inputs
            if !request.sampleIsNoise { inputs[0] = Frame(floats: inputs[0].values(of: .float16)) }
            let element = request.answerElement
            request.element = .float32
            return LaneAnswer(Frame(try perform(.denoise(request), inputs).frame.floats, as: element))
        }
        let pictures = try [perform, widened].map { perform in
            let rendering = try Rendering(plan: plan, input: InputImage(input), stores: plan.stores(canvases: 1))
            try Self.work(plan, rendering, phases: plan.phases.indices, perform: perform)
            return try rendering.finishedRows(0..<plan.outputHeight)
        }
        #expect(pictures[0] == pictures[1])
    }

    @Test("a canvas of half precision is near the one of single precision, and the same in memory and in files")
    func half() throws {
        var (plan, input, model) = try Job.pixels.plan()
        let perform = try Denoiser.load(model, precision: plan.precision).makeLane()
        let scratch = try Scratch()
        func picture(_ element: CanvasElement, _ storage: CanvasStorage) throws -> [Float] {
            plan.element = element
            let rendering = try Rendering(
                plan: plan, input: InputImage(input), stores: plan.stores(canvases: 1), storage: storage)
            try Self.work(plan, rendering, phases: plan.phases.indices, perform: perform)
            return try rendering.finishedRows(0..<plan.outputHeight)
        }
        let (single, half) = (try picture(.float32, .memory), try picture(.float16, .memory))
        #expect(try half == picture(.float16, .unnamedFiles(folder: scratch.url.path)))
        #expect(try single == picture(.float32, .unnamedFiles(folder: scratch.url.path)))
        let largest = zip(single, half).reduce(0) { max($0, abs($1.0 - $1.1)) }
        #expect(largest > 0 && largest < 0.5 / 255)
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.url.path).isEmpty)
    }
}
