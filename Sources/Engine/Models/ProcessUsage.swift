import Glibc

/// What this process takes of its machine.
public enum ProcessUsage {
    /// The largest resident memory so far, in bytes.
    public static var peakMemoryBytes: Int {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_maxrss * 1024
    }
}
