import Engine
import Protocol

/// Tasks of tiles that are not answered yet, and answers that wait for their neighbours.
struct TilesInHand {
    struct Task {
        let work: Work
        let inputs: [Frame]
    }

    private var tasks: [Scheduler.Tile: Task] = [:]
    private var answers: [Scheduler.Tile: (work: Work, frame: Frame)] = [:]

    /// The task of a tile that was cut and is not answered.
    func task(of tile: Scheduler.Tile) -> Task? { tasks[tile] }

    mutating func keep(_ task: Task, of tile: Scheduler.Tile) { tasks[tile] = task }

    /// The tile's inputs are needed no longer.
    mutating func accept(_ answer: Frame, of tile: Scheduler.Tile) {
        if let task = tasks.removeValue(forKey: tile) { answers[tile] = (task.work, answer) }
    }

    /// The answer of a tile, for the last time.
    mutating func takeAnswer(of tile: Scheduler.Tile) -> (work: Work, frame: Frame)? {
        answers.removeValue(forKey: tile)
    }
}
