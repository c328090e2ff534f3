internal import CZeroMQ
internal import Glibc

/// A socket of libzmq, used by one thread from birth to death: "sockets MUST NOT be shared between threads".
/// Not Sendable, so that the compiler keeps it there; make it on the thread that uses it.
class Socket {
    private let context: SocketContext
    private let handle: UnsafeMutableRawPointer

    /// Messages queued per peer. Credit bounds what is on the way; the lower one bounds what a peer without manners
    /// sends. A sender hears of what was taken only after half of its queue, so half of it is what it can count on.
    static let highWaterMarks: (sent: Int32, received: Int32) = (1024, 512)

    init(_ context: SocketContext, type: Int32, maximumFrameBytes: Int, lingerMilliseconds: Int32) throws(SocketError) {
        guard let handle = zmq_socket(context.handle, type) else { throw .last("zmq_socket") }
        self.context = context
        self.handle = handle
        try set(ZMQ_LINGER, lingerMilliseconds)
        try set(ZMQ_SNDHWM, Self.highWaterMarks.sent)
        try set(ZMQ_RCVHWM, Self.highWaterMarks.received)
        // "If a peer sends a message larger than ZMQ_MAXMSGSIZE it is disconnected."
        try set(ZMQ_MAXMSGSIZE, Int64(max(maximumFrameBytes, WireLimits.headerBytes)))
        try set(ZMQ_HANDSHAKE_IVL, Int32(10_000))
    }

    deinit {
        zmq_close(handle)
    }

    func set<Value: FixedWidthInteger>(_ option: Int32, _ value: Value) throws(SocketError) {
        var value = value
        guard zmq_setsockopt(handle, option, &value, MemoryLayout<Value>.size) == 0 else {
            throw .last("zmq_setsockopt(\(option))")
        }
    }

    func set(_ option: Int32, _ text: String) throws(SocketError) {
        guard zmq_setsockopt(handle, option, text, text.utf8.count) == 0 else {
            throw .last("zmq_setsockopt(\(option))")
        }
    }

    /// Tells of connections at an `inproc` endpoint, to be read by a `SocketMonitor`, until `stopMonitor`.
    func monitor(name: String) throws(SocketError) {
        let events =
            ZMQ_EVENT_CONNECTED | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED
            | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL
            | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_CONNECT_RETRIED
        guard zmq_socket_monitor(handle, name, events) == 0 else { throw .last("zmq_socket_monitor") }
    }

    func stopMonitor() { zmq_socket_monitor(handle, nil, 0) }

    /// `ZMQ_FD`: edge-triggered, see its documentation.
    func descriptor() throws(SocketError) -> Int32 {
        var descriptor: Int32 = -1
        var size = MemoryLayout<Int32>.size
        guard zmq_getsockopt(handle, ZMQ_FD, &descriptor, &size) == 0 else { throw .last("zmq_getsockopt(FD)") }
        return descriptor
    }

    func bind(_ endpoint: Endpoint) throws(SocketError) {
        try set(ZMQ_IPV6, Int32(endpoint.wantsIPv6 ? 1 : 0))
        guard zmq_bind(handle, endpoint.description) == 0 else { throw .last("bind", endpoint: endpoint.description) }
    }

    func connect(_ endpoint: Endpoint) throws(SocketError) {
        try set(ZMQ_IPV6, Int32(endpoint.wantsIPv6 ? 1 : 0))
        guard zmq_connect(handle, endpoint.description) == 0 else {
            throw .last("connect", endpoint: endpoint.description)
        }
    }

    /// Nothing happens where there is no connection to end.
    func disconnect(_ endpoint: Endpoint) throws(SocketError) {
        guard zmq_disconnect(handle, endpoint.description) == 0 || zmq_errno() == ENOENT else {
            throw .last("disconnect", endpoint: endpoint.description)
        }
    }

    /// For endpoints without connections: see `RouterSocket.deinit`. Fails only where there is nothing to end.
    func unbind(_ endpoint: String) { zmq_unbind(handle, endpoint) }

    func lastEndpoint() throws(SocketError) -> String {
        var text = [UInt8](repeating: 0, count: 512)
        var size = text.count
        guard zmq_getsockopt(handle, ZMQ_LAST_ENDPOINT, &text, &size) == 0 else {
            throw .last("zmq_getsockopt(LAST_ENDPOINT)")
        }
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

    /// The connection that a message came over.
    struct Origin {
        var descriptor: Int32
        /// The name that the allow-list has for the peer's key.
        var user: String?
        /// Bytes of all parts but the first, read or dropped.
        var frameBytes: [Int] = []
    }

    /// The parts of the next message, nil when there is none. Parts beyond `limit` are read and dropped.
    func receive(limit: Int) throws(SocketError) -> (parts: [Frame], dropped: Int)? {
        var origin: Origin?
        return try receive(limit: limit, origin: &origin)
    }

    /// - Parameter origin: is set, where there is a second part and a connection that it came over.
    func receive(limit: Int, origin: inout Origin?) throws(SocketError) -> (parts: [Frame], dropped: Int)? {
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
            if parts.count == 1, origin == nil {
                let descriptor = zmq_msg_get(&message, ZMQ_SRCFD)
                if descriptor >= 0 { origin = Origin(descriptor: descriptor, user: Self.user(&message)) }
            }
            if !parts.isEmpty { origin?.frameBytes.append(zmq_msg_size(&message)) }
            if parts.count < limit {
                parts.append(Frame(taking: &message))
            } else {
                dropped += 1
                zmq_msg_close(&message)
            }
            if !more { return (parts, dropped) }
        }
    }

    /// ZAP's answer for the connection that a message came over.
    private static func user(_ message: inout zmq_msg_t) -> String? {
        guard let text = zmq_msg_gets(&message, "User-Id"), text.pointee != 0 else { return nil }
        return String(cString: text)
    }

    /// - Parameter descriptors: more things to wait for, that are looked at by the caller.
    func wait(_ wakeup: Wakeup?, milliseconds: Int?, writable: Bool, descriptors: [Int32] = []) throws(SocketError)
        -> Readiness
    {
        var items = [
            zmq_pollitem_t(socket: handle, fd: 0, events: Int16(ZMQ_POLLIN | (writable ? ZMQ_POLLOUT : 0)), revents: 0)
        ]
        // A descriptor of -1 is passed over, as poll does.
        for descriptor in [wakeup?.descriptor ?? -1] + descriptors {
            items.append(zmq_pollitem_t(socket: nil, fd: descriptor, events: Int16(ZMQ_POLLIN), revents: 0))
        }
        let timeout = milliseconds.map { max(0, min($0, 3_600_000)) } ?? -1
        let count = descriptors.isEmpty && wakeup == nil ? 1 : items.count
        guard zmq_poll(&items, Int32(count), timeout) >= 0 else {
            if zmq_errno() == EINTR { return Readiness(readable: false, writable: false, woken: false) }
            throw .last("zmq_poll")
        }
        let woken = items[1].revents != 0
        if woken { wakeup?.clear() }
        return Readiness(
            readable: items[0].revents & Int16(ZMQ_POLLIN) != 0, writable: items[0].revents & Int16(ZMQ_POLLOUT) != 0,
            woken: woken)
    }
}

/// The end of a wait; all false when its time was over.
public struct Readiness: Sendable, Hashable {
    /// Messages can be received: receive until there is none.
    public var readable: Bool
    /// Messages can be sent.
    public var writable: Bool
    /// The `Wakeup` was called.
    public var woken: Bool
}
