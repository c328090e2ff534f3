import Engine
import Foundation
import Logging
import Protocol

/// What `FarmLink.run` does, on its thread.
final class FarmLoop {
    enum Phase {
        /// Nobody has welcomed us: say hello at every beat.
        case seeking
        /// The model is looked for or loaded on a thread of its own.
        case preparing(Welcome)
        case fetching(Welcome, ModelDownload, since: ContinuousClock.Instant)
        case working(Welcome, LoadedModel)
    }

    let link: FarmLink
    private let context: SocketContext
    private var socket: DealerSocket

    var phase = Phase.seeking
    var session = UInt64.random(in: 0 ... .max)
    private var beat: Duration
    private var nextBeat = ContinuousClock.now
    /// Messages that wait for room or for a connection.
    private var outbox: [[Frame]] = []
    private var lastHeard = ContinuousClock.now
    /// The last piece of a model that came.
    var lastPiece = ContinuousClock.now
    var downloads = 0
    private var isSilent = false
    /// The job was said to be over: silence is what we expect.
    private var isWaiting = false
    /// A hello waits for a connection.
    private var greets = true
    private var greetings = 0
    /// Times in a row that the coordinator was reached and did not welcome us, and when it is tried again.
    private var rebuffs = 0
    private var reconnectAt: ContinuousClock.Instant?
    private var socketMade = ContinuousClock.now
    private var lastRefusal: (failure: HandshakeFailure, at: ContinuousClock.Instant)?
    /// Bytes that had arrived at the last beat.
    private var bytesReceived: UInt64 = 0
    private var leaving: String?
    private var flushDeadline: ContinuousClock.Instant?
    private var loaded: (model: LoadedModel, digest: ModelDigest, precision: Precision)?

    private var tilesOfJob = 0
    private var tiles = 0
    private var failures = 0
    private var dropped = 0
    private var secondsBusy = 0.0

    /// Beats without a word after which the coordinator counts as gone.
    private static let patience = 5
    /// Beats without a word after which another socket is made: libzmq gives an endpoint up without telling when what
    /// listens there does not speak its protocol.
    private static let socketPatience = 30

    var logger: Logger { link.logger }
    var settings: WorkerSettings { link.settings }

    init(_ link: FarmLink) throws {
        self.link = link
        context = try SocketContext()
        socket = try DealerSocket(context, connect: link.settings.endpoint, keys: link.settings.keys)
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
            let now = ContinuousClock.now
            let pause = max(.zero, min(nextBeat, flushDeadline ?? nextBeat) - now)
            _ = try socket.wait(
                link.wakeup, milliseconds: Int(pause / .milliseconds(1)) + 1, writable: greets || !outbox.isEmpty)
            while ending == nil, let event = try socket.event() { ending = try happened(event) }
            // Bounded, so that a flood holds up no heartbeat.
            for _ in 0..<256 {
                guard ending == nil, let frames = try socket.receive() else { break }
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
            try flush()
            if ending == nil, leaving != nil, link.lanes.isIdle {
                // Everything is said, or nobody listens any more.
                let deadline = flushDeadline ?? ContinuousClock.now + .seconds(2)
                flushDeadline = deadline
                if outbox.isEmpty || ContinuousClock.now >= deadline { ending = .drained }
            }
        }
        logger.info(
            "worker stopped",
            metadata: [
                "reason": "\(ending.map(Self.word) ?? "")", "tiles": "\(tiles)", "failed": "\(failures)",
                "dropped": "\(dropped)",
                "busy": "\(Self.format(seconds: secondsBusy))",
            ])
        return ending ?? .drained
    }

    // MARK: - The connection

    private func happened(_ event: DealerSocket.Event) throws -> WorkerEnding? {
        switch event {
        case .connected:
            lastRefusal = nil
        case .lost:
            guard reconnectAt == nil else { return nil }
            // libzmq connects again by itself, but the coordinator will not know the new connection.
            if case .seeking = phase {
                if !isWaiting { try rebuffed(least: 3) }
            } else if settings.parent != nil {
                // What it said last is gone with the connection, if it was not read before.
                return .stopped(reason: "the program that started this worker has ended the connection")
            } else {
                logger.info("connection lost, joining anew", metadata: ["endpoint": "\(settings.endpoint)"])
                beginSession()
            }
        case .refused(let failure):
            let now = ContinuousClock.now
            if lastRefusal.map({ $0.failure != failure || now - $0.at > .seconds(60) }) ?? true {
                logger.warning(
                    "not let in, still trying",
                    metadata: ["endpoint": "\(settings.endpoint)", "reason": "\(words(failure))"])
                lastRefusal = (failure, now)
            }
            try rebuffed(least: 1)
        }
        return nil
    }

    /// libzmq's pauses grow while nobody answers; where somebody does and ends it, ours do: up to half a minute, no two
    /// workers' alike.
    private func rebuffed(least: Int) throws {
        rebuffs += 1
        guard rebuffs >= least, reconnectAt == nil else { return }
        try socket.disconnect()
        reconnectAt =
            ContinuousClock.now
            + .seconds(min(30, 0.5 * exp2(Double(min(rebuffs - least, 10)))) * Double.random(in: 0.5...1))
    }

    private func words(_ failure: HandshakeFailure) -> String {
        switch failure {
        case .denied:
            "the coordinator's allow-list does not have this worker's key\(settings.keys.map { " \($0.pair.publicKey)" } ?? ""): add it there"
        case .otherMechanism where settings.keys == nil:
            "the coordinator admits only workers with keys: make some with `tilefarm keygen FILE --for COORDINATOR-FILE` and give them with --keys"
        case .otherMechanism:
            "the coordinator has no keys, and this worker talks to nobody else: start the coordinator with --keys, or this worker without"
        case .closed, .cryptographic:
            settings.keys.map {
                "the coordinator is not the one that \($0.path) is for, or of another kind: compare the keys"
            }
                ?? "what listens there ended the handshake: it admits only workers with --keys, or is no tilefarm coordinator"
        case .protocolError:
            "what listens there is no tilefarm coordinator: check the address"
        }
    }

    // MARK: - What comes in

    private func receive(_ frames: [Frame]) throws -> WorkerEnding? {
        let message: CoordinatorMessage
        do {
            message = try CoordinatorMessage(frames: frames)
        } catch WireError.version(let theirs, let ours) {
            return .refused(reason: "\(WireError.version(theirs: theirs, ours: ours))")
        } catch {
            logger.warning("message not understood", metadata: ["error": "\(error)"])
            return nil
        }
        heard()
        switch message {
        case .welcome(let welcome):
            guard welcome.session == session, case .seeking = phase else { return nil }
            return try join(welcome)
        case .refused(let reason):
            return .refused(reason: reason)
        case .task(let task, let inputs):
            take(task, inputs)
        case .chunk(let file, let offset, let bytes):
            return try take(file: file, offset: offset, bytes)
        case .heartbeat:
            break
        case .introduceYourself:
            // Leaving is over for a coordinator that has forgotten us; what still runs would be dropped there.
            guard leaving == nil else { return nil }
            guard case .seeking = phase else {
                logger.info("coordinator does not know this worker, joining anew")
                beginSession()
                return nil
            }
        case .stop(let reason):
            if settings.parent != nil { return .stopped(reason: reason) }
            if case .seeking = phase {
                // The connection's end was seen first.
                isWaiting = true
                return nil
            }
            logger.info("job over, waiting for the next", metadata: ["reason": "\(reason)", "tiles": "\(tilesOfJob)"])
            beginSession()
            // Not at once: this coordinator is about to close.
            greets = false
            isWaiting = true
        }
        return nil
    }

    private func heard() {
        lastHeard = ContinuousClock.now
        greetings = 0
        rebuffs = 0
        if isSilent {
            isSilent = false
            logger.info("coordinator is back", metadata: ["endpoint": "\(settings.endpoint)"])
        }
    }

    private func join(_ welcome: Welcome) throws -> WorkerEnding? {
        if let required = welcome.requiredKernels, required != settings.kernels {
            return .refused(reason: "the job takes kernels '\(required)' only, this worker has '\(settings.kernels)'")
        }
        beat = .milliseconds(welcome.heartbeatMilliseconds)
        nextBeat = ContinuousClock.now + beat
        greets = false
        isWaiting = false
        downloads = 0
        logger.info(
            "connected",
            metadata: [
                "job": "\(welcome.job)", "model": "\(welcome.manifest.digest.short)",
                "endpoint": "\(settings.endpoint)",
            ])
        if let loaded, loaded.digest == welcome.manifest.digest, loaded.precision == welcome.precision {
            begin(welcome, loaded.model)
        } else {
            loaded = nil
            link.lanes.forgetModels()
            try prepare(welcome)
        }
        return nil
    }

    private func takeInbox() throws -> WorkerEnding? {
        let (reason, prepared) = link.inbox.withLock { inbox in
            defer { inbox.prepared = [] }
            return (inbox.leaving, inbox.prepared.last { $0.session == session })
        }
        if let prepared, case .preparing(let welcome) = phase {
            switch prepared.outcome {
            case .loaded(let model):
                loaded = (model, welcome.manifest.digest, welcome.precision)
                begin(welcome, model)
            case .absent:
                if let ending = fetch(welcome) { return ending }
            case .failed(let reason):
                return leave(.failed(reason: reason))
            case .mismatch(let reason):
                return leave(.refused(reason: reason))
            }
        }
        if let reason, leaving == nil {
            leaving = reason
            let waiting = link.lanes.takeBack().filter { $0.session == session }
            logger.info(
                "draining",
                metadata: [
                    "reason": "\(reason)", "running": "\(link.lanes.heartbeat.running.count)",
                    "returned": "\(waiting.count)",
                ])
            if case .seeking = phase { return .drained }
            post(.leaving(reason: reason))
            for assignment in waiting { post(.failure(assignment.task.id, .returned)) }
        }
        return nil
    }

    /// Says goodbye with the reason.
    func leave(_ ending: WorkerEnding) -> WorkerEnding {
        post(.leaving(reason: Self.word(ending)))
        return ending
    }

    func begin(_ welcome: Welcome, _ model: LoadedModel) {
        phase = .working(welcome, model)
        tilesOfJob = 0
        guard leaving == nil else { return }
        post(.ready(credit: link.lanes.credit, model: welcome.manifest.digest))
        logger.info("job started", metadata: ["job": "\(welcome.job)", "credit": "\(link.lanes.credit)"])
    }

    private func take(_ task: FarmTask, _ inputs: [Frame]) {
        guard case .working(let welcome, let model) = phase else { return }
        guard task.id.job == welcome.job, task.model == welcome.manifest.digest else {
            post(.failure(task.id, .error("the task is of job \(task.id.job), this worker serves job \(welcome.job)")))
            return
        }
        let assignment = Lanes.Assignment(session: session, task: task, inputs: inputs, model: model)
        if leaving != nil || !link.lanes.submit(assignment) { post(.failure(task.id, .returned)) }
    }

    private func takeFinished() {
        for finished in link.lanes.collect() {
            secondsBusy += finished.seconds
            guard finished.session == session else {
                dropped += 1
                continue
            }
            switch finished.outcome {
            case .success(let answer):
                tiles += 1
                tilesOfJob += 1
                post(
                    .result(
                        finished.task, seconds: finished.seconds, answer.frame, checksum: finished.checksum,
                        note: answer.note))
            case .failure(let failure):
                failures += 1
                logger.warning("task failed", metadata: ["task": "\(finished.task)", "error": "\(failure.reason)"])
                post(.failure(finished.task, .error(failure.reason)))
            }
        }
    }

    // MARK: - What goes out

    func post(_ message: WorkerMessage) {
        do {
            outbox.append(try message.frames())
        } catch {
            logger.error("message cannot be sent", metadata: ["error": "\(error)"])
        }
    }

    private func flush() throws {
        if greets {
            let hello = Hello(
                session: session, name: settings.name, host: Machine.name, lanes: settings.lanes,
                kernels: settings.kernels,
                memoryBytes: Machine.memoryBytes)
            if try socket.send(WorkerMessage.hello(hello).frames()) {
                greets = false
                greetings += 1
            }
        }
        var sent = 0
        while sent < outbox.count, try socket.send(outbox[sent]) { sent += 1 }
        outbox.removeFirst(sent)
    }

    /// Every beat: say hello or that we live, and look whether the coordinator does.
    private func keepAlive() throws {
        let now = ContinuousClock.now
        nextBeat = now + beat
        // A large message that is on its way is a sign of life too.
        let stream = socket.stream
        let silence = min(now - lastHeard, stream?.sinceLast ?? .seconds(1 << 30))
        if silence > tolerance, !isSilent, !isWaiting {
            isSilent = true
            logger.warning(
                "coordinator is silent, still trying",
                metadata: [
                    "endpoint": "\(settings.endpoint)", "seconds": "\(Self.format(seconds: silence / .seconds(1)))",
                ])
            if case .seeking = phase {} else { try reconnect() }
        }
        // A piece takes its time on a slow network; heartbeats are far smaller.
        if let stream {
            if stream.bytes > bytesReceived + 4096 { lastPiece = now }
            bytesReceived = stream.bytes
        }
        if case .fetching = phase, now - lastPiece > beat * (2 * Self.patience) {
            logger.warning("coordinator sends no more of the model, joining anew")
            beginSession()
        }
        if let due = reconnectAt {
            guard now >= due else { return }
            reconnectAt = nil
            try socket.connect()
        }
        if case .seeking = phase {
            // The connection may lead nowhere (a host that was restarted): make another.
            if greetings >= 2 * Self.patience || now - max(lastHeard, socketMade) > beat * Self.socketPatience {
                try reconnect()
            }
            greets = leaving == nil
        } else {
            if outbox.count < 2 { post(.heartbeat(link.lanes.heartbeat)) }
        }
    }

    /// Silence after which the coordinator counts as gone.
    private var tolerance: Duration {
        switch phase {
        case .seeking: beat * Self.patience
        case .preparing(let welcome), .fetching(let welcome, _, _), .working(let welcome, _):
            .milliseconds(welcome.silenceMilliseconds)
        }
    }

    private func reconnect() throws {
        beginSession()
        reconnectAt = nil
        bytesReceived = 0
        socketMade = .now
        socket = try DealerSocket(context, connect: settings.endpoint, keys: settings.keys)
    }

    /// Forgets the session: tasks that wait, results that were not sent.
    private func beginSession() {
        session = UInt64.random(in: 0 ... .max)
        phase = .seeking
        beat = .milliseconds(settings.heartbeatMilliseconds)
        dropped += link.lanes.takeBack().count
        outbox = []
        greets = leaving == nil
        greetings = 0
    }

    private static func word(_ ending: WorkerEnding) -> String {
        switch ending {
        case .drained: "drained"
        case .stopped(let reason), .refused(let reason), .failed(let reason): reason
        }
    }

    static func format(seconds: Double) -> String { String(format: "%.2f", seconds) }
}
