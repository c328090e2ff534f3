internal import Glibc

/// Where the signal handler writes; set before it is installed.
nonisolated(unsafe) private var signalPipe: Int32 = -1

/// SIGINT and SIGTERM as calls on a thread of their own.
///
/// A signal that lands on a thread of libzmq or of a lane would interrupt a call there, so `block()` comes first in
/// `main`, and threads inherit it. It cannot keep them from the main thread of an `async` `main`, which the runtime
/// parks in `sigsuspend` with nothing blocked; hence a handler rather than `sigwait`, which works on whichever thread
/// takes the signal.
public enum TerminationSignals {
    private static let numbers = [SIGINT, SIGTERM]

    /// Blocks them for the calling thread and those that it starts. Writing to a closed pipe, or beyond the largest
    /// size that a file may have, becomes an error of the call instead of the process's end.
    public static func block() {
        mask(SIG_BLOCK)
        signal(SIGPIPE, SIG_IGN)
        signal(SIGXFSZ, SIG_IGN)
    }

    /// Calls `handler` for each signal that arrives, with its name and how many have come, this one included. Once in a
    /// process.
    public static func watch(_ handler: @escaping @Sendable (_ name: String, _ count: Int) -> Void) throws(SocketError)
    {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw .last("pipe") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let input = ends[0]
        signalPipe = ends[1]
        _ = try OSThread(name: "signals", stackBytes: 1 << 20) {
            mask(SIG_UNBLOCK)
            var count = 0
            while true {
                var number: UInt8 = 0
                guard read(input, &number, 1) == 1 else { continue }
                count += 1
                handler(Int32(number) == SIGINT ? "SIGINT" : "SIGTERM", count)
            }
        }
        var action = sigaction()
        action.sa_flags = SA_RESTART
        action.__sigaction_handler.sa_handler = { number in
            // Of what may be called here, `write` is the one that is needed; it must leave `errno` as it was.
            let saved = errno
            var byte = UInt8(truncatingIfNeeded: number)
            _ = write(signalPipe, &byte, 1)
            errno = saved
        }
        for number in numbers { sigaction(number, &action, nil) }
    }

    private static func mask(_ how: Int32) {
        var set = sigset_t()
        sigemptyset(&set)
        for number in numbers { sigaddset(&set, number) }
        pthread_sigmask(how, &set, nil)
    }
}
