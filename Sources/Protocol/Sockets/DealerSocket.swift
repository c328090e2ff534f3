internal import CZeroMQ
internal import Glibc

/// A worker's socket (DEALER): connects, and connects again when the connection is lost, with growing, jittered pauses.
/// It belongs to the thread that makes it; nothing in it waits but `wait`.
public final class DealerSocket {
    private let socket: Socket

    /// - Parameter lingerMilliseconds: how long closing waits for the last messages to leave.
    public init(
        _ context: SocketContext, connect endpoint: Endpoint, maximumFrameBytes: Int = WireLimits.tensorBytes,
        lingerMilliseconds: Int = 2000
    ) throws(SocketError) {
        socket = try Socket(
            context, type: ZMQ_DEALER, maximumFrameBytes: maximumFrameBytes, lingerMilliseconds: Int32(clamping: lingerMilliseconds))
        // Messages go out over a connection or not at all: stale greetings do not pile up for a coordinator yet to come.
        try socket.set(ZMQ_IMMEDIATE, Int32(1))
        try socket.set(ZMQ_RECONNECT_IVL, Int32(100))
        try socket.set(ZMQ_RECONNECT_IVL_MAX, Int32(5_000))
        try socket.connect(endpoint)
    }

    /// Sends a message whole, or returns false when there is no connection or no room for it now.
    public func send(_ frames: [Frame]) throws(SocketError) -> Bool {
        for index in frames.indices {
            switch socket.send(frames[index], more: index != frames.indices.last) {
            case 0: continue
            case EAGAIN where index == 0: return false
            case _: throw .last("zmq_msg_send")
            }
        }
        return true
    }

    /// The next message, nil when there is none now. Parts beyond `WireLimits.parts` are read and forgotten.
    public func receive() throws(SocketError) -> [Frame]? {
        try socket.receive(limit: WireLimits.parts)?.parts
    }

    /// Waits for a message, for room to send when `writable`, for `wakeup`, or until the time is over (nil: for ever).
    public func wait(_ wakeup: Wakeup?, milliseconds: Int?, writable: Bool = false) throws(SocketError) -> Readiness {
        try socket.wait(wakeup, milliseconds: milliseconds, writable: writable)
    }
}
