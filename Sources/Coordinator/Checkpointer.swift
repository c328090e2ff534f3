import Engine
import Foundation
import Logging
import Protocol
import Synchronization

/// Writes checkpoints beside the running job: what a checkpoint holds is not written in any more while it is brought to the disk.
final class Checkpointer {
    private enum State {
        case idle
        /// The phases before this one are being finished.
        case awaiting(phase: Int)
        case writing
    }

    private let folder: JobFolder
    private let interval: Double
    private let stop: StopRequest
    private let logger: Logger
    private var state = State.idle
    private var last: Double
    /// The last checkpoint that is safe.
    private(set) var safe: JobFolder.Checkpoint?
    private let outcome = Outcome()
    private var thread: OSThread?

    private final class Outcome: Sendable {
        let value = Mutex<Result<JobFolder.Checkpoint, any Error>?>(nil)
        let isAbandoned = Atomic<Bool>(false)
    }

    init(folder: JobFolder, interval: Double, stop: StopRequest, logger: Logger, now: Double) {
        self.folder = folder
        self.interval = interval
        self.stop = stop
        self.logger = logger
        last = now
        safe = folder.checkpoint
    }

    /// Waits for what is being written, or gives it up where it waits for room.
    func close() {
        outcome.isAbandoned.store(true, ordering: .relaxed)
        thread?.join()
    }

    /// Whether it is time to choose the phase for the next checkpoint.
    func isDue(_ now: Double) -> Bool { if case .idle = state { now - last >= interval } else { false } }

    func await(phase: Int) { state = .awaiting(phase: phase) }

    /// Whether none is under way.
    var isIdle: Bool { if case .idle = state { true } else { false } }

    /// Whether everything that this checkpoint waits for is done.
    func wants(_ phase: Int) -> Bool { if case .awaiting(phase) = state { true } else { false } }

    /// - Parameter checkpoint: but for the files' digests.
    func write(_ checkpoint: JobFolder.Checkpoint, files: [String]) {
        state = .writing
        let (folder, stop, logger, outcome) = (folder, stop, logger, outcome)
        do {
            thread = try OSThread(name: "checkpoint") {
                let result = Result { try Self.write(checkpoint, files: files, folder: folder, logger: logger) { outcome.isAbandoned.load(ordering: .relaxed) } }
                outcome.value.withLock { $0 = result }
                stop.wakeup.wake()
            }
        } catch {
            outcome.value.withLock { $0 = .failure(error) }
        }
    }

    /// Takes note of a checkpoint that has been written, or could not be.
    func collect(_ now: Double) {
        guard let result = outcome.value.withLock({ value in
            defer { value = nil }
            return value
        }) else { return }
        state = .idle
        last = now
        switch result {
        case .success(let checkpoint): safe = checkpoint
        case .failure(let error): logger.warning("no checkpoint", metadata: ["reason": "\(error)", "next": "in \(ProgressLine.clock(interval))"])
        }
    }

    private static func write(
        _ checkpoint: JobFolder.Checkpoint, files: [String], folder: JobFolder, logger: Logger, isAbandoned: () -> Bool
    ) throws -> JobFolder.Checkpoint {
        let start = Clock.now
        var checkpoint = checkpoint
        for name in files {
            let path = folder.path(name)
            let descriptor = open(path, O_RDWR | O_CLOEXEC)
            guard descriptor >= 0 else { throw JobFolderError.cannotWrite(path: path, code: errno) }
            defer { Glibc.close(descriptor) }
            guard fdatasync(descriptor) == 0 else { throw JobFolderError.cannotWrite(path: path, code: errno) }
            checkpoint.files[name] = try ContentDigest(file: path).hex
        }
        var isWaiting = false
        while true {
            do {
                try folder.write(checkpoint)
                break
            } catch let error as JobFolderError where error.isDiskFull && !isAbandoned() {
                if !isWaiting { logger.warning("no room for the checkpoint: it waits until there is some, the one before it stays", metadata: ["job": "\(checkpoint.job)", "folder": "\(folder.url.path)"]) }
                isWaiting = true
                Thread.sleep(forTimeInterval: 0.5)
            }
        }
        logger.info(
            "checkpoint",
            metadata: [
                "job": "\(checkpoint.job)", "phase": "\(checkpoint.phase)", "seconds": "\(String(format: "%.2f", Clock.now - start))",
                "folder": "\(folder.url.path)",
            ])
        return checkpoint
    }
}
