import Coordinator
import Engine
import Foundation
import Protocol
import Testing

/// The planes of a job as it keeps them, in the files of a job folder, with checkpoints.
struct StoredPlanes: FarmPlanes {
    private struct Delivery: Hashable {
        var worker: Int
        var tile: Scheduler.Tile
    }

    private let pipeline: Pipeline
    private let folder: JobFolder
    private let store: PlaneStore
    /// Pictures and texts, which no file holds.
    private let given: [PlaneValues]
    private var frames: [Scheduler.Tile: [[Float]]] = [:]
    private var inputs: [Delivery: [[Float]]] = [:]
    private var answers: [Scheduler.Tile: [[Float]]] = [:]
    private var isFinished: [Bool]
    private var lastWritten: Int
    /// The boundary that a checkpoint is prepared for.
    private var awaited: Int?
    private var safe: JobFolder.Checkpoint?
    private var random: SplitMix64
    private(set) var checkpoints = 0

    init(_ pipeline: Pipeline, in folder: JobFolder, seed: UInt64) throws {
        (self.pipeline, self.folder) = (pipeline, folder)
        safe = folder.checkpoint
        store = try PlaneStore(pipeline, input: nil, storage: .job(folder), checkpoint: safe)
        given = pipeline.begin(garbage: 0)
        let first = safe?.pass ?? 0
        isFinished = pipeline.passes.indices.map { $0 < first }
        lastWritten = first - 1
        random = SplitMix64(state: seed)
    }

    private var current: Int { isFinished.firstIndex(of: false) ?? isFinished.count }

    private func cut(_ tile: Scheduler.Tile, _ index: Int) -> [Float] {
        let read = pipeline.passes[tile.pass].reads[index], plane = pipeline.planes[read.plane]
        guard read.needsPlane, !plane.isGiven else {
            return (try? pipeline.input(read, tile.pass, tile.index, from: given)) ?? []
        }
        let rect = try? pipeline.part(read, tile.pass, tile.index)
        let values = given[read.plane]
        let count = rect.map { $0.area * values.channels } ?? values.values.count
        if case .values = plane.content {
            let frame = try? store.frame(index, of: tile, slot: Slot(.statistics, [count], .float64))
            return frame?.doubles.map { Float($0) } ?? []
        }
        return (try? store.frame(index, of: tile, slot: Slot(.sample, [count])))?.floats ?? []
    }

    mutating func cut(_ tile: Scheduler.Tile, for worker: Int, isRepeat: Bool) {
        let reads = pipeline.passes[tile.pass].reads
        if !isRepeat { frames[tile] = reads.indices.map { reads[$0].delivery == .blob ? [] : cut(tile, $0) } }
        let kept = frames[tile] ?? []
        inputs[Delivery(worker: worker, tile: tile)] = zip(reads.indices, kept).map { index, frame in
            reads[index].delivery == .blob ? cut(tile, index) : frame
        }
    }

    mutating func accept(_ tile: Scheduler.Tile, from worker: Int) {
        let taken = inputs.removeValue(forKey: Delivery(worker: worker, tile: tile)) ?? []
        answers[tile] = pipeline.answer(tile.pass, tile.index, taken, of: given)
    }

    mutating func merge(_ tile: Scheduler.Tile) {
        frames[tile] = nil
        lastWritten = max(lastWritten, tile.pass)
        let writes = pipeline.passes[tile.pass].writes, answer = answers.removeValue(forKey: tile) ?? []
        let isArray = writes.map { pipeline.planes[$0.plane].arrayBytes > 0 }
        store.merge(
            zip(answer, isArray).map { $1 ? Frame(floats: $0) : Frame(doubles: $0.map { Double($0) }) },
            slots: zip(answer, isArray).map { Slot(.sample, [$0.count], $1 ? .float32 : .float64) }, of: tile)
        if Int.random(in: 0..<6, using: &random) == 0 { prepare() }
    }

    mutating func compute(_ tile: Scheduler.Tile) {
        let reads = pipeline.passes[tile.pass].reads
        let taken = reads.indices.map { cut(tile, $0) }
        answers[tile] = pipeline.answer(tile.pass, tile.index, taken, of: given)
        merge(tile)
    }

    mutating func finish(pass: Int) {
        isFinished[pass] = true
        // A sum of no tiles is written when its pass is finished.
        lastWritten = max(lastWritten, pass)
        store.finish(pass: pass, current: current)
        if let awaited, current == awaited { write(awaited) }
    }

    /// Chooses the boundary of the next checkpoint, as a job does when it is time for one.
    private mutating func prepare() {
        let first = max(lastWritten + 1, current)
        guard awaited == nil, first < pipeline.passes.count,
            let boundary = (first..<pipeline.passes.count).first(where: { pipeline.canCheckpoint(at: $0) }),
            boundary > safe?.pass ?? 0
        else { return }
        store.prepareCheckpoint(at: boundary, keeping: safe)
        awaited = boundary
        if current == boundary { write(boundary) }
    }

    private mutating func write(_ boundary: Int) {
        awaited = nil
        var (checkpoint, files) = store.checkpoint(at: boundary, job: 7)
        // Some come to nothing.
        guard Int.random(in: 0..<5, using: &random) > 0 else { return }
        do {
            for file in files { checkpoint.files[file] = try ContentDigest(file: folder.path(file)).hex }
            try folder.write(checkpoint)
            if !PlaneStore.accepts(checkpoint, of: pipeline) { Issue.record("a checkpoint that is not accepted") }
            safe = checkpoint
            checkpoints += 1
        } catch {
            Issue.record("\(error)")
        }
    }

    var output: [Float] {
        guard let canvas = store.canvas(pipeline.output, before: pipeline.passes.count) else { return [] }
        var values = [Float](repeating: 0, count: canvas.height * canvas.width * canvas.channels)
        var span = values.mutableSpan
        canvas.load(canvas.whole, into: &span)
        return values
    }
}

@Suite("Stored planes")
struct StoredPlanesTests {
    private static let mostRestarts = 4

    /// Runs a pipeline in a job folder, ended in the middle and started again from its last checkpoint now and then.
    private static func run(
        _ pipeline: Pipeline, seed: UInt64, in path: String, input: String
    ) throws -> (output: [Float]?, resumes: Int) {
        var random = SplitMix64(state: seed), resumes = 0
        var leases = Scheduler.LeasePolicy()
        leases.othersMayCome = true
        do {
            let folder = try JobFolder.create(path, input: input)
            var request = RenderRequest(input: input, output: .init(png: ""))
            request.seed = seed
            try folder.write(JobFolder.Description(job: 7, request: request, farm: FarmSettings()))
        }
        for restarts in 0...mostRestarts {
            let (folder, _) = try JobFolder.open(path)
            let first = folder.checkpoint?.pass ?? 0
            if first > 0 {
                resumes += 1
                try folder.checkpoint.map { try folder.verify($0) }
            }
            let planes = try StoredPlanes(pipeline, in: folder, seed: random.next())
            let scheduler = Scheduler(pipeline: pipeline, startingAt: first, leases: leases)
            var farm = SimulatedFarm(scheduler, planes: planes, seed: random.next())
            for worker in 0..<Int.random(in: 1...3, using: &random) { farm.join(worker, lanes: 2) }
            let isLast = restarts == mostRestarts
            for _ in 0..<(isLast ? 20_000 : Int.random(in: 1...120, using: &random)) where !farm.isFinished {
                if Int.random(in: 0..<12, using: &random) == 0, let worker = farm.workers.min() {
                    farm.lose(worker)
                    farm.joinAnother(lanes: 2)
                }
                farm.answerOne()
            }
            if farm.isFinished { return (farm.planes.output, resumes) }
        }
        return (nil, resumes)
    }

    @Test(
        """
        a job's planes in files, with checkpoints of which some come to nothing, end in what one computer makes of any \
        pipeline, however often the job is ended and resumed
        """,
        arguments: 0..<5)
    func resumed(part: Int) throws {
        let scratch = FileManager.default.temporaryDirectory.appending(path: "tilefarm-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: scratch) }
        let input = scratch.appending(path: "in.png").path
        try Data("a picture".utf8).write(to: URL(filePath: input))
        var resumes = 0
        for seed in UInt64(part) * 1000..<UInt64(part) * 1000 + 120 {
            let pipeline = try RandomPipeline.draw(seed: seed)
            let path = scratch.appending(path: "job-\(seed)").path
            let run = try Self.run(pipeline, seed: seed, in: path, input: input)
            if run.output == nil { Issue.record("pipeline \(seed) does not end") }
            if run.output != (try pipeline.interpret().values) {
                Issue.record("pipeline \(seed) gives another output after \(run.resumes) resumes")
            }
            resumes += run.resumes
            try FileManager.default.removeItem(atPath: path)
        }
        #expect(resumes > 10, "\(resumes) resumes")
    }
}
