/// A time that is measured again and again: its smoothed value and deviation, as TCP has them for its retransmission
/// timer (RFC 6298).
struct SmoothedTime {
    private(set) var mean: Double
    private(set) var deviation: Double

    init(_ seconds: Double) {
        mean = seconds
        deviation = seconds / 2
    }

    mutating func add(_ seconds: Double) {
        deviation += (abs(mean - seconds) - deviation) / 4
        mean += (seconds - mean) / 8
    }

    /// What a measurement hardly ever exceeds. Twice the mean at least: a deviation that was near zero says little of
    /// the next disturbance.
    var bound: Double { max(mean + 4 * deviation, 2 * mean) }
}

extension SmoothedTime? {
    mutating func add(_ seconds: Double) {
        if self == nil { self = SmoothedTime(seconds) } else { self?.add(seconds) }
    }
}
