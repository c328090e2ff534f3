import Engine
import Foundation
import Logging
import Protocol
import Synchronization

/// Writes checkpoints beside the running job: what a checkpoint holds is not written in any more while it is brought to
/// the disk.
final class Checkpointer {
    private enum State {
        case idle
        /// The passes before this one are being finished.
        case awaiting(pass: Int)
        case writing
    }

    private let folder: JobFolder
    private let interval: Double
    private let logger: Logger
    private var state = State.idle
    private var last: Double
    /// The last checkpoint that is safe.
    private(set) var safe: JobFolder.Checkpoint?
    private let progress = Progress()
    private var thread: OSThread?

    /// The output is mostly written within so many seconds, and then needs no checkpoint, which would take the disk's
    /// time from it.
    private static let lastPause = 60.0

    private enum Closing: UInt8, AtomicRepresentable {
        case not
        /// Nothing is waited for any more.
        case hurry
        /// Nobody needs a checkpoint any more.
        case abandon
    }

    private final class Progress: Sendable {
        let outcome = Mutex<JobFolder.Checkpoint??>(nil)
        let closing = Atomic<Closing>(.not)

        var isClosing: Bool { closing.load(ordering: .relaxed) != .not }
        var isAbandoned: Bool { closing.load(ordering: .relaxed) == .abandon }
    }

    init(folder: JobFolder, interval: Double, logger: Logger, now: Double) {
        self.folder = folder
        self.interval = interval
        self.logger = logger
        last = now
        safe = folder.checkpoint
    }

    /// Waits for what is being written, or gives it up where it waits for room.
    /// - Parameter isFinished: the output is there, and no checkpoint is needed.
    func close(isFinished: Bool) {
        progress.closing.store(isFinished ? .abandon : .hurry, ordering: .relaxed)
        thread?.join()
    }

    /// Whether it is time to choose the boundary of the next checkpoint.
    func isDue(_ now: Double) -> Bool { if case .idle = state { now - last >= interval } else { false } }

    func await(pass: Int) { state = .awaiting(pass: pass) }

    /// Whether everything that this checkpoint waits for is done.
    func wants(_ pass: Int) -> Bool { if case .awaiting(pass) = state { true } else { false } }

    /// - Parameters:
    ///   - checkpoint: but for the files' digests
    ///   - isLast: all that is left is to write the output
    func write(_ checkpoint: JobFolder.Checkpoint, files: [String], isLast: Bool) {
        state = .writing
        let (folder, logger, progress, before) = (folder, logger, progress, thread)
        let start = Clock.now + (isLast ? min(interval, Self.lastPause) : 0)
        let next = "in \(Clock.text(interval))"
        do {
            thread = try OSThread(name: "checkpoint") {
                before?.join()
                var written: JobFolder.Checkpoint?
                while Clock.now < start, !progress.isClosing { Thread.sleep(forTimeInterval: 0.05) }
                do {
                    written = try Self.write(checkpoint, files: files, folder: folder, logger: logger, progress)
                } catch {
                    logger.warning(
                        "no checkpoint", metadata: ["reason": "\(error)", "next": isLast ? "none" : "\(next)"])
                }
                progress.outcome.withLock { $0 = .some(written) }
            }
        } catch {
            logger.warning("no checkpoint", metadata: ["reason": "\(error)", "next": "\(next)"])
            progress.outcome.withLock { $0 = .some(nil) }
        }
    }

    /// Takes note of a checkpoint that has been written, or could not be.
    func collect(_ now: Double) {
        guard
            let written = progress.outcome.withLock({ outcome in
                defer { outcome = nil }
                return outcome
            })
        else { return }
        state = .idle
        last = now
        if let written { safe = written }
    }

    /// - Returns: nil when it is abandoned.
    private static func write(
        _ checkpoint: JobFolder.Checkpoint, files: [String], folder: JobFolder, logger: Logger, _ progress: Progress
    ) throws -> JobFolder.Checkpoint? {
        let start = Clock.now
        var checkpoint = checkpoint
        for name in files {
            if progress.isAbandoned { return nil }
            let path = folder.path(name)
            let descriptor = open(path, O_RDWR | O_CLOEXEC)
            guard descriptor >= 0 else { throw JobFolderError.cannotWrite(path: path, code: errno) }
            defer { Glibc.close(descriptor) }
            guard fdatasync(descriptor) == 0 else { throw JobFolderError.cannotWrite(path: path, code: errno) }
            if progress.isAbandoned { return nil }
            checkpoint.files[name] = try ContentDigest(file: path).hex
        }
        var isWaiting = false
        while true {
            if progress.isAbandoned { return nil }
            do {
                try folder.write(checkpoint)
                break
            } catch let error as JobFolderError where error.isDiskFull && !progress.isClosing {
                if !isWaiting {
                    logger.warning(
                        "no room for the checkpoint: it waits until there is some, the one before it stays",
                        metadata: ["job": "\(checkpoint.job)", "folder": "\(folder.url.path)"])
                }
                isWaiting = true
                Thread.sleep(forTimeInterval: 0.5)
            }
        }
        logger.info(
            "checkpoint",
            metadata: [
                "job": "\(checkpoint.job)", "pass": "\(checkpoint.pass)",
                "seconds": "\(String(format: "%.2f", Clock.now - start))",
                "folder": "\(folder.url.path)",
            ])
        return checkpoint
    }
}
