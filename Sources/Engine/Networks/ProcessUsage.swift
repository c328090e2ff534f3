import Foundation
import Glibc

/// Time and memory that this process takes of its machine.
public enum ProcessUsage {
    /// The largest resident memory so far, in bytes. Not getrusage's: on Linux that begins with what the process had
    /// that started this one.
    public static var peakMemoryBytes: Int {
        if let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
            let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmHWM:") }),
            let kibibytes = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap({
                Int($0)
            })
        {
            return kibibytes << 10
        }
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_maxrss * 1024
    }
}
