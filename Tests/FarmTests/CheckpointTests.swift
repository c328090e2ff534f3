import Coordinator
import Engine
import Foundation
import Protocol
import Testing
import Worker

/// Checkpoints, at every place where one can be taken.
@Suite("Checkpoints")
struct CheckpointTests {
    enum Job: String, CaseIterable, Sendable {
        case pixels, explicit, reference, upscale, img2img

        /// Many tiles, for the autoencoder too.
        func plan(storage: CanvasElement = .float32) throws -> (plan: JobPlan, input: RGBImage, model: ModelFolder) {
            let (height, width) = self == .upscale ? (20, 22) : (40, 44)
            let input = RGBImage(
                width: width, height: height, pixels: (0..<height * width * 3).map { Float(($0 * 7919) % 251) / 250 })
            let model: ModelFolder, options: [String]
            switch self {
            case .pixels, .explicit, .reference:
                model = try ModelFolder(url: DefaultModel.url)
                options =
                    ["--tile", "64", "--steps", "5"]
                    + (self == .pixels ? ["--halo", "8"] : ["--overlap", rawValue])
            case .upscale, .img2img:
                model = try ModelFolder(url: PipelineCase(rawValue).model)
                options =
                    ["--prompt", "a castle", "--tile", "32", "--halo", "4", "--vae-tile", "24", "--steps", "3"]
                    + (self == .img2img ? ["--scale", "8", "--strength", "1"] : [])
            }
            var request = try UpscaleOptions.request(options)
            request.storage = storage
            let context = PlanContext(model: model, inputHeight: height, inputWidth: width)
            return (try MethodTable.standard.plan(request, context), input, model)
        }
    }

    @Test(
        "a job that goes on from a checkpoint at any boundary ends in the picture of the unbroken job",
        arguments: Job.allCases)
    func anyBoundary(job: Job) throws {
        let (plan, image, folder) = try job.plan()
        let model = try folder.load(precision: plan.precision), input = try InputImage(image)
        let unbroken = try SequentialJob(plan, input, model: model)
        try unbroken.run()
        let expected = try unbroken.rows()

        let scratch = try Scratch()
        let png = try scratch.picture("in.png", width: 4, height: 4)
        let boundaries = (1..<plan.pipeline.passes.count).filter { plan.pipeline.canCheckpoint(at: $0) }
        #expect(boundaries.count >= plan.steps - 1)
        for boundary in boundaries {
            let path = scratch.path("job-\(boundary)")
            do {
                let folder = try JobFolder.create(path, input: png)
                try folder.write(
                    JobFolder.Description(job: 7, request: UpscaleOptions.request([]), farm: FarmSettings()))
                let first = try SequentialJob(plan, input, model: model, storage: .job(folder))
                try first.run(0..<boundary)
                first.planes.prepareCheckpoint(at: boundary, keeping: nil)
                var (checkpoint, files) = first.planes.checkpoint(at: boundary, job: 7)
                for file in files { checkpoint.files[file] = try ContentDigest(file: folder.path(file)).hex }
                try folder.write(checkpoint)
                #expect(PlaneStore.accepts(checkpoint, of: plan.pipeline))
                // What comes after the checkpoint goes on for a while and is lost.
                try first.run(boundary..<min(boundary + 2, plan.pipeline.passes.count))
            }
            let (folder, _) = try JobFolder.open(path)
            let checkpoint = try #require(folder.checkpoint)
            try folder.verify(checkpoint)
            let second = try SequentialJob(plan, input, model: model, storage: .job(folder), checkpoint: checkpoint)
            try second.run(checkpoint.pass..<plan.pipeline.passes.count)
            #expect(try second.rows() == expected, "from pass \(boundary), \(plan.pipeline.passes[boundary].name)")
        }
    }

    @Test(
        """
        a job whose canvas has half precision sends it as it is, and ends where one that sends float32 and rounds what \
        comes back would
        """,
        arguments: Job.allCases)
    func halvesOnTheWire(job: Job) throws {
        let (plan, image, folder) = try job.plan(storage: .float16)
        let model = try folder.load(precision: plan.precision), input = try InputImage(image)
        func widen(_ task: inout SequentialJob.Task) {
            func widened(_ tile: TileStep) -> TileStep {
                var tile = tile
                tile.element = .float32
                return tile
            }
            if var operation = task.operation as? DenoisePixels, operation.tile.element == .float16 {
                operation.tile = widened(operation.tile)
                task.operation = operation
            } else if var operation = task.operation as? DenoiseLatents, operation.tile.element == .float16 {
                operation.tile = widened(operation.tile)
                task.operation = operation
            } else {
                return
            }
            if case .frame = task.sources[0] { task.inputs[0] = Frame(floats: task.inputs[0].values(of: .float16)) }
        }
        let pictures = try [{ _ in }, widen].map { (change: (inout SequentialJob.Task) -> Void) in
            let job = try SequentialJob(plan, input, model: model)
            try job.run(change: change)
            return try job.rows()
        }
        #expect(pictures[0] == pictures[1])
    }

    @Test("a canvas of half precision is near the one of single precision, and the same in memory and in files")
    func half() throws {
        let scratch = try Scratch()
        func picture(_ element: CanvasElement, _ storage: PlaneStorage) throws -> [Float] {
            let (plan, image, folder) = try Job.pixels.plan(storage: element)
            let job = try SequentialJob(
                plan, InputImage(image), model: folder.load(precision: plan.precision), storage: storage)
            try job.run()
            return try job.rows()
        }
        let (single, half) = (try picture(.float32, .memory), try picture(.float16, .memory))
        #expect(try half == picture(.float16, .unnamedFiles(folder: scratch.url.path)))
        #expect(try single == picture(.float32, .unnamedFiles(folder: scratch.url.path)))
        let largest = zip(single, half).reduce(0) { max($0, abs($1.0 - $1.1)) }
        #expect(largest > 0 && largest < 0.5 / 255)
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.url.path).isEmpty)
    }
}
