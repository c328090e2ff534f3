import Engine
import Foundation
import Logging
import Protocol

/// The loop of `FarmLink.run`, on its thread. Messages are in `FarmLoop+Messages`, `FarmLoop+Tasks` and
/// `FarmLoop+Models`.
final class FarmLoop {
    let link: FarmLink
    let connection: Connection

    private(set) var session = Session.new()
    /// Set once the worker was told to leave.
    private(set) var departure: Departure?
    var loaded = LoadedModels()
    var counts = Counts()

    private var beat: Duration
    private var nextBeat = ContinuousClock.now

    /// The end of the work, on its way.
    struct Departure {
        let reason: String
        /// Until then what was said may leave; nil while tasks run.
        var deadline: ContinuousClock.Instant?
    }

    /// Counts of a worker's life.
    struct Counts {
        var tiles = 0
        var failures = 0
        var dropped = 0
        var secondsBusy = 0.0
    }

    var logger: Logger { link.logger }
    var settings: WorkerSettings { link.settings }

    init(_ link: FarmLink) throws {
        self.link = link
        connection = try Connection(link.settings, logger: link.logger)
        beat = .milliseconds(link.settings.heartbeatMilliseconds)
    }

    func run() throws -> WorkerEnding {
        logger.info(
            "worker started",
            metadata: [
                "name": "\(settings.name)", "lanes": "\(settings.lanes)", "kernels": "\(settings.kernels)",
                "endpoint": "\(settings.endpoint)",
            ])
        var ending: WorkerEnding?
        while ending == nil {
            let pause = max(.zero, min(nextBeat, departure?.deadline ?? nextBeat) - ContinuousClock.now)
            try connection.wait(link.wakeup, milliseconds: Int(pause / .milliseconds(1)) + 1)
            while ending == nil, let isLost = try connection.nextLoss(isJoined: session.membership != nil) {
                if isLost { ending = lostConnection() }
            }
            // Bounded, so that a flood holds up no heartbeat.
            for _ in 0..<256 {
                guard ending == nil, let frames = try connection.receive() else { break }
                ending = try receive(frames)
            }
            if ending == nil { ending = try takeInbox() }
            takeFinished()
            if ContinuousClock.now >= nextBeat {
                try keepAlive()
                if let parent = settings.parent, getppid() != parent {
                    ending = ending ?? .stopped(reason: "the program that started this worker has ended")
                }
            }
            try connection.flush(hello: hello)
            if ending == nil { ending = finishLeaving() }
        }
        logger.info(
            "worker stopped",
            metadata: [
                "reason": "\(ending?.reason ?? "")", "tiles": "\(counts.tiles)", "failed": "\(counts.failures)",
                "dropped": "\(counts.dropped)", "busy": "\(String(format: "%.2f", counts.secondsBusy))",
            ])
        return ending ?? .drained
    }

    private func hello() -> Hello {
        Hello(
            session: session.id, name: settings.name, host: Machine.name, lanes: settings.lanes,
            kernels: settings.kernels, memoryBytes: Machine.memoryBytes, credit: link.lanes.credit,
            blobBytes: link.blobs.capacity)
    }

    /// Every beat: say hello or that we live, and look whether the coordinator does.
    private func keepAlive() throws {
        nextBeat = ContinuousClock.now + beat
        // A piece of a model takes its time on a slow network; heartbeats are far smaller.
        let grows = connection.hasGrown()
        if connection.fallsSilent(tolerance), case .joined = session {
            beginSession()
            try connection.reconnect()
        }
        if let membership = session.membership, case .fetching(var fetch) = membership.preparing {
            if grows { fetch.lastPiece = .now }
            membership.preparing = .fetching(fetch)
            if ContinuousClock.now - fetch.lastPiece > beat * (2 * Connection.patience) {
                logger.warning("coordinator sends no more of the model, joining anew")
                beginSession()
            }
        }
        guard try connection.resume() else { return }
        switch session {
        case .seeking:
            if departure == nil { try connection.greet(every: beat) }
        case .joined:
            if connection.unsent < 2 { connection.post(.heartbeat(link.lanes.heartbeat)) }
        }
    }

    /// Silence after which the coordinator counts as gone.
    private var tolerance: Duration {
        switch session {
        case .seeking: beat * Connection.patience
        case .joined(let membership): .milliseconds(membership.welcome.silenceMilliseconds)
        }
    }

    private func lostConnection() -> WorkerEnding? {
        // What the coordinator said last is gone with the connection, if it was not read before.
        guard settings.parent == nil else {
            return .stopped(reason: "the program that started this worker has ended the connection")
        }
        logger.info("connection lost, joining anew", metadata: ["endpoint": "\(settings.endpoint)"])
        // libzmq connects again by itself, but the coordinator will not know the new connection.
        beginSession()
        return nil
    }

    // MARK: - Sessions

    func join(_ welcome: Welcome) {
        session = .joined(Membership(id: session.id, welcome: welcome))
        beat = .milliseconds(welcome.heartbeatMilliseconds)
        nextBeat = ContinuousClock.now + beat
        connection.joined()
    }

    /// Forgets the session: tasks that wait, blobs, results that were not sent.
    /// - Parameter greets: whether a hello is due at once.
    func beginSession(greets: Bool = true) {
        counts.dropped += link.lanes.takeBack().count + (session.membership?.parked.count ?? 0)
        link.blobs.removeAll()
        session = .new()
        beat = .milliseconds(settings.heartbeatMilliseconds)
        connection.beginSession(greets: greets && departure == nil)
    }

    // MARK: - Leaving

    /// Gives back what waits; what runs is finished.
    /// - Returns: why the worker ends, where nobody knows of it.
    func leave(_ reason: String) -> WorkerEnding? {
        departure = Departure(reason: reason)
        let waiting = link.lanes.takeBack().filter { $0.session == session.id }
        let returned = waiting + (session.membership?.parked.takeAll() ?? [])
        logger.info(
            "draining",
            metadata: [
                "reason": "\(reason)", "running": "\(link.lanes.heartbeat.running.count)",
                "returned": "\(returned.count)",
            ])
        guard case .joined = session else { return .drained }
        connection.post(.leaving(reason: reason))
        for assignment in returned { connection.post(.failure(assignment.task.id, .returned)) }
        return nil
    }

    /// - Returns: `drained` when everything is said, or nobody listens any more.
    private func finishLeaving() -> WorkerEnding? {
        guard let leaving = departure, link.lanes.isIdle else { return nil }
        let deadline = leaving.deadline ?? ContinuousClock.now + .seconds(2)
        departure?.deadline = deadline
        return connection.unsent == 0 || ContinuousClock.now >= deadline ? .drained : nil
    }

    /// Says goodbye with the reason.
    func end(_ ending: WorkerEnding) -> WorkerEnding {
        connection.post(.leaving(reason: ending.reason))
        return ending
    }

    /// Seconds as the log has them.
    static func format(_ duration: Duration) -> String { String(format: "%.2f", duration / .seconds(1)) }
}
