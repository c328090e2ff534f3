import Engine
import Foundation
import Logging

/// Figures of a finished job.
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

    /// The log's facts of it.
    func facts(job: UInt64) -> Logger.Metadata {
        func format(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
        let microseconds = 1e6 / Double(max(tilesOfRun, 1))
        return [
            "job": "\(job)", "tiles": "\(tiles)", "elapsed": "\(format(elapsed, 3))s",
            "rate": "\(format(Double(tilesOfRun) / max(elapsed, 1e-9), 2))/s", "workers": "\(workers)",
            "retried": "\(repeats)", "copies": "\(copies)", "dropped": "\(dropped)", "bad": "\(bad)",
            "compute": "\(format(computeSeconds, 3))s", "sent": "\(bytesSent)", "received": "\(bytesReceived)",
            "cpu_per_tile": "\(format(processorSeconds * microseconds, 1))us",
            "copy_per_tile": "\(format(copySeconds * microseconds, 1))us",
            "peak_memory": "\(ProcessUsage.peakMemoryBytes >> 20)MiB",
        ]
    }
}
