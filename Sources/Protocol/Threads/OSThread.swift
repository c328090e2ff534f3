internal import CZeroMQ
internal import Glibc
import Synchronization

/// A thread of its own, for what must not share one: sockets, and arithmetic that runs for seconds.
public final class OSThread: Sendable {
    private let handle: pthread_t
    private let joined = Mutex(false)

    /// - Parameters:
    ///   - name: for debuggers and `top -H`; the system keeps 15 bytes.
    ///   - stackBytes: the size of its stack.
    public init(name: String, stackBytes: Int = 8 << 20, _ body: @escaping @Sendable () -> Void) throws(SocketError) {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        pthread_attr_setstacksize(&attributes, stackBytes)
        defer { pthread_attr_destroy(&attributes) }

        let start = Unmanaged.passRetained(
            Start(name: String(decoding: name.utf8.prefix(15), as: UTF8.self), body: body))
        var handle = pthread_t()
        let code = pthread_create(
            &handle, &attributes,
            { argument in
                guard let argument else { return nil }
                let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                _ = name_this_thread(start.name)
                start.body()
                return nil
            }, start.toOpaque())
        guard code == 0 else {
            start.release()
            throw .failed(call: "pthread_create", reason: String(cString: strerror(code)))
        }
        self.handle = handle
    }

    deinit {
        if !joined.withLock({ $0 }) { pthread_detach(handle) }
    }

    /// Waits for the thread's end. Not from async code: it blocks.
    public func join() {
        joined.withLock { joined in
            if !joined { pthread_join(handle, nil) }
            joined = true
        }
    }

    private final class Start {
        let name: String
        let body: @Sendable () -> Void

        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }
}
