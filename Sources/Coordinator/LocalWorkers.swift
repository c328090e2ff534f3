import Foundation
import Logging
import ServiceLifecycle
import Synchronization

/// Worker processes on this machine, started for one job and ended with it. One that dies is replaced, a few times.
final class LocalWorkers: Service {
    /// Deaths in a row, without a tile done in between, after which something is wrong with the workers themselves.
    static let patience = 3

    private struct State {
        var running: [Int: Process] = [:]
        /// Deaths in a row, by worker.
        var deaths: [Int: Int] = [:]
        /// The job is over or the program ends: workers may go.
        var isOver = false
    }

    private let executable: URL
    private let endpoint: String
    private let lanes: [Int]
    private let extraArguments: [String]
    private let logger: Logger
    private let state = Mutex(State())
    private let failed: @Sendable (String) -> Void

    /// - Parameters:
    ///   - lanes: of each worker.
    ///   - failed: called once when workers keep dying, with the reason.
    init(
        endpoint: String, lanes: [Int], extraArguments: [String], logger: Logger, failed: @escaping @Sendable (String) -> Void
    ) throws(CommandError) {
        guard let own = Bundle.main.executableURL?.resolvingSymlinksInPath() else { throw .noWorkerProgram("tilefarm-worker") }
        executable = own.deletingLastPathComponent().appending(path: "tilefarm-worker")
        guard FileManager.default.isExecutableFile(atPath: executable.path) else { throw .noWorkerProgram(executable.path) }
        self.endpoint = endpoint
        self.lanes = lanes
        self.extraArguments = extraArguments
        self.logger = logger
        self.failed = failed
    }

    func run() async throws {
        for index in lanes.indices { start(index) }
        // Stops at shutdown, graceful or not.
        try? await gracefulShutdown()
        stop()
    }

    /// A tile was done: whatever died before is forgiven.
    func progressed() { state.withLock { $0.deaths = [:] } }

    /// Workers are told so too, and end by themselves.
    func jobIsOver() { state.withLock { $0.isOver = true } }

    private func start(_ index: Int) {
        let process = Process()
        process.executableURL = executable
        process.arguments = [
            "--connect", endpoint, "--lanes", String(lanes[index]), "--name", "local-\(index + 1)", "--exit-with-parent", "--log-level", "warning",
        ] + extraArguments
        process.standardInput = FileHandle.nullDevice
        process.terminationHandler = { [weak self] process in self?.ended(index, process) }
        do {
            // Under the lock, so that a worker which dies at once is not noted as running after its end.
            try state.withLock { state in
                guard !state.isOver else { return }
                try process.run()
                state.running[index] = process
            }
        } catch {
            failed("\(executable.path) cannot be started: \(error.localizedDescription)")
        }
    }

    private func ended(_ index: Int, _ process: Process) {
        let deaths = state.withLock { state -> Int? in
            if state.running[index] === process { state.running[index] = nil }
            if state.isOver { return nil }
            state.deaths[index, default: 0] += 1
            return state.deaths[index]
        }
        guard let deaths else { return }
        let how = process.terminationReason == .uncaughtSignal ? "signal \(process.terminationStatus)" : "exit code \(process.terminationStatus)"
        if deaths > Self.patience {
            failed("local workers keep ending (last: \(how)); the lines above say why")
        } else {
            logger.warning("local worker ended, starting another", metadata: ["worker": "local-\(index + 1)", "reason": "\(how)"])
            start(index)
        }
    }

    private func stop() {
        let running = state.withLock { state in
            state.isOver = true
            return Array(state.running.values)
        }
        for process in running where process.isRunning { process.terminate() }
        for process in running { process.waitUntilExit() }
    }
}
