/// What a finished job tells of itself.
struct FarmSummary: Sendable {
    var tiles = 0
    /// Those of them that this run has done: a job that was resumed had others.
    var tilesOfRun = 0
    var elapsed = 0.0
    /// Seconds of computing that the workers report, all lanes together.
    var computeSeconds = 0.0
    var repeats = 0
    /// Second copies of tiles that were late.
    var copies = 0
    var dropped = 0
    /// Answers that were none.
    var bad = 0
    var workers = 0
    var bytesSent = 0
    var bytesReceived = 0
    /// Processor seconds of this thread and, of them, about those in which tiles were copied out of and into the
    /// canvas.
    var processorSeconds = 0.0
    var copySeconds = 0.0
}
