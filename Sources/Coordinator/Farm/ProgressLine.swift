import Foundation
import Glibc
import Logging
import Protocol

/// Tells how far a job is: a line in the log every few seconds, or a bar where a person looks at a terminal.
package struct ProgressLine {
    /// Between two lines of the log.
    static let interval = 5.0

    /// The figures that are told.
    package struct Snapshot {
        /// Tiles that are merged.
        var done: Int
        /// The part of the work that is done, from 0 to 1.
        var fraction: Double
        /// The lowest pass that is not finished.
        var pass: Int
        var inFlight = 0, retried = 0, copies = 0
        var workers: Int
        var inQuarantine = 0
        /// The endpoint where workers are waited for, nil when they are local.
        var waiting: String?
        var slowest: String?
        /// Seconds since the start.
        var elapsed: Double

        package init(
            done: Int, fraction: Double, pass: Int, inFlight: Int = 0, retried: Int = 0, copies: Int = 0, workers: Int,
            inQuarantine: Int = 0, waiting: String? = nil, slowest: String? = nil, elapsed: Double
        ) {
            (self.done, self.fraction, self.pass, self.inFlight) = (done, fraction, pass, inFlight)
            (self.retried, self.copies, self.workers) = (retried, copies, workers)
            (self.inQuarantine, self.waiting, self.slowest) = (inQuarantine, waiting, slowest)
            self.elapsed = elapsed
        }
    }

    private let job: UInt64
    private let pipeline: Pipeline
    private let total: Int
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private var nextLine = interval
    private var isWaiting = false
    /// Elapsed seconds, tiles done and the part of the work of the last half minute, for the rate and the rest of the
    /// time.
    private var history: [(elapsed: Double, done: Int, fraction: Double)] = []

    /// - Parameter total: tiles of the job
    package init(job: UInt64, pipeline: Pipeline, total: Int) {
        self.job = job
        self.pipeline = pipeline
        self.total = total
    }

    package mutating func update(_ now: Snapshot, logger: Logger) {
        history.append((now.elapsed, now.done, now.fraction))
        history.removeAll { $0.elapsed < now.elapsed - 30 }
        let span = now.elapsed - (history.first?.elapsed ?? now.elapsed)
        let rate = span > 0 ? Double(now.done - (history.first?.done ?? 0)) / span : 0
        let pace = span > 0 ? (now.fraction - (history.first?.fraction ?? 0)) / span : 0
        let eta = pace > 0 ? Clock.text((1 - now.fraction) / pace) : "?"
        let percent = String(format: "%.1f%%", 100 * now.fraction)

        // Local workers come by themselves, once they have looked through the model's files.
        if now.workers == 0, !isWaiting, now.elapsed > (now.waiting == nil ? 12 : 1) * Self.interval {
            isWaiting = true
            var facts: Logger.Metadata = ["job": "\(job)", "tiles": "\(now.done)/\(total)"]
            if let waiting = now.waiting { facts["endpoint"] = "\(waiting)" }
            logger.warning(
                now.inQuarantine > 0
                    ? "every worker that is here is in quarantine, the job waits for others"
                    : "no worker is connected, the job waits",
                metadata: facts)
        }
        if now.workers > 0 { isWaiting = false }

        let number = min(now.pass, pipeline.passes.count - 1), pass = pipeline.passes[number]
        let step = pass.step.map { "\($0 + 1)/\(pipeline.stepCount)" } ?? "-"
        if isTerminal {
            let width = 24
            let filled = min(width, Int(now.fraction * Double(width)))
            let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
            FarmLogHandler.showBar(
                "\(bar) \(percent)  \(pass.name) \(step)  \(String(format: "%.1f", rate)) tiles/s  "
                    + "eta \(eta)  workers \(now.workers)")
        } else if now.elapsed >= nextLine, now.workers > 0 {
            nextLine = now.elapsed + Self.interval
            logger.info(
                "progress",
                metadata: [
                    "job": "\(job)", "stage": "\(pipeline.stage(of: number) + 1)/\(pipeline.stages.count)",
                    "pass": "\(pass.name)", "step": "\(step)", "tiles": "\(now.done)/\(total)", "done": "\(percent)",
                    "rate": "\(String(format: "%.1f", rate))/s", "elapsed": "\(Clock.text(now.elapsed))",
                    "eta": "\(eta)", "workers": "\(now.workers)", "inflight": "\(now.inFlight)",
                    "retried": "\(now.retried)", "copies": "\(now.copies)", "slowest": "\(now.slowest ?? "-")",
                ])
        }
    }
}
