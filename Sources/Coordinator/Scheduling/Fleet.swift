import HeapModule

/// The workers that are there: what each has to do and how it gets on, what is known of their identities, and who is
/// idle in which order.
struct Fleet {
    typealias ID = Scheduler.Worker

    /// A task that a worker was given and has not answered.
    struct Assignment {
        let tile: Scheduler.Tile
        let kind: Int
        let network: Int
        let number: Int
        let sent: Double
        /// When a lane is thought to have begun it.
        var started: Double?
        /// When it is expected to be answered.
        var finish: Double
        /// The worker's when a lane began it, which is what its lease was made with.
        var backoff = 0
        /// A lane is at it for longer than its lease.
        var isOverdue = false
    }

    struct Worker {
        let lanes: Int
        let record: Int
        /// Tasks that it may be given.
        var credit: Int
        var isDraining = false
        var isHung = false
        /// Whether it counts among the able.
        var isAble = false
        /// Its tasks, in the order in which they were sent; its lanes take them in that order.
        var tasks: [Assignment] = []
        /// Its times for the kinds of work.
        var times: [Int: SmoothedTime] = [:]
        /// Leases in a row that it overran: each doubles the next.
        var backoff = 0
        var progress: UInt64 = 0
        /// When it last got on.
        var progressed: Double
        /// The number of its newest entry among the idle.
        var turn = 0

        /// Lanes that are not stuck with an overdue task.
        var openLanes: Int { max(0, lanes - tasks.count { $0.isOverdue }) }
        var hasIdleLane: Bool { tasks.count < lanes }
        /// The network that its tasks run, which it keeps in memory until they are answered; 0 while it may be any.
        var network: Int { tasks.first { !$0.isOverdue && $0.network != 0 }?.network ?? 0 }

        func index(of tile: Scheduler.Tile) -> Int? { tasks.firstIndex { $0.tile == tile } }
    }

    /// The record of an identity, however often it joins.
    struct Record {
        /// Workers under it that take tasks.
        var able = 0
        var failuresInRow = 0
        var bad = 0
        var isQuarantined = false
    }

    /// A worker that waits for a task: those with an idle lane before those that would only prefetch, the fastest
    /// first.
    struct IdleWorker: Comparable {
        let prefetches: Bool
        let seconds: Double
        /// Stale unless the worker has the same.
        let number: Int
        let worker: ID

        static func < (left: IdleWorker, right: IdleWorker) -> Bool {
            (left.prefetches ? 1 : 0, left.seconds, left.number) < (
                right.prefetches ? 1 : 0, right.seconds, right.number
            )
        }
    }

    private(set) var records: [Record] = []
    private(set) var quarantined = 0
    /// Workers that take tasks, and their lanes.
    private(set) var ableWorkers = 0
    private(set) var ableLanes = 0
    private var workers: [ID: Worker] = [:]
    private var identities: [String: Int] = [:]
    /// By the network that they have in memory.
    private var idleWorkers: [Heap<IdleWorker>]
    private var number = 0

    /// - Parameter networks: how many there are besides none
    init(networks: Int) { idleWorkers = Array(repeating: Heap(), count: networks + 1) }

    /// Workers that have joined and not left, with those in quarantine.
    var count: Int { workers.count }

    subscript(worker: ID) -> Worker? { workers[worker] }

    func isQuarantined(_ worker: ID) -> Bool { workers[worker].map { records[$0.record].isQuarantined } ?? false }

    /// Changes a worker that is there. Call `offer` where that may change its turn.
    mutating func update(_ worker: ID, _ change: (inout Worker) -> Void) {
        guard let index = workers.index(forKey: worker) else { return }
        change(&workers.values[index])
    }

    /// Entries that a heap with one current entry for each of `current` may have before the stale ones are forgotten.
    static func mostEntries(for current: Int) -> Int { 4 * current + 64 }

    mutating func nextNumber() -> Int {
        number += 1
        return number
    }

    // MARK: Coming and going

    mutating func join(_ worker: ID, lanes: Int, credit: Int, identity: String, at now: Double) {
        let record = identities[identity] ?? records.count
        if record == records.count {
            identities[identity] = record
            records.append(Record())
        }
        if records[record].isQuarantined { quarantined += 1 }
        workers[worker] = Worker(lanes: lanes, record: record, credit: credit, progressed: now)
    }

    mutating func remove(_ worker: ID) -> Worker? {
        guard let state = workers.removeValue(forKey: worker) else { return nil }
        if state.isAble { count(state, isAble: false) }
        if records[state.record].isQuarantined { quarantined -= 1 }
        return state
    }

    private mutating func count(_ worker: Worker, isAble: Bool) {
        let sign = isAble ? 1 : -1
        ableWorkers += sign
        ableLanes += sign * worker.lanes
        records[worker.record].able += sign
    }

    // MARK: Tasks

    mutating func assign(_ assignment: Assignment, to worker: ID) {
        update(worker) {
            $0.credit -= 1
            $0.tasks.append(assignment)
        }
    }

    /// Takes a task off a worker's list and gives its credit back; nil when it was not on it.
    mutating func takeBack(_ tile: Scheduler.Tile, from worker: ID) -> Assignment? {
        guard let index = workers[worker]?.index(of: tile) else { return nil }
        workers[worker]?.credit += 1
        return workers[worker]?.tasks.remove(at: index)
    }

    // MARK: Records

    mutating func updateRecord(of worker: ID, _ change: (inout Record) -> Void) {
        if let record = workers[worker]?.record { change(&records[record]) }
    }

    /// Puts a worker's identity into quarantine.
    /// - Returns: all the workers that are there under it.
    mutating func quarantine(_ worker: ID) -> [ID] {
        guard let record = workers[worker]?.record else { return [] }
        records[record].isQuarantined = true
        let members = workers.filter { $0.value.record == record }.keys.sorted()
        quarantined += members.count
        return members
    }

    /// Able workers whose identities are not among these.
    func ableWorkers(besides records: [Int]) -> Int {
        ableWorkers - records.reduce(0) { $0 + self.records[$1].able }
    }

    // MARK: Turns

    /// Makes a worker wait for its turn if it takes tasks, behind those that are faster.
    mutating func offer(_ worker: ID, seconds: Double) {
        guard let state = workers[worker] else { return }
        let isAble = !state.isDraining && !state.isHung && !records[state.record].isQuarantined && state.openLanes > 0
        if isAble != state.isAble {
            workers[worker]?.isAble = isAble
            count(state, isAble: isAble)
        }
        let turn = nextNumber()
        workers[worker]?.turn = turn
        guard isAble, state.credit > 0 else { return }
        idleWorkers[state.network].insert(
            IdleWorker(prefetches: !state.hasIdleLane, seconds: seconds, number: turn, worker: worker))
    }

    /// Whether a worker may be given a task of a network now: it has no other in memory.
    func mayRun(_ network: Int, _ worker: ID) -> Bool {
        guard network != 0, let loaded = workers[worker]?.network else { return true }
        return loaded == 0 || loaded == network
    }

    /// The worker whose turn it is for a task of a network, which no longer waits; give it back if it gets nothing.
    /// - Parameter mayPrefetch: whether it may be one without an idle lane
    mutating func popIdle(for network: Int, mayPrefetch: Bool) -> IdleWorker? {
        var first: (worker: IdleWorker, queue: Int)?
        for queue in idleWorkers.indices where network == 0 || queue == 0 || queue == network {
            dropStale(queue)
            guard let next = idleWorkers[queue].min else { continue }
            if let best = first?.worker, best < next { continue }
            first = (next, queue)
        }
        guard let first, mayPrefetch || !first.worker.prefetches else { return nil }
        idleWorkers[first.queue].removeMin()
        return first.worker
    }

    mutating func giveBack(_ idle: IdleWorker) {
        guard let network = workers[idle.worker]?.network else { return }
        idleWorkers[network].insert(idle)
    }

    /// Whether anybody has an idle lane.
    mutating func hasIdleLanes() -> Bool {
        for queue in idleWorkers.indices {
            dropStale(queue)
            if idleWorkers[queue].min?.prefetches == false { return true }
        }
        return false
    }

    private mutating func dropStale(_ queue: Int) {
        while let first = idleWorkers[queue].min, workers[first.worker]?.turn != first.number {
            idleWorkers[queue].removeMin()
        }
    }

    /// Forgets stale turns where they are most.
    mutating func compact() {
        for queue in idleWorkers.indices where idleWorkers[queue].count > Self.mostEntries(for: workers.count) {
            idleWorkers[queue] = Heap(
                idleWorkers[queue].unordered.filter { workers[$0.worker]?.turn == $0.number })
        }
    }
}
