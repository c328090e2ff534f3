public import Engine
internal import CZeroMQ
internal import Glibc

/// The address that a router knows a peer by, for as long as its connection lasts.
public struct Peer: Hashable, Sendable, CustomStringConvertible {
    /// libzmq makes them. A peer that chooses them itself, up to 255 of them, is cut where it comes over TCP.
    public let bytes: [UInt8]

    public var description: String { bytes.map { String($0, radix: 16) }.joined(separator: ".") }
}

/// The coordinator's socket (ROUTER). It belongs to the thread that makes it; nothing in it waits but `wait`.
public final class RouterSocket {
    public enum Sent: Sendable, Hashable {
        case sent
        /// The connection is gone; the peer will not come back under this address.
        case peerGone
        /// The peer takes nothing more for now: it holds more than its credit, or its machine hangs.
        case wouldBlock
    }

    public struct Received {
        public let peer: Peer
        /// At most `WireLimits.parts`.
        public let frames: [Frame]
        /// Parts beyond those, read and forgotten: no program of ours sends them.
        public let droppedParts: Int
        /// The TCP connection that it came over; nil when that is gone, or of another kind.
        public let connection: ConnectionID?
        /// Whether the connection that it came over is gone.
        public let isOrphan: Bool
        /// The peer's IP address, where it has one.
        public let address: String?
        /// The name that the allow-list has for the peer's key; nil without keys.
        public let user: String?
    }

    private let socket: Socket
    private var watch: ConnectionWatch?

    /// The endpoint in use, with the port that was chosen for `*`.
    public private(set) var endpoint = ""

    /// - Parameters:
    ///   - maximumFrameBytes: who sends more in one frame is disconnected before it is read; give the largest answer of
    ///     the job.
    ///   - lingerMilliseconds: how long closing waits for the last messages to leave.
    ///   - keys: admits those alone whose keys are on the allow-list, and encrypts; nil admits everybody.
    ///   - limits: of connections over TCP; other endpoints are for those who may reach them. One router of a context
    ///     can listen on TCP.
    public init(
        _ context: SocketContext, bind endpoint: Endpoint, maximumFrameBytes: Int = TaskLimits.tensorBytes,
        lingerMilliseconds: Int = 1000, keys: CoordinatorKeys? = nil, limits: ConnectionLimits = ConnectionLimits()
    ) throws(SocketError) {
        socket = try Socket(
            context, type: ZMQ_ROUTER, maximumFrameBytes: maximumFrameBytes,
            lingerMilliseconds: Int32(clamping: lingerMilliseconds))
        // Without it, a message to a peer that is gone would vanish in silence.
        try socket.set(ZMQ_ROUTER_MANDATORY, Int32(1))
        try socket.set(ZMQ_BACKLOG, Int32(4096))
        if let keys {
            try socket.set(ZMQ_CURVE_SERVER, Int32(1))
            try socket.set(ZMQ_CURVE_SECRETKEY, keys.pair.secret)
        }
        // Over TCP libzmq goes on without descriptors, over IPC it aborts.
        _ = raise_descriptor_limit()
        guard endpoint.isTCP else {
            // Without a door that asks for it, CURVE admits every key.
            guard keys == nil else { throw .badEndpoint(endpoint.description, reason: "keys need tcp://") }
            try socket.bind(endpoint)
            self.endpoint = try socket.lastEndpoint()
            return
        }
        let lastPeer = try Self.lastPeer(of: socket, context)
        // From here on `deinit` undoes what was begun, when anything fails.
        let monitor = "inproc://router-\(UInt64.random(in: 0 ... .max))"
        try socket.monitor(name: monitor)
        watch = try ConnectionWatch(context, monitor: monitor, lastPeer: lastPeer, limits: limits, keys: keys)
        // With a domain libzmq asks for every peer, and turns away what speaks no ZMTP 3; that it must be answered is
        // not its default.
        try socket.set(ZMQ_ZAP_DOMAIN, Authenticator.domain)
        try socket.set(Authenticator.enforceDomain, Int32(1))
        self.endpoint = try listen(at: endpoint)
    }

    /// Listens at every address that the endpoint names.
    /// - Returns: the endpoint with the port, which they have in common.
    private func listen(at endpoint: Endpoint) throws(SocketError) -> String {
        let addresses = endpoint.addresses(toListen: true)
        guard addresses != [endpoint] else {
            try socket.bind(endpoint)
            let bound = try socket.lastEndpoint()
            // As it was said: libzmq's words for it depend on the families that the machine has.
            return endpoint.host == "*" ? endpoint.withPort(of: bound) : bound
        }
        let shared = try SharedPort(addresses, of: endpoint)
        for address in shared.endpoints { try socket.bind(address) }
        return endpoint.withPort(of: try socket.lastEndpoint())
    }

    /// The number that libzmq gives to a peer of our own, before there are others: it counts on from there.
    private static func lastPeer(of router: Socket, _ context: SocketContext) throws(SocketError) -> UInt32 {
        let endpoint = try Endpoint("inproc://number-\(UInt64.random(in: 0 ... .max))")
        try router.bind(endpoint)
        defer { router.unbind(endpoint.description) }
        let dealer = try Socket(context, type: ZMQ_DEALER, maximumFrameBytes: 0, lingerMilliseconds: 0)
        defer { withExtendedLifetime(dealer) {} }
        try dealer.connect(endpoint)
        _ = dealer.send(Frame(copying: []), more: false)
        _ = try router.wait(nil, milliseconds: 10_000, writable: false)
        guard let (parts, _) = try router.receive(limit: 2),
            let number = ConnectionWatch.number(ofPeer: parts[0].withBytes { [UInt8]($0) })
        else {
            throw .failed(call: "zmq_msg_recv", reason: "a peer of the router's own was not heard")
        }
        return number
    }

    /// Messages that were sent are delivered as long as `lingerMilliseconds` allow. It is also the one way to stop
    /// listening: `zmq_unbind` ends the connections too, and where one of them has read half of a message and is lost
    /// then, libzmq aborts the process (its issue 3442).
    deinit {
        // In this order: telling waits while nobody reads.
        socket.stopMonitor()
        watch?.stop()
    }

    // MARK: Connections

    /// Lets a connection stay, with so many bytes under way as whole messages need.
    /// - Parameter isAtWork: more useless messages are forgiven: its answers may have come too late.
    public func admit(_ connection: ConnectionID?, bytesInFlight: Int, isAtWork: Bool = false) {
        if let connection { watch?.admit(connection, bytesInFlight: bytesInFlight, isAtWork: isAtWork) }
    }

    /// A connection brought what is of no use. Who does much of that is cut.
    /// - Parameter cost: 1 for a small message.
    public func nuisance(_ connection: ConnectionID?, cost: Double = 1, _ what: String) {
        if let connection { watch?.nuisance(connection, cost: cost, what) }
    }

    /// Ends a connection. Its messages that were not received yet are dropped.
    /// - Parameter reason: for an incident; nil where the caller tells of it.
    public func cut(_ connection: ConnectionID?, reason: String?) {
        if let connection { watch?.cut(connection, reason) }
    }

    /// Seconds since any byte of the peer's arrived, whole message or not; nil where the kernel does not tell.
    public func secondsSinceData(_ connection: ConnectionID?) -> Double? {
        guard let connection, let traffic = watch?.traffic(connection) else { return nil }
        return Double(traffic.millisecondsSinceData) / 1000
    }

    /// Bytes that the peer's machine has confirmed since the connection was made; nil where the kernel does not tell.
    public func bytesAcknowledged(_ connection: ConnectionID?) -> Int? {
        guard let connection, let traffic = watch?.traffic(connection) else { return nil }
        return Int(clamping: traffic.bytesAcknowledged)
    }

    /// Who was turned away or cut since the last call, and why.
    public func takeIncidents() -> [Incident] { watch?.takeIncidents() ?? [] }

    // MARK: Messages

    /// Sends a message, never waiting: all of it, or nothing.
    public func send(_ frames: [Frame], to peer: Peer) throws(SocketError) -> Sent {
        guard let last = frames.indices.last else { return .sent }
        switch socket.send(Frame(copying: peer.bytes), more: true) {
        case 0: break
        case EHOSTUNREACH: return .peerGone
        case EAGAIN: return .wouldBlock
        case _: throw .last("zmq_msg_send")
        }
        // Once the address is taken, libzmq takes the parts: "a multi-part message is sent whole or not at all".
        for index in frames.indices {
            guard socket.send(frames[index], more: index != last) == 0 else { throw .last("zmq_msg_send") }
        }
        return .sent
    }

    /// The next message, nil when there is none now.
    public func receive() throws(SocketError) -> Received? {
        while true {
            var origin: Socket.Origin?
            guard let (parts, dropped) = try socket.receive(limit: 1 + WireLimits.parts, origin: &origin) else {
                return nil
            }
            let peer = Peer(bytes: parts[0].withBytes { [UInt8]($0) })
            let connection = origin.flatMap {
                watch?.received(descriptor: $0.descriptor, peer: peer.bytes, user: $0.user, frameBytes: $0.frameBytes)
            }
            if connection?.isCut == true { continue }
            return Received(
                peer: peer, frames: Array(parts.dropFirst()), droppedParts: dropped, connection: connection?.id,
                isOrphan: origin != nil && watch != nil && connection == nil, address: connection?.address,
                user: origin?.user.map(Authenticator.name))
        }
    }

    /// Waits for a message, for `wakeup`, or until the time is over (nil: for ever).
    public func wait(_ wakeup: Wakeup?, milliseconds: Int?) throws(SocketError) -> Readiness {
        try socket.wait(wakeup, milliseconds: milliseconds, writable: false)
    }
}
