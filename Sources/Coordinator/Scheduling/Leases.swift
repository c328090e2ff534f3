import HeapModule

extension Scheduler {
    /// How long a task may take before it is given to another worker as well.
    package struct LeasePolicy: Sendable {
        /// Seconds for a kind of work that nobody has done yet.
        package var unmeasured: Double = 120
        /// Never less than this many seconds, which cover a hiccup of the network or the machine.
        package var least: Double = 3
        /// A second copy goes to an idle worker that is expected to be so many times faster than the rest of the first
        /// will take.
        package var gain: Double = 1.5
        /// Whether a tile that is late may be at two workers.
        package var sendsCopies = true
        /// Whether workers that are not there yet may come: else a job that none of those present can do is over.
        package var othersMayCome = false
        /// Identities that come for certain, and come back when they die. A job is not over while one of them could do
        /// what the others cannot.
        package var identities = 0

        package init() {}
    }
}

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

    /// A bound that a measurement hardly ever exceeds. Twice the mean at least: a deviation that was near zero says
    /// little of the next disturbance.
    var bound: Double { max(mean + 4 * deviation, 2 * mean) }
}

extension SmoothedTime? {
    mutating func add(_ seconds: Double) {
        if self == nil { self = SmoothedTime(seconds) } else { self?.add(seconds) }
    }
}

/// How long tasks take, until when each is awaited, and which tile is expected last.
struct Leases {
    /// When a task's lease is over.
    struct Deadline: Comparable {
        let time: Double
        /// The assignment's, which may have ended since.
        let number: Int
        let worker: Fleet.ID

        static func < (left: Deadline, right: Deadline) -> Bool {
            (left.time, left.number) < (right.time, right.number)
        }
    }

    /// When a tile that is out once should be answered. It is stale unless the pending task has its number.
    struct Expectation: Comparable {
        let finish: Double
        let number: Int
        let tile: Scheduler.Tile

        static func < (left: Expectation, right: Expectation) -> Bool {
            (left.finish, left.number) < (right.finish, right.number)
        }
    }

    /// A lease doubles with every one in a row that was overrun before it, up to so many times.
    private static let maxDoublings = 10

    let policy: Scheduler.LeasePolicy
    var expectations = Heap<Expectation>()
    /// Seconds for the kinds of work, all workers together.
    private var pooled: [Int: SmoothedTime] = [:]
    private var deadlines = Heap<Deadline>()
    private var number = 0

    init(_ policy: Scheduler.LeasePolicy) { self.policy = policy }

    // MARK: Times

    /// Seconds that a worker is expected to take for work of a kind: what it took before, or what others do; nil when
    /// nobody has done any.
    func seconds(of worker: Fleet.Worker, kind: Int) -> Double? { (worker.times[kind] ?? pooled[kind])?.mean }

    /// Seconds that a task may take.
    func duration(of worker: Fleet.Worker, kind: Int) -> Double {
        guard let time = worker.times[kind] ?? pooled[kind] else { return policy.unmeasured }
        return max(policy.least, time.bound) * Double(1 << min(worker.backoff, Self.maxDoublings))
    }

    mutating func measure(_ seconds: Double, kind: Int) { pooled[kind].add(seconds) }

    // MARK: Deadlines

    /// Begins the lease of a task that a lane has come to.
    mutating func begin(_ assignment: Fleet.Assignment, of worker: Fleet.Worker, _ id: Fleet.ID, at now: Double) {
        let time = now + duration(of: worker, kind: assignment.kind)
        deadlines.insert(Deadline(time: time, number: assignment.number, worker: id))
    }

    /// The earliest lease that is over, which is forgotten.
    mutating func popExpired(at now: Double) -> Deadline? {
        guard let first = deadlines.min, first.time <= now else { return nil }
        return deadlines.removeMin()
    }

    // MARK: Expectations

    /// A number for a new expectation of a tile, which makes those before stale.
    mutating func renumber() -> Int {
        number += 1
        return number
    }

    mutating func expect(_ tile: Scheduler.Tile, at finish: Double, number: Int) {
        expectations.insert(Expectation(finish: finish, number: number, tile: tile))
    }

    /// Forgets stale expectations where they are most.
    mutating func compact(pendingTasks: Int, isCurrent: (Expectation) -> Bool) {
        guard expectations.count > Fleet.mostEntries(for: pendingTasks) else { return }
        expectations = Heap(expectations.unordered.filter(isCurrent))
    }
}
