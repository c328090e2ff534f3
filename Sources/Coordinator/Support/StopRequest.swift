import Protocol
import Synchronization

/// Stops a farm from another thread.
final class StopRequest: Sendable {
    enum Reason: Sendable, Equatable {
        case cancelled
        /// Local workers cannot go on.
        case failed(String)
    }

    let wakeup: Wakeup
    private let state = Mutex<Reason?>(nil)

    init() throws { wakeup = try Wakeup() }

    var reason: Reason? { state.withLock { $0 } }

    /// The first reason stays.
    func stop(_ reason: Reason) {
        state.withLock { if $0 == nil { $0 = reason } }
        wakeup.wake()
    }
}
