import Foundation
public import Logging
import Synchronization

/// Writes one line per event to standard error: `12:04:31 worker joined job=7 worker=n3 lanes=8`, or the same facts as
/// a JSON object.
///
/// The log is a user interface: keys stand in a fixed order (`job worker stage pass step tiles done rate elapsed eta ...`,
/// then the others by name), so that the eye finds them in the same place in every line.
public struct FarmLogHandler: LogHandler {
    public enum Format: String, Sendable, CaseIterable {
        case logfmt, json
    }

    public var logLevel: Logger.Level = .info
    public var metadata: Logger.Metadata = [:]
    private let label: String
    private let format: Format

    public init(label: String, format: Format) {
        self.label = label
        self.format = format
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Standard error is shared with the progress bar, which clears itself before a line and comes back after it.
    private static let bar = Mutex<String>("")

    public func log(event: LogEvent) {
        let facts = metadata.merging(event.metadata ?? [:]) { $1 }
        let line: String
        switch format {
        case .logfmt: line = Self.logfmt(level: event.level, message: "\(event.message)", facts: facts)
        case .json: line = Self.json(level: event.level, label: label, message: "\(event.message)", facts: facts)
        }
        Self.bar.withLock { bar in
            Self.write((bar.isEmpty ? "" : "\r\u{1B}[K") + line + "\n" + bar)
        }
    }

    /// Shows `text` as the last line of a terminal until it is replaced; empty takes it away.
    public static func showBar(_ text: String) {
        bar.withLock { bar in
            guard text != bar else { return }
            bar = text
            write("\r\u{1B}[K" + text)
        }
    }

    private static func write(_ text: String) {
        // A log that nobody reads any more must not end the job.
        try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
    }

    private static let order = [
        "job", "worker", "stage", "pass", "step", "tiles", "done", "rate", "elapsed", "eta", "workers", "inflight",
        "retried", "slowest", "reason",
    ]

    private static func sorted(_ facts: Logger.Metadata) -> [(key: String, value: String)] {
        facts.map { ($0.key, "\($0.value)") }.sorted { left, right in
            let (l, r) = (order.firstIndex(of: left.0) ?? order.count, order.firstIndex(of: right.0) ?? order.count)
            return l == r ? left.0 < right.0 : l < r
        }
    }

    private static func logfmt(level: Logger.Level, message: String, facts: Logger.Metadata) -> String {
        let clock = Date().formatted(
            Date.VerbatimFormatStyle(
                format:
                    """
                    \(hour: .twoDigits(clock: .twentyFourHour, hourCycle: .zeroBased)):\
                    \(minute: .twoDigits):\(second: .twoDigits)
                    """,
                timeZone: .current, calendar: Calendar(identifier: .gregorian)))
        var line = clock + (level >= .warning ? " \(level.rawValue):" : "") + " " + message
        for (key, value) in sorted(facts) {
            let plain =
                !value.isEmpty
                && value.unicodeScalars.allSatisfy { $0 != " " && $0 != "\"" && $0 != "=" && $0.value >= 0x20 }
            line += " \(key)=" + (plain ? value : quoted(value))
        }
        return line
    }

    private static func json(level: Logger.Level, label: String, message: String, facts: Logger.Metadata) -> String {
        var fields = [
            "\"time\":\(quoted(Date().formatted(.iso8601)))", "\"level\":\(quoted(level.rawValue))",
            "\"program\":\(quoted(label))",
            "\"message\":\(quoted(message))",
        ]
        fields += sorted(facts).map { "\(quoted($0.key)):\(quoted($0.value))" }
        return "{" + fields.joined(separator: ",") + "}"
    }

    /// A JSON string, which logfmt readers take too; names and reasons come from other machines and may hold anything.
    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case _ where scalar.value < 0x20 || scalar.value == 0x7F:
                result += "\\u" + String(scalar.value + 0x10000, radix: 16).dropFirst()
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
