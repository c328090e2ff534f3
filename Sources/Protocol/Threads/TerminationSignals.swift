internal import Glibc

/// SIGINT and SIGTERM as calls on a thread of their own.
///
/// A signal that lands on a thread of libzmq or of the Swift runtime would end the process, or interrupt a call there. So
/// `block()` comes first in `main`, before any thread exists (threads inherit it), and one thread waits for them.
public enum TerminationSignals {
    private static var set: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGINT)
        sigaddset(&set, SIGTERM)
        return set
    }

    /// Blocks them for the calling thread and those that it starts; and SIGPIPE ends no process that writes to a closed pipe.
    public static func block() {
        var set = set
        pthread_sigmask(SIG_BLOCK, &set, nil)
        signal(SIGPIPE, SIG_IGN)
    }

    /// Calls `handler` for each signal that arrives, with its name and how many have come, this one included.
    public static func watch(_ handler: @escaping @Sendable (_ name: String, _ count: Int) -> Void) throws(SocketError) {
        _ = try OSThread(name: "signals", stackBytes: 1 << 20) {
            var set = set
            var count = 0
            while true {
                var number: Int32 = 0
                guard sigwait(&set, &number) == 0 else { continue }
                count += 1
                handler(number == SIGINT ? "SIGINT" : "SIGTERM", count)
            }
        }
    }
}
