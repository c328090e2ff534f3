internal import CZeroMQ
internal import Glibc

/// A worker's socket (DEALER): connects, and connects again when the connection is lost, with growing, jittered pauses.
/// It belongs to the thread that makes it; nothing in it waits but `wait`.
public final class DealerSocket {
    /// What became of the connection.
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

    /// - Parameters:
    ///   - lingerMilliseconds: how long closing waits for the last messages to leave.
    ///   - keys: encrypts, and talks to the coordinator of that key alone.
    public init(
        _ context: SocketContext, connect endpoint: Endpoint, maximumFrameBytes: Int = WireLimits.tensorBytes,
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
        try socket.connect(endpoint)
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

    /// What happened to the connection next, nil when nothing did.
    public func event() throws(SocketError) -> Event? {
        try readMonitor()
        return events.isEmpty ? nil : events.removeFirst()
    }

    private func readMonitor() throws(SocketError) {
        while let event = try monitor.next() {
            switch event {
            case .connected(let descriptor): connection = TCPConnection(descriptor: descriptor)
            case .handshakeSucceeded: events.append(.connected)
            case .handshakeFailed(let failure): events.append(.refused(failure))
            case .disconnected:
                connection = nil
                events.append(.lost)
            case .accepted: continue
            }
        }
        // Whoever does not ask has no use for them.
        if events.count > 64 { events.removeFirst(events.count - 64) }
    }

    /// What the kernel has of the coordinator's stream, whole messages or not; nil without a TCP connection.
    public var stream: (bytes: UInt64, sinceLast: Duration)? {
        connection?.traffic.map { ($0.bytesReceived, .milliseconds(Int($0.millisecondsSinceData))) }
    }

    /// Can be read when something may have come, until `receive` has returned nil.
    package func descriptor() throws(SocketError) -> Int32 { try socket.descriptor() }

    /// Lets this process open as much as it may: each of these sockets takes five descriptors.
    package static func raiseDescriptorLimit() { _ = raise_descriptor_limit() }

    /// Ends the connection and makes no other until `connect`.
    public func disconnect() throws(SocketError) {
        connection = nil
        try socket.disconnect(endpoint)
    }

    /// Connects again after `disconnect`.
    public func connect() throws(SocketError) { try socket.connect(endpoint) }

    /// Waits for a message, for something to happen to the connection, for room to send when `writable`, for `wakeup`,
    /// or until the time is over (nil: for ever).
    public func wait(_ wakeup: Wakeup?, milliseconds: Int?, writable: Bool = false) throws(SocketError) -> Readiness {
        let readiness = try socket.wait(
            wakeup, milliseconds: milliseconds, writable: writable, descriptor: monitor.descriptor())
        // Also for those who do not ask: what is not read would end the next wait at once.
        try readMonitor()
        return readiness
    }
}
