import Logging

/// Counts what peers do that no worker of ours would, and reports it at most once a minute for each source.
struct StrangerLog {
    private struct Source {
        /// Its deeds, and how often it did each.
        var deeds: [String: Int] = [:]
        var nextReport = -Double.infinity
    }

    /// Sources, and deeds of each, told apart at a time; the others are one.
    private static let mostSources = 64
    private static let mostDeeds = 4
    private static let others = "others"

    private var sources: [String: Source] = [:]

    /// How bad a useless message is.
    static func cost(_ bytes: Int) -> Double { 1 + Double(bytes) / Double(64 << 10) }

    /// - Parameter source: an address, or a worker's name.
    mutating func count(_ source: String, _ what: String) {
        let source = sources[source] != nil || sources.count < Self.mostSources ? source : Self.others
        let deeds = sources[source, default: Source()].deeds
        sources[source, default: Source()].deeds[
            deeds[what] != nil || deeds.count < Self.mostDeeds ? what : Self.others, default: 0] += 1
    }

    mutating func report(to logger: Logger, now: Double) {
        for (name, source) in sources.sorted(by: { $0.key < $1.key }) where now >= source.nextReport {
            if !source.deeds.isEmpty {
                let deeds = source.deeds.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map(\.key).joined(
                    separator: "; ")
                logger.warning(
                    "stranger refused",
                    metadata: [
                        "source": "\(name)", "count": "\(source.deeds.values.reduce(0, +))", "reason": "\(deeds)",
                    ])
                sources[name] = Source(nextReport: now + 60)
            } else {
                sources[name] = nil
            }
        }
    }
}
