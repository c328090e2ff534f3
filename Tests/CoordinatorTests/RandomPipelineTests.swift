import Coordinator
import Engine
import Testing

/// The planes of a job in memory, one buffer each, changed in place, and the last checkpoint of them.
struct MemoryPlanes: FarmPlanes {
    struct Checkpoint {
        /// The passes before it are done.
        var boundary = 0
        var planes: [Plane.ID: PlaneValues] = [:]
    }

    private struct Delivery: Hashable {
        var worker: Int
        var tile: Scheduler.Tile
    }

    private(set) var checkpoint: Checkpoint
    private let pipeline: Pipeline
    private var planes: [PlaneValues]
    /// The frames of tiles that are not merged.
    private var frames: [Scheduler.Tile: [[Float]]] = [:]
    /// Inputs that workers were given, with the blobs as they were then.
    private var inputs: [Delivery: [[Float]]] = [:]
    private var answers: [Scheduler.Tile: [[Float]]] = [:]
    private var isFinished: [Bool]
    private var hasMerged: [Bool]

    /// Goes on from a checkpoint: what it does not hold is lost.
    init(_ pipeline: Pipeline, from checkpoint: Checkpoint = Checkpoint(), garbage: Float) {
        self.pipeline = pipeline
        self.checkpoint = checkpoint
        planes = pipeline.begin(garbage: garbage)
        for (plane, values) in checkpoint.planes { planes[plane] = values }
        isFinished = pipeline.passes.indices.map { $0 < checkpoint.boundary }
        hasMerged = isFinished
    }

    var output: PlaneValues { planes[pipeline.output] }

    private func cut(_ tile: Scheduler.Tile, _ read: Read) -> [Float] {
        (try? pipeline.input(read, tile.pass, tile.index, from: planes)) ?? []
    }

    mutating func cut(_ tile: Scheduler.Tile, for worker: Int, isRepeat: Bool) {
        let reads = pipeline.passes[tile.pass].reads
        if !isRepeat { frames[tile] = reads.map { $0.delivery == .blob ? [] : cut(tile, $0) } }
        let kept = frames[tile] ?? []
        inputs[Delivery(worker: worker, tile: tile)] = zip(reads, kept).map { read, frame in
            read.delivery == .blob ? cut(tile, read) : frame
        }
    }

    mutating func accept(_ tile: Scheduler.Tile, from worker: Int) {
        let given = inputs.removeValue(forKey: Delivery(worker: worker, tile: tile)) ?? []
        answers[tile] = pipeline.answer(tile.pass, tile.index, given, of: planes)
    }

    mutating func merge(_ tile: Scheduler.Tile) {
        frames[tile] = nil
        hasMerged[tile.pass] = true
        pipeline.merge(answers.removeValue(forKey: tile) ?? [], tile.pass, tile.index, into: &planes)
    }

    mutating func compute(_ tile: Scheduler.Tile) {
        let given = pipeline.passes[tile.pass].reads.map { cut(tile, $0) }
        answers[tile] = pipeline.answer(tile.pass, tile.index, given, of: planes)
        merge(tile)
    }

    mutating func finish(pass: Int) {
        if pipeline.passes[pass].count == 0 { pipeline.clearSums(pass, in: &planes) }
        isFinished[pass] = true
        hasMerged[pass] = true
        let boundary = isFinished.firstIndex(of: false) ?? isFinished.count
        guard boundary > checkpoint.boundary, boundary < isFinished.count,
            !hasMerged[boundary...].contains(true), pipeline.canCheckpoint(at: boundary)
        else { return }
        checkpoint = Checkpoint(boundary: boundary)
        for plane in pipeline.livePlanes(at: boundary) { checkpoint.planes[plane] = planes[plane] }
    }
}

@Suite("Random pipelines")
struct RandomPipelineTests {
    /// Failures of tiles in a run: too few for a job to be given up.
    private static let mostFailures = 2
    private static let mostTurns = 20_000
    private static let mostRestarts = 5

    /// Runs a pipeline on a farm to which everything happens that can happen, and which is started again from its last
    /// checkpoint now and then.
    /// - Returns: the output, nil when the job does not end; and how often it went on from within the pipeline.
    static func run(_ pipeline: Pipeline, seed: UInt64) -> (output: PlaneValues?, resumes: Int) {
        var random = SplitMix64(state: seed)
        var leases = Scheduler.LeasePolicy()
        leases.othersMayCome = true
        var checkpoint = MemoryPlanes.Checkpoint(), resumes = 0
        for restarts in 0...mostRestarts {
            leases.sendsCopies = Bool.random(using: &random)
            let limit = Bool.random(using: &random) ? Int.max : Int.random(in: 1...20, using: &random)
            let scheduler = Scheduler(
                pipeline: pipeline, startingAt: checkpoint.boundary, leases: leases,
                hasBarrier: Int.random(in: 0..<8, using: &random) == 0
            ) { limit / (1 + $0 % 2) }
            let planes = MemoryPlanes(pipeline, from: checkpoint, garbage: Float(2000 + restarts))
            var farm = SimulatedFarm(scheduler, planes: planes, seed: random.next())
            let isLast = restarts == mostRestarts || Int.random(in: 0..<4, using: &random) == 0
            let turns = isLast ? mostTurns : Int.random(in: 1...60, using: &random)
            misfortunes(&farm, turns: turns)
            if farm.isFinished { return (farm.planes.output, resumes) }
            if isLast { break }
            checkpoint = farm.planes.checkpoint
            if checkpoint.boundary > 0 { resumes += 1 }
        }
        return (nil, resumes)
    }

    private static func misfortunes(_ farm: inout SimulatedFarm<MemoryPlanes>, turns: Int) {
        var failures = 0, turns = turns
        farm.wait(0)
        while !farm.isFinished, turns > 0 {
            turns -= 1
            farm.now += 0.01
            guard let task = farm.tasks.randomElement(using: &farm.random) else {
                // Nobody is there, or all that are there are stuck.
                farm.joinAnother(lanes: Int.random(in: 1...3, using: &farm.random))
                continue
            }
            switch Int.random(in: 0..<40, using: &farm.random) {
            case 0, 1: farm.joinAnother(lanes: Int.random(in: 1...4, using: &farm.random))
            case 2: farm.lose(task.worker)
            case 3: farm.returnTask(task.worker, task.tile)
            case 4 where failures < mostFailures:
                failures += 1
                farm.fail(task.worker, task.tile)
            case 5: farm.lie(task.worker, nil)
            case 6: farm.wait(1000)
            case 7, 8:
                if let late = farm.answers.randomElement(using: &farm.random) { farm.answer(late.worker, late.tile) }
            case 9: farm.drain(task.worker)
            case 10: farm.wait(1)
            default: farm.answer(task.worker, task.tile)
            }
        }
    }

    @Test(
        """
        whatever a pipeline's passes read and write, and whatever happens to workers and coordinator, the output is \
        what one computer makes of it pass by pass
        """,
        arguments: 0..<10)
    func result(part: Int) throws {
        var resumes = 0
        for seed in UInt64(part) * 1000..<UInt64(part + 1) * 1000 {
            let pipeline = try RandomPipeline.draw(seed: seed)
            let run = Self.run(pipeline, seed: seed)
            if run.output == nil { Issue.record("pipeline \(seed) does not end") }
            if try run.output != pipeline.interpret() { Issue.record("pipeline \(seed) gives another output") }
            resumes += run.resumes
        }
        #expect(resumes > 100)
    }
}
