import DequeModule

/// Pieces of the model that workers have asked for: how much of them is on its way, and which have to wait. What was
/// sent and not confirmed lies in this machine's memory, so that is bounded for each worker and for all together.
/// Workers whose connections tell nothing of that (local ones) are ours, and few.
package struct FetchQueue {
    package struct Fetch: Sendable, Equatable {
        package let worker: Int
        package let file, offset, length: Int

        package init(worker: Int, file: Int, offset: Int, length: Int) {
            (self.worker, self.file, self.offset, self.length) = (worker, file, offset, length)
        }
    }

    /// Bytes that a worker may have asked for and not confirmed. Ours keeps eight pieces of 1 MiB on the way.
    package static let workerBytes = 10 << 20
    package static let workerFetches = 16
    /// Bytes that all workers together are sent before one of them confirms.
    package static let farmBytes = 512 << 20
    /// A worker that confirms nothing for so long takes what others wait for.
    package static let patience = 30.0

    private struct State {
        /// Bytes that it was sent and has not confirmed; nil where that cannot be told.
        var unconfirmed: Int?
        var confirmed = 0
        /// When it last confirmed something, or had nothing to.
        var moved: Double
        var waitingFetches = 0
        var waitingBytes = 0
    }

    private var waiting: Deque<Fetch> = []
    private var states: [Int: State] = [:]
    /// Unconfirmed bytes of all workers.
    package private(set) var unconfirmed = 0

    package init() {}

    /// Those that have fetched something and are not forgotten.
    package var workers: [Int] { states.keys.sorted() }

    /// Notes how far a worker is.
    /// - Parameter confirmed: of the bytes that it was `sent`; nil where that cannot be told.
    package mutating func record(_ worker: Int, sent: Int, confirmed: Int?, at now: Double) {
        var state = states[worker] ?? State(moved: now)
        let bytes = confirmed.map { max(0, sent - $0) }
        if bytes ?? 0 == 0 || confirmed ?? 0 > state.confirmed { state.moved = now }
        unconfirmed += (bytes ?? 0) - (state.unconfirmed ?? 0)
        (state.unconfirmed, state.confirmed) = (bytes, confirmed ?? 0)
        states[worker] = state
    }

    /// Puts a fetch of a worker that was noted behind those that wait.
    /// - Returns: false where the worker asks for more than it takes.
    package mutating func add(_ fetch: Fetch) -> Bool {
        guard var state = states[fetch.worker], state.waitingFetches < Self.workerFetches,
            (state.unconfirmed ?? 0) + state.waitingBytes + fetch.length <= Self.workerBytes
        else { return false }
        state.waitingFetches += 1
        state.waitingBytes += fetch.length
        states[fetch.worker] = state
        waiting.append(fetch)
        return true
    }

    /// The piece to be sent now, counted as sent; nil where nothing waits, or too much is on its way.
    package mutating func next() -> Fetch? {
        guard unconfirmed < Self.farmBytes, let fetch = waiting.popFirst() else { return nil }
        guard var state = states[fetch.worker] else { return fetch }
        state.waitingFetches -= 1
        state.waitingBytes -= fetch.length
        if let bytes = state.unconfirmed {
            state.unconfirmed = bytes + fetch.length
            unconfirmed += fetch.length
        }
        states[fetch.worker] = state
        return fetch
    }

    /// Whether a worker has been sent something and has confirmed nothing for too long.
    package func isStuck(_ worker: Int, at now: Double) -> Bool {
        states[worker].map { $0.unconfirmed ?? 0 > 0 && now - $0.moved > Self.patience } ?? false
    }

    /// The worker has the model, or is gone.
    package mutating func forget(_ worker: Int) {
        guard let state = states.removeValue(forKey: worker) else { return }
        unconfirmed -= state.unconfirmed ?? 0
        if state.waitingFetches > 0 { waiting.removeAll { $0.worker == worker } }
    }
}
