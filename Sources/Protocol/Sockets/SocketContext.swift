internal import CZeroMQ

/// ZeroMQ's own threads, shared by the sockets of a process. Block signals (`TerminationSignals.block()`) before one is
/// made.
public final class SocketContext: Sendable {
    // "A ØMQ context is thread safe and may be shared among as many application threads as necessary."
    nonisolated(unsafe) let handle: UnsafeMutableRawPointer

    public init() throws(SocketError) {
        guard let handle = zmq_ctx_new() else { throw .last("zmq_ctx_new") }
        self.handle = handle
        zmq_ctx_set(handle, ZMQ_MAX_SOCKETS, 16384)
    }

    deinit {
        // Every socket holds its context, so all are closed; this waits for what they linger over.
        while zmq_ctx_term(handle) != 0 && zmq_errno() == EINTR {}
    }
}
