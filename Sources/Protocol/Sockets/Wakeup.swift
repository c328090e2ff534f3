internal import CZeroMQ
internal import Glibc

/// Ends another thread's wait on a socket. Any thread may call `wake`; calls before the wait count too.
public final class Wakeup: Sendable {
    let descriptor: Int32

    public init() throws(SocketError) {
        descriptor = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
        guard descriptor >= 0 else { throw .last("eventfd") }
    }

    deinit {
        close(descriptor)
    }

    public func wake() {
        var one: UInt64 = 1
        // Fails only when the counter is full, that is, when a wake-up is pending anyway.
        _ = write(descriptor, &one, 8)
    }

    func clear() {
        var count: UInt64 = 0
        _ = read(descriptor, &count, 8)
    }
}
