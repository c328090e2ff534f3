import Foundation
import Logging
import Synchronization

/// Worker processes on this machine, started for one job and ended with it. One that dies, or is stuck, is replaced, a
/// few times.
final class LocalWorkers: Sendable {
    /// Deaths in a row, without a tile done in between, after which something is wrong with the workers themselves.
    static let patience = 3
    /// For leaving by themselves when the job is over; what they are still at is of no use to anybody.
    static let secondsToLeave = 2.0

    private struct State {
        var running: [Int: (process: Process, started: Double)] = [:]
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
    ///   - failed: called when workers keep dying, perhaps by more than one of them, with the reason.
    init(
        endpoint: String, lanes: [Int], extraArguments: [String], logger: Logger,
        failed: @escaping @Sendable (String) -> Void
    ) throws(RunError) {
        guard let own = Bundle.main.executableURL?.resolvingSymlinksInPath() else {
            throw .noWorkerProgram("tilefarm-worker")
        }
        executable = own.deletingLastPathComponent().appending(path: "tilefarm-worker")
        guard FileManager.default.isExecutableFile(atPath: executable.path) else {
            throw .noWorkerProgram(executable.path)
        }
        self.endpoint = endpoint
        self.lanes = lanes
        self.extraArguments = extraArguments
        self.logger = logger
        self.failed = failed
    }

    func start() {
        for index in lanes.indices { start(index) }
    }

    /// A tile was done: whatever died before is forgiven.
    func progressed() { state.withLock { $0.deaths = [:] } }

    /// Workers are told so too, and end by themselves.
    func jobIsOver() { state.withLock { $0.isOver = true } }

    /// The farm hears nothing of a worker, or hears that it does not get on: it is killed, so that another is started.
    /// - Parameter heard: when it last said something. A process that was started after that is another one's
    ///   successor.
    func replace(_ name: String, heard: Double) {
        let stuck = state.withLock { state in
            state.running.first { Self.name($0.key) == name && $0.value.started < heard }?.value.process
        }
        if let stuck { Self.kill(stuck) }
    }

    private static func name(_ index: Int) -> String { "local-\(index + 1)" }

    private static func kill(_ process: Process) {
        if process.isRunning { Glibc.kill(process.processIdentifier, SIGKILL) }
    }

    private func start(_ index: Int) {
        let process = Process()
        process.executableURL = executable
        process.arguments =
            [
                "--connect", endpoint, "--lanes", String(lanes[index]), "--name", Self.name(index),
                "--exit-with-parent", String(getpid()), "--log-level", "warning",
            ] + extraArguments
        process.standardInput = FileHandle.nullDevice
        process.terminationHandler = { [weak self] process in self?.ended(index, process) }
        do {
            // Under the lock, so that a worker which dies at once is not noted as running after its end.
            try state.withLock { state in
                guard !state.isOver else { return }
                try process.run()
                state.running[index] = (process, Clock.now)
            }
        } catch {
            failed("\(executable.path) cannot be started: \(error.localizedDescription)")
        }
    }

    private func ended(_ index: Int, _ process: Process) {
        let deaths = state.withLock { state -> Int? in
            if state.running[index]?.process === process { state.running[index] = nil }
            if state.isOver { return nil }
            state.deaths[index, default: 0] += 1
            return state.deaths[index]
        }
        guard let deaths else { return }
        let how =
            process.terminationReason == .uncaughtSignal
            ? "signal \(process.terminationStatus)" : "exit code \(process.terminationStatus)"
        if deaths > Self.patience {
            failed("local workers keep ending (last: \(how)); the lines above say why")
        } else {
            logger.warning(
                "local worker ended, starting another", metadata: ["worker": "\(Self.name(index))", "reason": "\(how)"])
            start(index)
        }
    }

    /// Returns when every worker has ended: by itself, or killed after `secondsToLeave`.
    func stop() {
        let running = state.withLock { state in
            state.isOver = true
            return state.running.values.map(\.process)
        }
        for process in running where process.isRunning { process.terminate() }
        // One that is stopped, or at a long tile, would be waited for.
        let impatience = DispatchWorkItem { for process in running { Self.kill(process) } }
        DispatchQueue.global().asyncAfter(deadline: .now() + Self.secondsToLeave, execute: impatience)
        for process in running { process.waitUntilExit() }
        impatience.cancel()
    }
}
