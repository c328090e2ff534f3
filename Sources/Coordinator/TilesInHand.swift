import Engine
import Protocol

/// Inputs of tiles that are not merged yet, and answers that wait for their neighbours.
struct TilesInHand {
    struct Task {
        let work: Work
        let inputs: [Frame]
    }

    private var tasks: [Scheduler.Tile: Task] = [:]
    private var answers: [Scheduler.Tile: Frame] = [:]

    /// The task of a tile that was cut and is not merged.
    func task(of tile: Scheduler.Tile) -> Task? { tasks[tile] }

    mutating func keep(_ task: Task, of tile: Scheduler.Tile) { tasks[tile] = task }

    mutating func accept(_ answer: Frame?, of tile: Scheduler.Tile) { answers[tile] = answer }

    /// The task of a tile and its answer, for the last time.
    mutating func takeMerged(_ tile: Scheduler.Tile) -> (Task, answer: Frame)? {
        guard let answer = answers.removeValue(forKey: tile), let task = tasks.removeValue(forKey: tile) else { return nil }
        return (task, answer)
    }
}
