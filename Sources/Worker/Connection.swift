import Foundation
import Logging
import Protocol

/// The way to the coordinator: what waits to be sent, and when it is tried anew. libzmq connects again by itself; what
/// it does not see is a peer that ends every connection, one that is silent, and an endpoint that it has given up.
final class Connection {
    private let settings: WorkerSettings
    private let logger: Logger
    private let context: SocketContext
    private var socket: DealerSocket
    /// Messages that wait for room or for a connection.
    private var outbox: [[Frame]] = []
    private var silence = Silence()
    private var greeting = Greeting()
    private var lastRefusal: (failure: HandshakeFailure, at: ContinuousClock.Instant)?

    /// How long the coordinator has said nothing.
    private struct Silence {
        var lastHeard = ContinuousClock.now
        /// Bytes that had arrived at the last beat.
        var bytesReceived: UInt64 = 0
        /// Whether that was spoken of.
        var isLogged = false
        /// The farm was said to be over: silence is what we expect.
        var isExpected = false
    }

    /// How a hello gets through.
    private struct Greeting {
        /// One waits for a connection.
        var isDue = true
        /// Hellos since somebody answered.
        var count = 0
        /// Times in a row that the coordinator was reached and did not welcome us, and when it is tried again.
        var rebuffs = 0
        var reconnectAt: ContinuousClock.Instant?
        var socketMade = ContinuousClock.now
    }

    /// Beats without a word after which the coordinator counts as gone.
    static let patience = 5
    /// Beats without a word after which another socket is made: libzmq gives an endpoint up without telling when what
    /// listens there does not speak its protocol.
    private static let socketPatience = 30

    init(_ settings: WorkerSettings, logger: Logger) throws {
        self.settings = settings
        self.logger = logger
        context = try SocketContext()
        socket = try DealerSocket(context, connect: settings.endpoint, keys: settings.keys)
    }

    func wait(_ wakeup: Wakeup, milliseconds: Int) throws {
        _ = try socket.wait(wakeup, milliseconds: milliseconds, writable: greeting.isDue || !outbox.isEmpty)
    }

    // MARK: Messages

    func receive() throws -> [Frame]? { try socket.receive() }

    func post(_ message: WorkerMessage) {
        do {
            outbox.append(try message.frames())
        } catch {
            logger.error("message cannot be sent", metadata: ["error": "\(error)"])
        }
    }

    /// Sends what there is room for: first a hello, where one is due.
    func flush(hello: () -> Hello) throws {
        if greeting.isDue, try socket.send(WorkerMessage.hello(hello()).frames()) {
            greeting.isDue = false
            greeting.count += 1
        }
        var sent = 0
        while sent < outbox.count, try socket.send(outbox[sent]) { sent += 1 }
        outbox.removeFirst(sent)
    }

    /// Messages that were posted and not sent.
    var unsent: Int { outbox.count }

    // MARK: Sessions

    /// Somebody said something.
    func heard() {
        silence.lastHeard = ContinuousClock.now
        greeting.count = 0
        greeting.rebuffs = 0
        if silence.isLogged {
            silence.isLogged = false
            logger.info("coordinator is back", metadata: ["endpoint": "\(settings.endpoint)"])
        }
    }

    /// Somebody welcomed us.
    func joined() {
        greeting.isDue = false
        silence.isExpected = false
    }

    /// Forgets what was not sent.
    /// - Parameter greets: whether a hello is due at once.
    func beginSession(greets: Bool) {
        outbox = []
        greeting.isDue = greets
        greeting.count = 0
    }

    /// The coordinator is about to close; another may come.
    func expectSilence() { silence.isExpected = true }

    // MARK: What becomes of it

    /// Takes note of what became of the connection next.
    /// - Returns: whether a session's connection is lost; nil when nothing more happened.
    func nextLoss(isJoined: Bool) throws -> Bool? {
        guard let event = try socket.event() else { return nil }
        switch event {
        case .connected:
            lastRefusal = nil
        case .lost:
            guard greeting.reconnectAt == nil else { return false }
            if isJoined { return true }
            if !silence.isExpected { try rebuffed(least: 3) }
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
        return false
    }

    /// libzmq's pauses grow while nobody answers; where somebody does and ends it, ours do: up to half a minute, no two
    /// workers' alike.
    private func rebuffed(least: Int) throws {
        greeting.rebuffs += 1
        guard greeting.rebuffs >= least, greeting.reconnectAt == nil else { return }
        try socket.disconnect()
        let pause = min(30, 0.5 * exp2(Double(min(greeting.rebuffs - least, 10))))
        greeting.reconnectAt = ContinuousClock.now + .seconds(pause) * Double.random(in: 0.5...1)
    }

    /// Whether more has come since the last beat than heartbeats are.
    func hasGrown() -> Bool {
        guard let stream = socket.stream else { return false }
        defer { silence.bytesReceived = stream.bytes }
        return stream.bytes > silence.bytesReceived + 4096
    }

    /// Whether a coordinator that should be heard has fallen silent; told once.
    func fallsSilent(_ tolerance: Duration) -> Bool {
        // A large message that is on its way is a sign of life too.
        let quiet = min(ContinuousClock.now - silence.lastHeard, socket.stream?.sinceLast ?? .seconds(1 << 30))
        guard quiet > tolerance, !silence.isLogged, !silence.isExpected else { return false }
        silence.isLogged = true
        logger.warning(
            "coordinator is silent, still trying",
            metadata: ["endpoint": "\(settings.endpoint)", "seconds": "\(FarmLoop.format(quiet))"])
        return true
    }

    /// Connects again after a pause.
    /// - Returns: false while it lasts.
    func resume() throws -> Bool {
        guard let due = greeting.reconnectAt else { return true }
        guard ContinuousClock.now >= due else { return false }
        greeting.reconnectAt = nil
        try socket.connect()
        return true
    }

    /// A beat without a session: another socket where this one may lead nowhere (a host that was restarted), and a
    /// hello.
    func greet(every beat: Duration) throws {
        if greeting.count >= 2 * Self.patience
            || ContinuousClock.now - max(silence.lastHeard, greeting.socketMade) > beat * Self.socketPatience
        {
            try reconnect()
        }
        greeting.isDue = true
    }

    /// Makes another socket.
    func reconnect() throws {
        outbox = []
        greeting = Greeting(rebuffs: greeting.rebuffs)
        silence.bytesReceived = 0
        socket = try DealerSocket(context, connect: settings.endpoint, keys: settings.keys)
    }

    private func words(_ failure: HandshakeFailure) -> String { settings.handshakeWords(failure, settings.keys) }
}
