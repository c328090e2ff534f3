import Engine
import Foundation
import Logging
import Protocol

/// One request on its way to its output: its pipeline, its planes, and the tiles that are out. It knows nothing of
/// sockets and workers; a farm serves it.
final class Job {
    let id: UInt64
    let plan: JobPlan
    let planes: PlaneStore
    /// The model that its tasks name.
    let model: ModelServer
    let logger: Logger
    private(set) var tiles = PendingTiles()
    private(set) var progress: JobProgress
    private(set) var copying = SampledTime()
    private let checkpointer: Checkpointer?
    /// Where the task of a tile is kept that nobody can compute.
    private let failedTile: String
    /// The names of blobs whose bytes have been seen.
    private var blobs: [BlobKey: BlobID] = [:]
    /// Passes up to this one have been written in.
    private var lastWritten: Int
    private var isFinished: [Bool]
    /// The lowest pass that is not finished, as far as the scheduler's commands have been carried out.
    private(set) var current: Int

    var pipeline: Pipeline { plan.pipeline }

    /// - Parameters:
    ///   - checkpointer: nil where there are no checkpoints
    ///   - first: the passes before it are done
    init(
        id: UInt64, plan: JobPlan, planes: PlaneStore, model: ModelServer, checkpointer: Checkpointer?,
        failedTile: String, startingAt first: Int, logger: Logger
    ) {
        (self.id, self.plan, self.planes, self.model) = (id, plan, planes, model)
        (self.checkpointer, self.failedTile, self.logger) = (checkpointer, failedTile, logger)
        lastWritten = first - 1
        current = first
        isFinished = plan.pipeline.passes.indices.map { $0 < first }
        progress = JobProgress(plan.pipeline, startingAt: first)
    }

    // MARK: Tasks

    /// Cuts a tile's inputs and keeps its task until it is answered.
    /// - Throws: what is wrong with the operation or its inputs.
    func cut(_ tile: Scheduler.Tile) throws -> PendingTiles.PendingTask {
        let pass = pipeline.passes[tile.pass]
        guard case .task(let makeOperation) = pass.work else { throw PlaneError.gone(plane: pass.name) }
        let operation = try makeOperation(tile.index)
        let inputs = operation.inputs
        let task = try copying.time { () throws -> PendingTiles.PendingTask in
            var sources: [SlotSource] = [], frames: [Frame] = []
            for (index, read) in pass.reads.enumerated() {
                switch read.delivery {
                case .noise(let field): sources.append(.noise(field))
                case .blob: sources.append(.blob(try blob(index, of: tile, slot: inputs[index])))
                case .frame:
                    frames.append(try planes.frame(index, of: tile, slot: inputs[index]))
                    sources.append(.frame)
                }
            }
            return PendingTiles.PendingTask(task: TileTask(operation, sources: sources), frames: frames)
        }
        tiles.keep(task, of: tile)
        return task
    }

    private func blob(_ index: Int, of tile: Scheduler.Tile, slot: Slot) throws -> BlobID {
        let key = try planes.blobKey(index, of: tile)
        if let known = blobs[key] { return known }
        let id = try planes.frame(index, of: tile, slot: slot).blobID
        blobs[key] = id
        return id
    }

    /// The bytes of a blob that the task of a tile names; nil where it names no such blob, or is answered.
    func bytes(of blob: BlobID, for tile: Scheduler.Tile) throws -> Frame? {
        guard let task = tiles.task(of: tile)?.task, let index = task.sources.firstIndex(of: .blob(blob)) else {
            return nil
        }
        return try copying.time { try planes.frame(index, of: tile, slot: task.operation.inputs[index]) }
    }

    /// Keeps an answer until it may be merged.
    func accept(_ answer: TileAnswer, of tile: Scheduler.Tile) {
        tiles.accept(answer.outputs, of: tile)
        guard let note = answer.note else { return }
        logger.warning("\(note)", metadata: ["job": "\(id)", "pass": "\(pipeline.passes[tile.pass].name)"])
    }

    func merge(_ tile: Scheduler.Tile) {
        guard let (slots, outputs) = tiles.takeAnswer(of: tile) else { return }
        lastWritten = max(lastWritten, tile.pass)
        copying.time { planes.merge(outputs, slots: slots, of: tile) }
        progress.merged(pass: tile.pass)
    }

    func compute(_ tile: Scheduler.Tile, beat: () -> Void) {
        lastWritten = max(lastWritten, tile.pass)
        planes.compute(tile, beat: beat)
    }

    /// Every tile of a pass is merged.
    func finish(pass: Int) {
        isFinished[pass] = true
        while current < isFinished.count, isFinished[current] { current += 1 }
        planes.finish(pass: pass, current: current)
        // The last one is always worth it: the output may take long to write.
        if let checkpointer, checkpointer.wants(current) || current == pipeline.passes.count {
            writeCheckpoint(current)
        }
    }

    /// The name of a tile's pass: its number in the sampler's loop, or its name.
    func name(of tile: Scheduler.Tile) -> String {
        let pass = pipeline.passes[tile.pass]
        return pass.step.map { "\($0)" } ?? pass.name
    }

    // MARK: Checkpoints

    /// Chooses the boundary of the next checkpoint when it is time for one.
    func tick(_ now: Double) {
        guard let checkpointer else { return }
        checkpointer.collect(now)
        guard checkpointer.isDue(now) else { return }
        let first = max(lastWritten + 1, current)
        guard first < pipeline.passes.count,
            let boundary = (first..<pipeline.passes.count).first(where: { pipeline.canCheckpoint(at: $0) }),
            boundary > checkpointer.safe?.pass ?? 0
        else { return }
        planes.prepareCheckpoint(at: boundary, keeping: checkpointer.safe)
        checkpointer.await(pass: boundary)
        if current == boundary { writeCheckpoint(boundary) }
    }

    private func writeCheckpoint(_ boundary: Int) {
        let (checkpoint, files) = planes.checkpoint(at: boundary, job: id)
        checkpointer?.write(checkpoint, files: files, isLast: boundary == pipeline.passes.count)
    }

    // MARK: A tile that nobody can compute

    /// Keeps the task of a tile that failed.
    /// - Returns: where; nil when there is none, or it cannot be written.
    func saveTask(of tile: Scheduler.Tile, reason: String) -> String? {
        guard let pending = tiles.task(of: tile) else { return nil }
        let id = TaskID(job: id, pass: tile.pass, tile: tile.index, attempt: 0)
        do {
            try FailedTile.save(
                FarmTask(id: id, model: model.manifest.digest, task: pending.task), frames: pending.frames,
                blobs: blobFrames(of: tile, pending.task), reason: reason, to: failedTile)
            return failedTile
        } catch {
            logger.warning(
                "the failed tile's task cannot be kept", metadata: ["file": "\(failedTile)", "error": "\(error)"])
            return nil
        }
    }

    private func blobFrames(of tile: Scheduler.Tile, _ task: TileTask) throws -> [Frame] {
        try task.sources.compactMap { source in
            guard case .blob(let blob) = source else { return nil }
            return try bytes(of: blob, for: tile)
        }
    }
}

/// How much of a job's work is done.
struct JobProgress {
    private let costs: [Double]
    private let total: Double
    private var done: Double

    /// - Parameter first: the passes before it are done.
    init(_ pipeline: Pipeline, startingAt first: Int) {
        costs = pipeline.passes.map(\.cost)
        func cost(of passes: Range<Int>) -> Double {
            passes.reduce(0) { $0 + pipeline.passes[$1].cost * Double(pipeline.passes[$1].taskCount) }
        }
        total = cost(of: pipeline.passes.indices)
        done = cost(of: 0..<first)
    }

    /// From 0 to 1.
    var fraction: Double { total > 0 ? done / total : 1 }

    /// A tile of this pass is merged.
    mutating func merged(pass: Int) { done += costs[pass] }
}
