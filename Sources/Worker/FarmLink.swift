import Logging
import Protocol
import Synchronization

package struct WorkerSettings: Sendable {
    package var endpoint: Endpoint
    package var name: String
    package var lanes: Int
    package var kernels: String
    package var model: ModelSource
    /// What the coordinator knows this worker by, and this worker the coordinator.
    package var keys: WorkerKeys?
    /// The process that started it: the worker ends with that, and with the job.
    package var parent: Int32?
    /// Between greetings, until the coordinator says how often it wants to hear from us.
    package var heartbeatMilliseconds = 1000

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
    /// The job, or the program that started this worker, has ended.
    case stopped(reason: String)
    /// The coordinator cannot use this worker, or this worker not serve the job.
    case refused(reason: String)
    case failed(reason: String)
}

/// The worker's side of the protocol. `run` owns the socket and does everything; the rest may be called from any
/// thread.
package final class FarmLink: Sendable {
    let settings: WorkerSettings
    let logger: Logger
    let wakeup: Wakeup
    let lanes: Lanes
    let inbox = Mutex(Inbox())

    /// What other threads have for the loop.
    struct Inbox {
        var leaving: String?
        /// Of several sessions, where one ended while its model was being loaded.
        var prepared: [(session: UInt64, outcome: Preparation)] = []
    }

    enum Preparation {
        case loaded(LoadedModel)
        /// The store does not have it, or has it damaged.
        case absent
        case failed(String)
        /// The user's copy is another model.
        case mismatch(String)
    }

    package init(_ settings: WorkerSettings, logger: Logger) throws {
        self.settings = settings
        self.logger = logger
        wakeup = try Wakeup()
        lanes = Lanes(count: settings.lanes, wakeup: wakeup)
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
