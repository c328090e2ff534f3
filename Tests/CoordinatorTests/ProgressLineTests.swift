import Coordinator
import Logging
import Synchronization
import Testing

@Suite("Progress")
struct ProgressLineTests {
    /// Keeps what is logged.
    private struct Keeper: LogHandler {
        final class Lines: Sendable { let all = Mutex<[String]>([]) }

        let lines: Lines
        var logLevel = Logger.Level.info
        var metadata: Logger.Metadata = [:]
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) { lines.all.withLock { $0.append("\(event.message) \(event.metadata ?? [:])") } }
    }

    /// Warnings of waiting that are logged when there are so many workers at so many seconds.
    private static func warnings(waiting: String?, _ moments: [(elapsed: Double, workers: Int)]) throws -> [String] {
        let lines = Keeper.Lines()
        let logger = Logger(label: "test") { _ in Keeper(lines: lines) }
        var progress = ProgressLine(
            job: 7, pipeline: try SuperResolutionPlanTests.plan(width: 9, height: 9).pipeline, total: 10)
        for (elapsed, workers) in moments {
            progress.update(
                .init(done: 0, fraction: 0, pass: 0, workers: workers, waiting: waiting, elapsed: elapsed),
                logger: logger)
        }
        return lines.all.withLock { $0.filter { $0.contains("the job waits") } }
    }

    @Test("a job says once that it waits and where, when no worker has come in time, and again when all have left")
    func waits() throws {
        let endpoint = "tcp://127.0.0.1:5555"
        #expect(try Self.warnings(waiting: endpoint, [(0, 0), (4, 0), (4.5, 1)]).isEmpty)
        let once = try Self.warnings(waiting: endpoint, [(4, 0), (6, 0), (60, 0)])
        #expect(once.count == 1 && once.allSatisfy { $0.contains(endpoint) && $0.contains("0/10") }, "\(once)")
        #expect(try Self.warnings(waiting: endpoint, [(6, 0), (7, 1), (8, 0)]).count == 2)
    }

    @Test("local workers, which look through the model's files first, get longer before the job says that it waits")
    func waitsForLocalWorkers() throws {
        #expect(try Self.warnings(waiting: nil, [(6, 0), (50, 0)]).isEmpty)
        #expect(try Self.warnings(waiting: nil, [(6, 0), (61, 0)]).count == 1)
    }
}
