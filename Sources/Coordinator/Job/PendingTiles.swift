import Engine
import Protocol

/// A worker's answer: the bytes of each output, and what the user should know of it.
struct TileAnswer: Sendable {
    var outputs: [Frame]
    var note: String?
}

/// Tasks of tiles that are not answered yet, and answers that wait for their neighbours.
struct PendingTiles {
    struct PendingTask {
        let task: TileTask
        /// The frames that the task came with; what it names as blobs is cut again when it is wanted.
        let frames: [Frame]
    }

    private var tasks: [Scheduler.Tile: PendingTask] = [:]
    private var answers: [Scheduler.Tile: (slots: [Slot], outputs: [Frame])] = [:]

    /// The task of a tile that was cut and is not answered.
    func task(of tile: Scheduler.Tile) -> PendingTask? { tasks[tile] }

    mutating func keep(_ task: PendingTask, of tile: Scheduler.Tile) { tasks[tile] = task }

    /// The tile's inputs are needed no longer.
    mutating func accept(_ outputs: [Frame], of tile: Scheduler.Tile) {
        if let task = tasks.removeValue(forKey: tile) { answers[tile] = (task.task.operation.outputs, outputs) }
    }

    /// The answer of a tile, for the last time.
    mutating func takeAnswer(of tile: Scheduler.Tile) -> (slots: [Slot], outputs: [Frame])? {
        answers.removeValue(forKey: tile)
    }
}
