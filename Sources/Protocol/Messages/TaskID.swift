/// Names one try at one piece of work; results are merged by it exactly once.
public struct TaskID: Hashable, Sendable, CustomStringConvertible {
    public var job: UInt64
    /// The index of the pass in the job's pipeline, and of the tile in the pass.
    public var pass, tile: Int
    /// 0 for the first worker that gets the task, one more for every other.
    public var attempt: Int

    public init(job: UInt64, pass: Int, tile: Int, attempt: Int) {
        self.job = job
        self.pass = pass
        self.tile = tile
        self.attempt = attempt
    }

    public var description: String { "\(job)/\(pass)/\(tile)#\(attempt)" }
}

extension TaskID {
    init(_ wire: Tilefarm_V1_TaskId) throws(WireError) {
        self.init(
            job: wire.job,
            pass: try bounded(wire.pass, "task.pass", in: 0...WireLimits.passes),
            tile: try bounded(wire.tile, "task.tile", in: 0...WireLimits.tiles),
            attempt: try bounded(wire.attempt, "task.attempt", in: 0...WireLimits.attempts))
    }

    func wire() throws(WireError) -> Tilefarm_V1_TaskId {
        var wire = Tilefarm_V1_TaskId()
        wire.job = job
        wire.pass = try bounded32(pass, "task.pass", in: 0...WireLimits.passes)
        wire.tile = try bounded32(tile, "task.tile", in: 0...WireLimits.tiles)
        wire.attempt = try bounded32(attempt, "task.attempt", in: 0...WireLimits.attempts)
        return wire
    }
}
