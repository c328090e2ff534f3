import Protocol
import ServiceLifecycle
import Synchronization

/// The worker as a long-running part of the process: drains on graceful shutdown.
final class WorkerService: Service {
    let link: FarmLink
    let ending = Mutex<WorkerEnding?>(nil)

    init(link: FarmLink) {
        self.link = link
    }

    func run() async throws {
        try await withGracefulShutdownHandler {
            try await withCheckedThrowingContinuation { continuation in
                do {
                    _ = try OSThread(name: "farm-link") { [self] in
                        let reason = link.run()
                        ending.withLock { $0 = reason }
                        continuation.resume()
                    }
                } catch {
                    continuation.resume(throwing: error)
                }
            }
        } onGracefulShutdown: { [link] in
            link.drain(reason: "shutdown")
        }
    }
}
