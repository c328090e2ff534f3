import Foundation
import Glibc
import Logging
import Protocol

/// How much of a job's work is done.
struct JobProgress {
    private let costs: [Double]
    private let total: Double
    private var done: Double

    /// - Parameter first: the phases before it are done.
    init(_ plan: RenderPlan, startingAt first: Int) {
        let costs = plan.costs
        func cost(of phases: Range<Int>) -> Double { phases.reduce(0) { $0 + costs[$1] * Double(plan.step($1).count) } }
        self.costs = costs
        total = cost(of: plan.phases.indices)
        done = cost(of: 0..<first)
    }

    /// From 0 to 1.
    var share: Double { done / total }

    /// A tile of this phase is merged.
    mutating func merged(phase: Int) { done += costs[phase] }
}

/// Tells how far a job is: a line in the log every few seconds, or a bar where a person looks at a terminal.
package struct ProgressLine {
    /// Between two lines of the log.
    static let interval = 5.0

    private let job: UInt64
    private let steps: Int
    private let total: Int
    private let isTerminal = isatty(STDERR_FILENO) == 1
    private var nextLine = interval
    private var isWaiting = false
    /// Elapsed seconds, tiles done and the share of the work of the last half minute, for the rate and the rest of the
    /// time.
    private var history: [(elapsed: Double, done: Int, share: Double)] = []

    package init(job: UInt64, steps: Int, total: Int) {
        self.job = job
        self.steps = steps
        self.total = total
    }

    /// - Parameter waiting: the endpoint where workers are waited for, nil when they are local.
    package mutating func update(
        done: Int, share: Double, phase: RenderPlan.Phase, inFlight: Int, retried: Int, copies: Int, workers: Int,
        inQuarantine: Int,
        waiting: String?, slowest: String?, elapsed: Double,
        logger: Logger
    ) {
        history.append((elapsed, done, share))
        history.removeAll { $0.elapsed < elapsed - 30 }
        let span = elapsed - (history.first?.elapsed ?? elapsed)
        let rate = span > 0 ? Double(done - (history.first?.done ?? 0)) / span : 0
        let pace = span > 0 ? (share - (history.first?.share ?? 0)) / span : 0
        let eta = pace > 0 ? Self.clock((1 - share) / pace) : "?"
        let percent = String(format: "%.1f%%", 100 * share)

        // Local workers come by themselves, once they have looked through the model's files.
        if workers == 0, !isWaiting, elapsed > (waiting == nil ? 12 : 1) * Self.interval {
            isWaiting = true
            var facts: Logger.Metadata = ["job": "\(job)", "tiles": "\(done)/\(total)"]
            if let waiting { facts["endpoint"] = "\(waiting)" }
            logger.warning(
                inQuarantine > 0
                    ? "every worker that is here is in quarantine, the job waits for others"
                    : "no worker is connected, the job waits",
                metadata: facts)
        }
        if workers > 0 { isWaiting = false }

        let step: String
        if case .denoise(let number) = phase { step = "\(number + 1)/\(steps)" } else { step = "-" }
        if isTerminal {
            let width = 24
            let filled = min(width, Int(share * Double(width)))
            let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
            FarmLogHandler.showBar(
                "\(bar) \(percent)  \(phase.name) \(step)  \(String(format: "%.1f", rate)) tiles/s  eta \(eta)  workers \(workers)"
            )
        } else if elapsed >= nextLine, workers > 0 {
            nextLine = elapsed + Self.interval
            logger.info(
                "progress",
                metadata: [
                    "job": "\(job)", "stage": "1/1", "phase": "\(phase.name)", "step": "\(step)",
                    "tiles": "\(done)/\(total)", "done": "\(percent)",
                    "rate": "\(String(format: "%.1f", rate))/s", "elapsed": "\(Self.clock(elapsed))", "eta": "\(eta)",
                    "workers": "\(workers)",
                    "inflight": "\(inFlight)", "retried": "\(retried)", "copies": "\(copies)",
                    "slowest": "\(slowest ?? "-")",
                ])
        }
    }

    /// 42s, 4m12s, 3h05m.
    static func clock(_ seconds: Double) -> String {
        let total = Int(max(0, min(seconds.isFinite ? seconds : 0, 1e9)).rounded())
        if total >= 3600 { return "\(total / 3600)h" + String(format: "%02dm", total / 60 % 60) }
        return total >= 60 ? "\(total / 60)m" + String(format: "%02ds", total % 60) : "\(total)s"
    }
}
