/// Names one try at one piece of work; results are merged by it exactly once.
public struct TaskID: Hashable, Sendable, CustomStringConvertible {
    public var job: UInt64
    public var stage, step, tile: Int
    /// 0 for the first worker that gets the task, one more for every other.
    public var attempt: Int

    public init(job: UInt64, stage: Int, step: Int, tile: Int, attempt: Int) {
        self.job = job
        self.stage = stage
        self.step = step
        self.tile = tile
        self.attempt = attempt
    }

    public var description: String { "\(job)/\(stage)/\(step)/\(tile)#\(attempt)" }
}

extension TaskID {
    init(_ wire: Tilefarm_V1_TaskId) throws(WireError) {
        self.init(
            job: wire.job,
            stage: try bounded(wire.stage, "task.stage", in: 0...WireLimits.count),
            step: try bounded(wire.step, "task.step", in: 0...WireLimits.count),
            tile: try bounded(wire.tile, "task.tile", in: 0...WireLimits.tiles),
            attempt: try bounded(wire.attempt, "task.attempt", in: 0...WireLimits.count))
    }

    func wire() throws(WireError) -> Tilefarm_V1_TaskId {
        var wire = Tilefarm_V1_TaskId()
        wire.job = job
        wire.stage = try bounded32(stage, "task.stage", in: 0...WireLimits.count)
        wire.step = try bounded32(step, "task.step", in: 0...WireLimits.count)
        wire.tile = try bounded32(tile, "task.tile", in: 0...WireLimits.tiles)
        wire.attempt = try bounded32(attempt, "task.attempt", in: 0...WireLimits.count)
        return wire
    }
}
