import Foundation

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

    /// 42s, 4m12s, 3h05m.
    static func text(_ seconds: Double) -> String {
        let total = Int(max(0, min(seconds.isFinite ? seconds : 0, 1e9)).rounded())
        if total >= 3600 { return "\(total / 3600)h" + String(format: "%02dm", total / 60 % 60) }
        return total >= 60 ? "\(total / 60)m" + String(format: "%02ds", total % 60) : "\(total)s"
    }
}
