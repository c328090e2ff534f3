/// Seconds of the processor for something that is done often, from every 17th time (an odd number, because cuts and
/// merges alternate): the system takes as long to tell as a small tile takes to copy.
struct SampledTime {
    private var times = 0
    private var timed = 0
    private var secondsTimed = 0.0

    /// Seconds of all times, about.
    var seconds: Double { secondsTimed * Double(times) / Double(max(timed, 1)) }

    mutating func time<Result>(_ body: () throws -> Result) rethrows -> Result {
        defer { times += 1 }
        guard times % 17 == 0 else { return try body() }
        let start = Clock.threadProcessor
        defer {
            secondsTimed += Clock.threadProcessor - start
            timed += 1
        }
        return try body()
    }
}
