import Engine
import Logging
import Protocol
import Synchronization

package struct WorkerSettings: Sendable {
    package var endpoint: Endpoint
    package var name: String
    package var lanes: Int
    package var kernels: String
    package var model: ModelSource
    /// Keys by which the coordinator knows this worker, and this worker the coordinator.
    package var keys: WorkerKeys?
    /// The process that started it: the worker ends with that, and with the farm.
    package var parent: Int32?
    /// Between greetings, until the coordinator says how often it wants to hear from us.
    package var heartbeatMilliseconds = 1000
    /// Bytes that blobs are kept in: a part of the machine's memory, since networks and lanes have theirs.
    package var blobBytes = min(1 << 30, Machine.memoryBytes / 16)
    /// The words for errors that the user can do something about: the program knows which options there are.
    package var words: @Sendable (any Error) -> String = { "\($0)" }
    package var handshakeWords: @Sendable (HandshakeFailure, WorkerKeys?) -> String = { failure, _ in "\(failure)" }
    /// Operations that it can be asked for.
    package var operations = OperationTable.standard

    package init(endpoint: Endpoint, name: String, lanes: Int, kernels: String, model: ModelSource) {
        self.endpoint = endpoint
        self.name = name
        self.lanes = lanes
        self.kernels = kernels
        self.model = model
    }
}

/// Why a worker's work is over.
package enum WorkerEnding: Sendable, Hashable {
    case drained
    /// The farm, or the program that started this worker, has ended.
    case stopped(reason: String)
    /// The coordinator cannot use this worker, or this worker not serve its models.
    case refused(reason: String)
    case failed(reason: String)

    /// The last words, for the coordinator and the log.
    var reason: String {
        switch self {
        case .drained: "drained"
        case .stopped(let reason), .refused(let reason), .failed(let reason): reason
        }
    }
}

/// The worker's side of the protocol. `run` owns the socket and does everything; the rest may be called from any
/// thread.
package final class FarmLink: Sendable {
    let settings: WorkerSettings
    let logger: Logger
    let wakeup: Wakeup
    let lanes: Lanes
    let blobs: BlobStore
    let inbox = Mutex(Inbox())

    /// Messages of other threads for the loop.
    struct Inbox {
        var leaving: String?
        /// Models that were loaded; of several sessions, where one ended while its model was being loaded.
        var prepared: [(session: UInt64, outcome: LoadOutcome)] = []
    }

    /// The outcome of looking for a model and loading it.
    enum LoadOutcome {
        case loaded(any TaskModel)
        /// The store does not have it, or has it damaged.
        case absent
        /// It cannot be served; with nothing else to serve the worker ends so.
        case unfit(WorkerEnding)
    }

    package init(_ settings: WorkerSettings, logger: Logger) throws {
        self.settings = settings
        self.logger = logger
        wakeup = try Wakeup()
        blobs = BlobStore(capacity: settings.blobBytes)
        lanes = Lanes(count: settings.lanes, blobs: blobs, wakeup: wakeup)
    }

    /// Finish what runs, give back what waits, and end.
    package func drain(reason: String) {
        inbox.withLock { $0.leaving = $0.leaving ?? reason }
        wakeup.wake()
    }

    /// Serves until drained, stopped or refused. It blocks its thread, which should do nothing else.
    package func run() -> WorkerEnding {
        defer { lanes.stop() }
        do {
            try lanes.start()
            return try FarmLoop(self).run()
        } catch {
            return .failed(reason: "\(error)")
        }
    }
}
