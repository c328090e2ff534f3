internal import CZeroMQ
internal import Glibc

/// A socket of libzmq, used by one thread from birth to death: "sockets MUST NOT be shared between threads".
/// Not Sendable, so that the compiler keeps it there; make it on the thread that uses it.
class Socket {
    private let context: SocketContext
    private let handle: UnsafeMutableRawPointer

    /// Messages queued per peer, in each direction. Credit bounds what is on the way; this bounds what a peer without manners sends.
    static let highWaterMark: Int32 = 512

    init(_ context: SocketContext, type: Int32, maximumFrameBytes: Int, lingerMilliseconds: Int32) throws(SocketError) {
        guard let handle = zmq_socket(context.handle, type) else { throw .last("zmq_socket") }
        self.context = context
        self.handle = handle
        try set(ZMQ_LINGER, lingerMilliseconds)
        try set(ZMQ_SNDHWM, Self.highWaterMark)
        try set(ZMQ_RCVHWM, Self.highWaterMark)
        // "If a peer sends a message larger than ZMQ_MAXMSGSIZE it is disconnected."
        try set(ZMQ_MAXMSGSIZE, Int64(max(maximumFrameBytes, WireLimits.headerBytes)))
        try set(ZMQ_HANDSHAKE_IVL, Int32(10_000))
    }

    deinit {
        zmq_close(handle)
    }

    func set<Value: FixedWidthInteger>(_ option: Int32, _ value: Value) throws(SocketError) {
        var value = value
        guard zmq_setsockopt(handle, option, &value, MemoryLayout<Value>.size) == 0 else { throw .last("zmq_setsockopt(\(option))") }
    }

    func bind(_ endpoint: Endpoint) throws(SocketError) {
        try set(ZMQ_IPV6, Int32(endpoint.wantsIPv6 ? 1 : 0))
        guard zmq_bind(handle, endpoint.description) == 0 else { throw .last("bind", endpoint: endpoint.description) }
    }

    func connect(_ endpoint: Endpoint) throws(SocketError) {
        try set(ZMQ_IPV6, Int32(endpoint.wantsIPv6 ? 1 : 0))
        guard zmq_connect(handle, endpoint.description) == 0 else { throw .last("connect", endpoint: endpoint.description) }
    }

    func lastEndpoint() throws(SocketError) -> String {
        var text = [UInt8](repeating: 0, count: 512)
        var size = text.count
        guard zmq_getsockopt(handle, ZMQ_LAST_ENDPOINT, &text, &size) == 0 else { throw .last("zmq_getsockopt(LAST_ENDPOINT)") }
        return String(decoding: text.prefix { $0 != 0 }, as: UTF8.self)
    }

    /// Sends a part, or returns the error number. Never waits.
    func send(_ frame: Frame, more: Bool) -> Int32 {
        var message = frame.share()
        while zmq_msg_send(&message, handle, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0 {
            let code = zmq_errno()
            if code == EINTR { continue }
            zmq_msg_close(&message)
            return code
        }
        return 0
    }

    /// The parts of the next message, nil when there is none. Parts beyond `limit` are read and dropped.
    func receive(limit: Int) throws(SocketError) -> (parts: [Frame], dropped: Int)? {
        var parts: [Frame] = []
        var dropped = 0
        while true {
            var message = zmq_msg_t()
            zmq_msg_init(&message)
            guard zmq_msg_recv(&message, handle, ZMQ_DONTWAIT) >= 0 else {
                let code = zmq_errno()
                let error = SocketError.last("zmq_msg_recv")
                zmq_msg_close(&message)
                if code == EINTR { continue }
                if code == EAGAIN { return nil }
                throw error
            }
            let more = zmq_msg_more(&message) != 0
            if parts.count < limit {
                parts.append(Frame(taking: &message))
            } else {
                dropped += 1
                zmq_msg_close(&message)
            }
            if !more { return (parts, dropped) }
        }
    }

    func wait(_ wakeup: Wakeup?, milliseconds: Int?, writable: Bool) throws(SocketError) -> Readiness {
        var items = [
            zmq_pollitem_t(socket: handle, fd: 0, events: Int16(ZMQ_POLLIN | (writable ? ZMQ_POLLOUT : 0)), revents: 0),
            zmq_pollitem_t(socket: nil, fd: wakeup?.descriptor ?? -1, events: Int16(ZMQ_POLLIN), revents: 0),
        ]
        let timeout = milliseconds.map { max(0, min($0, 3_600_000)) } ?? -1
        guard zmq_poll(&items, wakeup == nil ? 1 : 2, timeout) >= 0 else {
            if zmq_errno() == EINTR { return Readiness(readable: false, writable: false, woken: false) }
            throw .last("zmq_poll")
        }
        let woken = items[1].revents != 0
        if woken { wakeup?.clear() }
        return Readiness(
            readable: items[0].revents & Int16(ZMQ_POLLIN) != 0, writable: items[0].revents & Int16(ZMQ_POLLOUT) != 0, woken: woken)
    }
}

/// What a wait ended with; all false when its time was over.
public struct Readiness: Sendable, Hashable {
    /// Messages can be received: receive until there is none.
    public var readable: Bool
    /// Messages can be sent.
    public var writable: Bool
    /// The `Wakeup` was called.
    public var woken: Bool
}
