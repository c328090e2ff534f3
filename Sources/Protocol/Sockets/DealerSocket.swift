public import Engine
internal import CZeroMQ
internal import Glibc

/// A worker's socket (DEALER): connects, and connects again when the connection is lost, with growing, jittered pauses.
/// A name's addresses are tried one after the other: messages of one that is connected to several go to each in turn.
/// It belongs to the thread that makes it; nothing in it waits but `wait`.
public final class DealerSocket {
    /// A change of the connection.
    public enum Event: Sendable, Hashable {
        case connected
        case lost
        /// The peers did not come to terms; it is tried again.
        case refused(HandshakeFailure)
    }

    private let socket: Socket
    private let monitor: SocketMonitor
    private let endpoint: Endpoint
    private var connection: TCPConnection?
    private var events: [Event] = []
    private var turns = AddressTurns()
    /// The address that is connected to, or tried.
    private var address: Endpoint?
    /// Asks for the name's addresses, while it does.
    private var lookup: HostLookup?
    /// When the next address is tried; nil while there is no reason to.
    private var turnsAt: ContinuousClock.Instant?

    /// - Parameters:
    ///   - lingerMilliseconds: how long closing waits for the last messages to leave.
    ///   - keys: encrypts, and talks to the coordinator of that key alone.
    public init(
        _ context: SocketContext, connect endpoint: Endpoint, maximumFrameBytes: Int = TaskLimits.tensorBytes,
        lingerMilliseconds: Int = 2000, keys: WorkerKeys? = nil
    ) throws(SocketError) {
        self.endpoint = endpoint
        socket = try Socket(
            context, type: ZMQ_DEALER, maximumFrameBytes: maximumFrameBytes,
            lingerMilliseconds: Int32(clamping: lingerMilliseconds))
        // Messages go out over a connection or not at all: stale greetings do not pile up for a coordinator yet to
        // come.
        try socket.set(ZMQ_IMMEDIATE, Int32(1))
        // libzmq's jitter is no more than the first pause, so these differ from worker to worker: a coordinator that
        // comes back does not get a thousand of them at once.
        try socket.set(ZMQ_RECONNECT_IVL, Int32.random(in: 100...300))
        try socket.set(ZMQ_RECONNECT_IVL_MAX, Int32.random(in: 2_500...5_000))
        // After a partition the system's own next try may be half a minute away.
        try socket.set(ZMQ_CONNECT_TIMEOUT, Int32(3_000))
        if let keys {
            try socket.set(ZMQ_CURVE_SERVERKEY, keys.coordinator.description)
            try socket.set(ZMQ_CURVE_PUBLICKEY, keys.pair.publicKey.description)
            try socket.set(ZMQ_CURVE_SECRETKEY, keys.pair.secret)
        }
        let name = "inproc://dealer-\(UInt64.random(in: 0 ... .max))"
        try socket.monitor(name: name)
        do { monitor = try SocketMonitor(context, name: name) } catch {
            socket.stopMonitor()
            throw error
        }
        try connect()
    }

    deinit {
        // Before the monitor's end: telling waits while nobody reads.
        socket.stopMonitor()
    }

    /// Sends a message whole, or returns false when there is no connection or no room for it now.
    public func send(_ frames: [Frame]) throws(SocketError) -> Bool {
        for index in frames.indices {
            switch socket.send(frames[index], more: index != frames.indices.last) {
            case 0: continue
            // Between two parts the connection was lost. libzmq passes over what is said next, up to the end of a
            // message.
            case EAGAIN: return false
            case _: throw .last("zmq_msg_send")
            }
        }
        return true
    }

    /// The next message, nil when there is none now. One of more than `WireLimits.parts` parts is passed over.
    public func receive() throws(SocketError) -> [Frame]? {
        while let (parts, dropped) = try socket.receive(limit: WireLimits.parts) {
            if dropped == 0 { return parts }
        }
        return nil
    }

    /// The connection's next event, nil when there is none.
    public func event() throws(SocketError) -> Event? {
        try readMonitor()
        return events.isEmpty ? nil : events.removeFirst()
    }

    private func readMonitor() throws(SocketError) {
        while let event = try monitor.next() {
            switch event {
            case .connected(let descriptor):
                connection = TCPConnection(descriptor: descriptor)
                turnsAt = nil
            case .retrying(let endpoint):
                // It may be late news of an address before.
                guard endpoint == address?.description, turnsAt == nil, lookup == nil else { continue }
                turnsAt = turns.failed(needsLookup: self.endpoint.needsLookup)
            case .handshakeSucceeded:
                turns.succeeded()
                events.append(.connected)
            case .handshakeFailed(let failure): events.append(.refused(failure))
            case .disconnected:
                connection = nil
                events.append(.lost)
            case .accepted: continue
            }
        }
        // Whoever does not ask has no use for them.
        if events.count > 64 { events.removeFirst(events.count - 64) }
        try takeTurn()
    }

    /// Goes on with another address, or with addresses that were looked up.
    private func takeTurn() throws(SocketError) {
        if let found = lookup?.addresses {
            lookup = nil
            turns.begin(found)
            guard let first = turns.current else { return turnsAt = turns.failed(needsLookup: true) }
            return try connect(to: first)
        }
        guard let due = turnsAt, ContinuousClock.now >= due else { return }
        turnsAt = nil
        if let address { try socket.disconnect(address) }
        (address, connection) = (nil, nil)
        guard turns.next() || !endpoint.needsLookup else { return lookup = try HostLookup(endpoint) }
        if let next = turns.current { try connect(to: next) }
    }

    private func connect(to next: Endpoint) throws(SocketError) {
        address = next
        try socket.connect(next)
    }

    /// The kernel's figures on the coordinator's stream, whole messages or not; nil without a TCP connection.
    public var stream: (bytes: UInt64, sinceLast: Duration)? {
        connection?.traffic.map { ($0.bytesReceived, .milliseconds(Int($0.millisecondsSinceData))) }
    }

    /// Can be read when something may have come, until `receive` has returned nil.
    package func descriptor() throws(SocketError) -> Int32 { try socket.descriptor() }

    /// Lets this process open as much as it may: each of these sockets takes five descriptors.
    package static func raiseDescriptorLimit() { _ = raise_descriptor_limit() }

    /// Ends the connection and makes no other until `connect`.
    public func disconnect() throws(SocketError) {
        (connection, turnsAt, lookup) = (nil, nil, nil)
        guard let address else { return }
        self.address = nil
        try socket.disconnect(address)
        // Who was turned away there may be welcome elsewhere.
        if !turns.isProven { _ = turns.next() }
    }

    /// Connects again after `disconnect`.
    public func connect() throws(SocketError) {
        guard !endpoint.needsLookup else { return lookup = try HostLookup(endpoint) }
        if turns.current == nil { turns.begin(endpoint.addresses()) }
        if let current = turns.current { try connect(to: current) }
    }

    /// Waits for a message, for something to happen to the connection, for room to send when `writable`, for `wakeup`,
    /// or until the time is over (nil: for ever).
    public func wait(_ wakeup: Wakeup?, milliseconds: Int?, writable: Bool = false) throws(SocketError) -> Readiness {
        let descriptors = [try monitor.descriptor(), lookup?.wakeup.descriptor ?? -1]
        // The time until the next address, rounded up.
        let turn = turnsAt.map { max(0, Int(($0 - .now) / .milliseconds(1)) + 1) }
        let readiness = try socket.wait(
            wakeup, milliseconds: [milliseconds, turn].compactMap { $0 }.min(), writable: writable,
            descriptors: descriptors)
        // Also for those who do not ask: what is not read would end the next wait at once.
        try readMonitor()
        return readiness
    }
}

/// Whose turn it is of a name's addresses: one after the other without a pause, then a pause, which grows while none
/// answers, and the first again.
private struct AddressTurns {
    private var addresses: [Endpoint] = []
    private var index = 0
    /// Whether the present one has let us in, and was not lost for good since.
    private(set) var isProven = false
    private var pause = Self.firstPause()
    private let longestPause = Duration.milliseconds(Int.random(in: 2_500...5_000))

    private static func firstPause() -> Duration { .milliseconds(Int.random(in: 100...300)) }

    var current: Endpoint? { addresses.indices.contains(index) ? addresses[index] : nil }

    mutating func begin(_ addresses: [Endpoint]) { (self.addresses, index, isProven) = (addresses, 0, false) }

    mutating func succeeded() { (isProven, pause) = (true, Self.firstPause()) }

    /// The present one did not answer, or its connection is lost.
    /// - Parameter needsLookup: whether even a single address may have become another one
    /// - Returns: when it is the next one's turn; nil where libzmq may go on with this one.
    mutating func failed(needsLookup: Bool) -> ContinuousClock.Instant? {
        // The coordinator that was lost most likely comes back where it was.
        if isProven {
            isProven = false
            return nil
        }
        guard addresses.count > 1 || needsLookup else { return nil }
        if index + 1 < addresses.count { return .now }
        defer { pause = min(pause * 2, longestPause) }
        return .now + pause
    }

    /// - Returns: false when all have had their turn, and the first has it again.
    mutating func next() -> Bool {
        index += 1
        isProven = false
        if index < addresses.count { return true }
        index = 0
        return false
    }
}
