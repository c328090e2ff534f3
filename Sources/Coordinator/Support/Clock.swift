import Glibc

enum Clock {
    /// Seconds that never go back.
    static var now: Double { read(CLOCK_MONOTONIC) }
    /// Processor seconds of the calling thread.
    static var threadProcessor: Double { read(CLOCK_THREAD_CPUTIME_ID) }
    /// Processor seconds of the process, all threads together.
    static var processor: Double { read(CLOCK_PROCESS_CPUTIME_ID) }

    private static func read(_ clock: clockid_t) -> Double {
        var time = timespec()
        clock_gettime(clock, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
}
