internal import CZeroMQ
internal import Glibc

/// The address that a router knows a peer by, for as long as its connection lasts.
public struct Peer: Hashable, Sendable, CustomStringConvertible {
    /// At most 255 bytes; a peer may choose them, libzmq makes them otherwise.
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
    }

    private let socket: Socket

    /// The endpoint in use, with the port that was chosen for `*`.
    public let endpoint: String

    /// - Parameters:
    ///   - maximumFrameBytes: who sends more in one frame is disconnected before it is read; give the largest answer of the job.
    ///   - lingerMilliseconds: how long closing waits for the last messages to leave.
    public init(
        _ context: SocketContext, bind endpoint: Endpoint, maximumFrameBytes: Int = WireLimits.tensorBytes,
        lingerMilliseconds: Int = 1000
    ) throws(SocketError) {
        socket = try Socket(
            context, type: ZMQ_ROUTER, maximumFrameBytes: maximumFrameBytes, lingerMilliseconds: Int32(clamping: lingerMilliseconds))
        // Without it, a message to a peer that is gone would vanish in silence.
        try socket.set(ZMQ_ROUTER_MANDATORY, Int32(1))
        try socket.set(ZMQ_BACKLOG, Int32(1024))
        try socket.bind(endpoint)
        self.endpoint = try socket.lastEndpoint()
    }

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
        guard let (parts, dropped) = try socket.receive(limit: 1 + WireLimits.parts) else { return nil }
        return Received(
            peer: Peer(bytes: parts[0].withBytes { [UInt8]($0) }), frames: Array(parts.dropFirst()), droppedParts: dropped)
    }

    /// Waits for a message, for `wakeup`, or until the time is over (nil: for ever).
    public func wait(_ wakeup: Wakeup?, milliseconds: Int?) throws(SocketError) -> Readiness {
        try socket.wait(wakeup, milliseconds: milliseconds, writable: false)
    }
}
