import Foundation
import Logging
import Protocol

/// How a worker comes by the job's model.
extension FarmLoop {
    /// Times that a model is fetched anew when it arrives damaged.
    private static let attempts = 3

    /// Looks for the model and loads it.
    func prepare(_ welcome: Welcome) throws {
        let (manifest, precision) = (welcome.manifest, welcome.precision)
        switch settings.model {
        case .loaded(let model):
            begin(welcome, model)
        case .folder(let folder, let load):
            try prepare(welcome) {
                guard ModelStore.matches(manifest, folder: folder) else {
                    return .mismatch(
                        "the model in \(folder.path) is not the job's (\(manifest.digest.short)); leave --model out to fetch that"
                    )
                }
                return .loaded(try load(folder, precision))
            }
        case .store(let store, let load):
            try prepare(welcome) { try store.find(manifest).map { .loaded(try load($0, precision)) } ?? .absent }
        }
    }

    /// Does what takes its time with a model on a thread of its own, so that heartbeats go on.
    private func prepare(_ welcome: Welcome, _ work: @escaping @Sendable () throws -> FarmLink.Preparation) throws {
        phase = .preparing(welcome)
        let (link, session) = (link, session)
        _ = try OSThread(name: "model", stackBytes: 16 << 20) {
            let outcome: FarmLink.Preparation
            do { outcome = try work() } catch { outcome = .failed("\(error)") }
            link.inbox.withLock { $0.prepared.append((session, outcome)) }
            link.wakeup.wake()
        }
    }

    /// - Returns: why the worker ends, where it does.
    func fetch(_ welcome: Welcome) -> WorkerEnding? {
        guard case .store(let store, _) = settings.model else { return nil }
        do {
            downloads += 1
            let download = try store.download(welcome.manifest)
            phase = .fetching(welcome, download, since: ContinuousClock.now)
            lastPiece = ContinuousClock.now
            for request in download.requests() { post(request) }
            if download.isComplete { try install(welcome, download, since: lastPiece) }
            return nil
        } catch {
            return leave(.failed(reason: "\(error)"))
        }
    }

    /// Takes a piece of the model.
    /// - Returns: why the worker ends, where it does.
    func take(file: Int, offset: Int, _ bytes: Frame) throws -> WorkerEnding? {
        guard case .fetching(let welcome, let download, let since) = phase else { return nil }
        lastPiece = ContinuousClock.now
        do {
            try download.receive(file: file, offset: offset, bytes)
            for request in download.requests() { post(request) }
            if download.isComplete { try install(welcome, download, since: since) }
            return nil
        } catch ModelFileError.unexpectedPiece {
            // Asked for before the download began anew.
            return nil
        } catch ModelFileError.damaged(let name) where downloads < Self.attempts {
            logger.warning(
                "model arrived damaged, fetching it again", metadata: ["file": "\(name)", "attempt": "\(downloads)"])
            return fetch(welcome)
        } catch {
            return leave(.failed(reason: "\(error)"))
        }
    }

    private func install(_ welcome: Welcome, _ download: ModelDownload, since: ContinuousClock.Instant) throws {
        guard case .store(_, let load) = settings.model else { return }
        logger.info(
            "model fetched",
            metadata: [
                "model": "\(welcome.manifest.digest.short)", "bytes": "\(download.receivedBytes)",
                "seconds": "\(Self.format(seconds: (ContinuousClock.now - since) / .seconds(1)))",
            ])
        let precision = welcome.precision
        // Handed to the thread that starts here, and not used by this one again. Where another worker of this machine
        // was faster, its copy is read and hashed there.
        nonisolated(unsafe) let download = download
        try prepare(welcome) { .loaded(try load(download.install(), precision)) }
    }
}
