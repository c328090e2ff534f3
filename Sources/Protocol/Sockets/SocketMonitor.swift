internal import CZeroMQ
internal import Glibc

/// Events of a socket's connections, as libzmq tells them. The telling waits when nobody reads: read it often, and
/// stop the telling (`Socket.stopMonitor`) before this is closed.
final class SocketMonitor {
    enum Event {
        case connected(Int32)
        /// This endpoint could not be connected to, or its connection is lost; it is tried again after a pause.
        case retrying(String)
        case accepted(Int32)
        case disconnected(Int32)
        case handshakeSucceeded
        /// A failure of the connection whose end comes next.
        case handshakeFailed(HandshakeFailure)
    }

    private let socket: Socket

    /// - Parameter name: the endpoint that `Socket.monitor` was told.
    init(_ context: SocketContext, name: String) throws(SocketError) {
        socket = try Socket(context, type: ZMQ_PAIR, maximumFrameBytes: 4096, lingerMilliseconds: 0)
        try socket.connect(Endpoint(name))
    }

    /// Becomes readable when there may be more, once all was read.
    func descriptor() throws(SocketError) -> Int32 { try socket.descriptor() }

    /// The next event, nil when there is none.
    func next() throws(SocketError) -> Event? {
        while let (parts, _) = try socket.receive(limit: 2) {
            // "The first frame contains an event number (16 bits), and an event value (32 bits)", in the machine's
            // order.
            guard let first = parts.first, first.byteCount == 6 else { continue }
            let (event, value) = first.withBytes {
                (Int32($0.loadUnaligned(as: UInt16.self)), $0.loadUnaligned(fromByteOffset: 2, as: Int32.self))
            }
            switch event {
            case ZMQ_EVENT_CONNECTED: return .connected(value)
            case ZMQ_EVENT_CONNECT_RETRIED:
                // The second frame is the endpoint.
                return .retrying(parts.count > 1 ? parts[1].withBytes { String(decoding: $0, as: UTF8.self) } : "")
            case ZMQ_EVENT_ACCEPTED: return .accepted(value)
            case ZMQ_EVENT_DISCONNECTED: return .disconnected(value)
            case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: return .handshakeSucceeded
            case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL: return .handshakeFailed(.closed)
            case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: return .handshakeFailed(.denied(Int(value)))
            case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
                return .handshakeFailed(
                    value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
                        ? .otherMechanism
                        : value == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC ? .cryptographic : .protocolError)
            default: continue
            }
        }
        return nil
    }
}

/// Why two peers did not come to terms, as far as libzmq tells.
public enum HandshakeFailure: Sendable, Hashable {
    /// The other side closed the connection in the midst of it.
    case closed
    /// The coordinator's allow-list does not have the key; with its status code.
    case denied(Int)
    /// One side has keys and the other has none.
    case otherMechanism
    /// The bytes that came cannot be opened with our keys.
    case cryptographic
    /// The bytes that came are not ZMTP 3.
    case protocolError
}
