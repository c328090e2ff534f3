import DequeModule
import HeapModule

/// The farm's brain: which tile goes to which worker, and which answer counts.
///
/// A value without sockets, clocks, threads or randomness: events go in with the time at which they happened, commands
/// come out. Whoever owns the sockets carries the commands out in their order. What tiles need of one another is
/// `TileGraph`'s; of those that are ready the lowest step goes first, to the fastest worker with an idle lane. An event
/// takes a time that grows with the logarithm of workers and tiles, and with the tasks that its worker has; only a
/// quarantine looks at all workers.
package struct Scheduler {
    package typealias Worker = Int

    package enum Event {
        /// A worker is ready, with that many lanes, and takes `credit` tasks before it answers one. `identity` is the
        /// same when it comes back.
        case joined(Worker, lanes: Int, credit: Int, identity: String? = nil)
        case answered(Worker, Tile)
        /// Given back before it was started.
        case returned(Worker, Tile)
        /// The worker says that it could not do it.
        case failed(Worker, Tile, reason: String)
        /// The worker answered something that is no answer. No tile: it is none of the job's.
        case misbehaved(Worker, Tile?, reason: String)
        /// A worker's sign of life: a counter that grows while its lanes get on, and whether any of them is at work.
        case alive(Worker, progress: UInt64, isWorking: Bool)
        /// Takes no more tasks, and answers those that it is at.
        case draining(Worker)
        case left(Worker, reason: String)
        /// Time passes: leases are looked at.
        case tick
    }

    package enum Command: Equatable {
        /// Cut the window out of the canvas, keep it until the tile is merged, and send it.
        case cutAndSend(Tile, to: Worker)
        /// Send the kept window again; `attempt` counts from 1 for the first repeat.
        case resend(Tile, to: Worker, attempt: Int)
        /// Keep the answer that has just arrived until it is merged.
        case accept(Tile)
        /// Forget the answer that has just arrived: late or duplicate.
        case drop(Tile, from: Worker)
        /// Write the kept answer and forget the kept window.
        case merge(Tile)
        case requeued(Tile, from: Worker, cause: String)
        /// It lives and does not get on; it is given nothing until it does.
        case hung(Worker, seconds: Double)
        case recovered(Worker)
        /// Too many bad results, the last of them perhaps for a tile: neither the worker nor whoever joins under its
        /// identity gets anything more.
        case quarantined(Worker, Tile?, reason: String)
        /// Every tile of the step is merged. What follows from the whole step (the sampler's step of blended
        /// predictions, reduced statistics) is due now, before any later command.
        case finishedStep(Int)
        case finishedJob
        /// A tile failed on three workers, or six times on two, or on every worker that there is and comes: the job
        /// cannot be finished.
        case gaveUp(Tile, reason: String)
    }

    /// Workers that a tile fails on before the job is given up, or failures of it where nobody else comes, or half of
    /// those where somebody might; failures in a row, or bad results in all, after which a worker is quarantined.
    package static let patience = 3

    package let steps: Int
    package let totalTiles: Int
    package private(set) var mergedTiles = 0
    /// Tiles sent again because a copy was lost.
    package private(set) var repeats = 0
    /// Second copies, sent while the first was out.
    package private(set) var speculations = 0
    /// Answers that came after the tile had been answered.
    package private(set) var dropped = 0
    /// Answers that were none.
    package private(set) var bad = 0
    package private(set) var isOver = false
    /// Tiles that somebody holds a lease of.
    package private(set) var inFlight = 0

    private let leases: LeasePolicy
    private var graph: TileGraph
    private var ready = Heap<Tile>()
    private var flights: [Tile: Flight] = [:]
    private var workers: [Worker: WorkerState] = [:]
    private var identities: [String: Int] = [:]
    private var records: [Record] = []
    /// Workers that take tasks, and their lanes.
    private var ableWorkers = 0
    private var ableLanes = 0
    /// What the work takes by its kind, all workers together.
    private var pooled: [Int: SmoothedTime] = [:]
    /// Entries of the three may be stale: they count if they carry the newest number of what they are about.
    private var line = Heap<Place>()
    private var deadlines = Heap<Deadline>()
    private var expectations = Heap<Expectation>()
    private var number = 0
    /// Who answered the tiles of the newest step and of the one before, by their names, and which tiles that gives to
    /// whom. They are among `ready` too.
    private var answerers: [Int: Worker] = [:]
    private var formerAnswerers: [Int: Worker] = [:]
    private var preferred: [Worker: Deque<Tile>] = [:]
    private var changes: [TileGraph.Change] = []

    /// A tile that was cut and is not answered.
    private struct Flight {
        /// Those that are at it, or have it waiting, within their leases.
        var holders: [Worker] = []
        var attempts = 0
        var failures = 0
        /// Records of those that it failed on.
        var failedOn: [Int] = []
        /// When it is expected to be answered, and the number of that expectation.
        var finish = 0.0
        var expectation = 0
    }

    private struct Assignment {
        let tile: Tile
        let number: Int
        let sent: Double
        /// When a lane is thought to have begun it.
        var started: Double?
        var finish: Double
        /// The worker's when a lane began it, which is what its lease was made with.
        var backoff = 0
        /// A lane is at it for longer than its lease.
        var isOverdue = false
    }

    private struct WorkerState {
        let lanes: Int
        var credit: Int
        let record: Int
        var isDraining = false
        var isHung = false
        /// Whether it counts among the able.
        var isAble = false
        /// What it has, in the order in which it was sent; its lanes take them in that order.
        var tasks: [Assignment] = []
        var times: [Int: SmoothedTime] = [:]
        /// Leases in a row that it overran: each doubles the next.
        var backoff = 0
        var progress: UInt64 = 0
        var progressed: Double
        /// The number of its place in line.
        var place = 0

        /// Lanes that are not stuck with an overdue task.
        var openLanes: Int { max(0, lanes - tasks.count { $0.isOverdue }) }
        var hasIdleLane: Bool { tasks.count < lanes }
    }

    /// What is known of an identity, however often it joins.
    private struct Record {
        /// Workers under it that take tasks.
        var able = 0
        var failuresInRow = 0
        var bad = 0
        var isQuarantined = false
    }

    /// A worker that waits for a task: those with an idle lane before those that would only prefetch, the fastest
    /// first.
    private struct Place: Comparable {
        let prefetches: Bool
        let seconds: Double
        let number: Int
        let worker: Worker

        static func < (left: Place, right: Place) -> Bool {
            (left.prefetches ? 1 : 0, left.seconds, left.number) < (
                right.prefetches ? 1 : 0, right.seconds, right.number
            )
        }
    }

    private struct Deadline: Comparable {
        let time: Double
        let number: Int
        let worker: Worker

        static func < (left: Deadline, right: Deadline) -> Bool {
            (left.time, left.number) < (right.time, right.number)
        }
    }

    private struct Expectation: Comparable {
        let finish: Double
        let number: Int
        let tile: Tile

        static func < (left: Expectation, right: Expectation) -> Bool {
            (left.finish, left.number) < (right.finish, right.number)
        }
    }

    /// - Parameters:
    ///   - first: the steps before it are done
    ///   - step: what the steps 0..<steps are, a pure function
    package init(
        steps: Int, startingAt first: Int = 0, leases: LeasePolicy = LeasePolicy(),
        step: @escaping @Sendable (Int) -> Step
    ) {
        self.steps = steps
        self.leases = leases
        totalTiles = (0..<steps).reduce(0) { $0 + step($1).count }
        mergedTiles = (0..<min(first, steps)).reduce(0) { $0 + step($1).count }
        graph = TileGraph(steps: steps, startingAt: first, step: step)
        isOver = graph.isFinished
        graph.begin(&changes)
        var commands: [Command] = []
        takeChanges(&commands)
    }

    /// Workers that have joined and not left, without those in quarantine, and those.
    package var workerCount: Int { workers.count - quarantinedWorkers }
    package private(set) var quarantinedWorkers = 0

    package func isQuarantined(_ worker: Worker) -> Bool {
        workers[worker].map { records[$0.record].isQuarantined } ?? false
    }
    /// Tasks that a worker was given and has not answered or returned.
    package func tasks(of worker: Worker) -> Int { workers[worker]?.tasks.count ?? 0 }
    /// Whether the worker was given the tile and has neither answered nor returned it.
    package func has(_ worker: Worker, _ tile: Tile) -> Bool {
        workers[worker]?.tasks.contains { $0.tile == tile } ?? false
    }
    /// Times that a tile was sent; 0 when it is answered.
    package func attempts(of tile: Tile) -> Int { flights[tile]?.attempts ?? 0 }
    /// The lowest step that is not finished.
    package var currentStep: Int { min(graph.firstActive, steps) }

    /// - Parameter now: seconds on any clock that does not go back.
    package mutating func handle(_ event: Event, at now: Double) -> [Command] {
        var commands: [Command] = []
        switch event {
        case .joined(let worker, let lanes, let credit, let identity):
            join(
                worker, lanes: max(lanes, 1), credit: max(credit, 0), identity: identity ?? "worker \(worker)", at: now)
        case .answered(let worker, let tile):
            // Answers count from those alone who were given the task and have not answered it yet.
            if let task = giveBack(worker, tile, at: now) {
                measure(task, of: worker, at: now, &commands)
                answer(tile, from: worker, &commands)
            } else {
                drop(tile, from: worker, &commands)
            }
        case .returned(let worker, let tile):
            guard giveBack(worker, tile, at: now) != nil else { break }
            lose(tile, from: worker, cause: "returned by the worker", &commands)
            // Whoever leaves says so before; else it would be sent the same tile again, for ever.
            if workers[worker]?.isDraining == false {
                strike(worker, nil, reason: "it returns its tasks", at: now, &commands) { $0.failuresInRow += 1 }
            }
        case .failed(let worker, let tile, let reason):
            fail(tile, on: worker, reason: reason, at: now, &commands)
            strike(worker, tile, reason: reason, at: now, &commands) { $0.failuresInRow += 1 }
        case .misbehaved(let worker, let tile, let reason):
            bad += 1
            if let tile { fail(tile, on: worker, reason: reason, at: now, &commands) }
            strike(worker, tile, reason: reason, at: now, &commands) { $0.bad += 1 }
        case .alive(let worker, let progress, let isWorking):
            hear(worker, progress: progress, isWorking: isWorking, at: now, &commands)
        case .draining(let worker):
            workers[worker]?.isDraining = true
            offer(worker)
        case .left(let worker, let reason):
            guard let state = workers.removeValue(forKey: worker) else { break }
            if state.isAble { setAble(false, state) }
            if records[state.record].isQuarantined { quarantinedWorkers -= 1 }
            preferred[worker] = nil
            for task in state.tasks { lose(task.tile, from: worker, cause: reason, &commands) }
        case .tick:
            while let first = deadlines.min, first.time <= now {
                deadlines.removeMin()
                expire(first, at: now, &commands)
            }
        }
        dispatch(at: now, &commands)
        compact()
        return commands
    }

    /// Forgets stale entries where they are most.
    private mutating func compact() {
        if line.count > 4 * workers.count + 64 {
            line = Heap(line.unordered.filter { workers[$0.worker]?.place == $0.number })
        }
        if expectations.count > 4 * flights.count + 64 {
            expectations = Heap(expectations.unordered.filter { flights[$0.tile]?.expectation == $0.number })
        }
    }

    private mutating func nextNumber() -> Int {
        number += 1
        return number
    }

    // MARK: Workers

    private mutating func join(_ worker: Worker, lanes: Int, credit: Int, identity: String, at now: Double) {
        let record = identities[identity] ?? records.count
        if record == records.count {
            identities[identity] = record
            records.append(Record())
        }
        if records[record].isQuarantined { quarantinedWorkers += 1 }
        workers[worker] = WorkerState(lanes: lanes, credit: credit, record: record, progressed: now)
        offer(worker)
    }

    /// Puts a worker in line if it takes tasks.
    private mutating func offer(_ worker: Worker) {
        guard let state = workers[worker] else { return }
        let isAble = !state.isDraining && !state.isHung && !records[state.record].isQuarantined && state.openLanes > 0
        if isAble != state.isAble {
            workers[worker]?.isAble = isAble
            setAble(isAble, state)
        }
        let place = nextNumber()
        workers[worker]?.place = place
        guard isAble, state.credit > 0 else { return }
        let kind = ready.min.map { graph.kind(of: $0) } ?? state.tasks.last.map { graph.kind(of: $0.tile) } ?? 0
        line.insert(
            Place(prefetches: !state.hasIdleLane, seconds: seconds(of: state, kind) ?? 0, number: place, worker: worker)
        )
    }

    private mutating func setAble(_ isAble: Bool, _ worker: WorkerState) {
        let sign = isAble ? 1 : -1
        ableWorkers += sign
        ableLanes += sign * worker.lanes
        records[worker.record].able += sign
    }

    /// The worker whose turn it is, which is taken out of the line; insert the place again if it gets nothing.
    private mutating func nextPlace() -> Place? {
        while let place = line.min {
            guard workers[place.worker]?.place == place.number else {
                line.removeMin()
                continue
            }
            // What is prefetched waits, perhaps behind a slow tile: not while it might be all that the next idle lane
            // finds.
            guard !place.prefetches || ready.count > ableLanes else { return nil }
            line.removeMin()
            return place
        }
        return nil
    }

    /// What a worker is expected to take for work of a kind: what it took before, or what others do; nil when nobody
    /// has done any.
    private func seconds(of state: WorkerState, _ kind: Int) -> Double? { (state.times[kind] ?? pooled[kind])?.mean }

    private func lease(of state: WorkerState, _ kind: Int) -> Double {
        guard let time = state.times[kind] ?? pooled[kind] else { return leases.unmeasured }
        return max(leases.least, time.bound) * Double(1 << min(state.backoff, 10))
    }

    /// Takes a task off a worker's list and gives its credit back; nil when it was not on it.
    private mutating func giveBack(_ worker: Worker, _ tile: Tile, at now: Double) -> Assignment? {
        guard let index = workers[worker]?.tasks.firstIndex(where: { $0.tile == tile }),
            let task = workers[worker]?.tasks.remove(at: index)
        else {
            return nil
        }
        workers[worker]?.credit += 1
        beginTasks(of: worker, at: now)
        offer(worker)
        return task
    }

    /// Notes which tasks the worker's lanes have come to.
    private mutating func beginTasks(of worker: Worker, at now: Double) {
        guard let state = workers[worker] else { return }
        var open = state.openLanes
        for index in state.tasks.indices where !state.tasks[index].isOverdue {
            guard open > 0 else { break }
            open -= 1
            let task = state.tasks[index]
            guard task.started == nil else { continue }
            let kind = graph.kind(of: task.tile)
            workers[worker]?.tasks[index].started = now
            workers[worker]?.tasks[index].backoff = state.backoff
            let finish = now + (seconds(of: state, kind) ?? 0)
            workers[worker]?.tasks[index].finish = finish
            deadlines.insert(Deadline(time: now + lease(of: state, kind), number: task.number, worker: worker))
            expect(task.tile)
        }
    }

    private mutating func measure(_ task: Assignment, of worker: Worker, at now: Double, _ commands: inout [Command]) {
        let seconds = now - (task.started ?? task.sent), kind = graph.kind(of: task.tile)
        pooled[kind].add(seconds)
        guard let record = workers[worker]?.record else { return }
        workers[worker]?.times[kind].add(seconds)
        workers[worker]?.backoff = 0
        records[record].failuresInRow = 0
        recover(worker, at: now, &commands)
    }

    private mutating func hear(
        _ worker: Worker, progress: UInt64, isWorking: Bool, at now: Double, _ commands: inout [Command]
    ) {
        guard let state = workers[worker] else { return }
        if !isWorking || progress != state.progress {
            workers[worker]?.progress = progress
            recover(worker, at: now, &commands)
        } else if !state.isHung, let first = state.tasks.first(where: { $0.started != nil }) {
            let seconds = now - max(state.progressed, first.started ?? now)
            guard seconds > lease(of: state, graph.kind(of: first.tile)) else { return }
            workers[worker]?.isHung = true
            commands.append(.hung(worker, seconds: seconds))
            for task in state.tasks { lose(task.tile, from: worker, cause: "the worker hangs", &commands) }
            offer(worker)
        }
    }

    private mutating func recover(_ worker: Worker, at now: Double, _ commands: inout [Command]) {
        workers[worker]?.progressed = now
        guard workers[worker]?.isHung == true else { return }
        workers[worker]?.isHung = false
        commands.append(.recovered(worker))
        offer(worker)
    }

    /// Something speaks against the worker.
    private mutating func strike(
        _ worker: Worker, _ tile: Tile?, reason: String, at now: Double, _ commands: inout [Command],
        _ note: (inout Record) -> Void
    ) {
        guard let state = workers[worker] else { return }
        note(&records[state.record])
        let record = records[state.record]
        guard !isOver, !record.isQuarantined, max(record.failuresInRow, record.bad) >= Self.patience else { return }
        records[state.record].isQuarantined = true
        commands.append(.quarantined(worker, tile, reason: reason))
        for other in workers.filter({ $0.value.record == state.record }).keys.sorted() {
            quarantinedWorkers += 1
            let tasks = workers[other]?.tasks ?? []
            workers[other]?.tasks = []
            offer(other)
            for task in tasks { lose(task.tile, from: other, cause: "the worker is in quarantine", &commands) }
        }
        if workerCount == 0, !hasOthers(than: []), let tile = nextReady() { giveUp(tile, reason: reason, &commands) }
    }

    private mutating func expire(_ deadline: Deadline, at now: Double, _ commands: inout [Command]) {
        let worker = deadline.worker
        guard let index = workers[worker]?.tasks.firstIndex(where: { $0.number == deadline.number }) else { return }
        workers[worker]?.tasks[index].isOverdue = true
        guard var state = workers[worker] else { return }
        // Leases that ran beside one another are overrun together: they count once.
        state.backoff = max(state.backoff, state.tasks[index].backoff + 1)
        workers[worker]?.backoff = state.backoff
        lose(state.tasks[index].tile, from: worker, cause: "no answer within the lease", &commands)
        if state.openLanes == 0 {
            // What waits there would wait for ever.
            for task in state.tasks where !task.isOverdue {
                lose(task.tile, from: worker, cause: "the worker's lanes do not answer", &commands)
            }
        }
        beginTasks(of: worker, at: now)
        offer(worker)
    }

    // MARK: Dispatch

    private mutating func dispatch(at now: Double, _ commands: inout [Command]) {
        // Tiles that none of those in line should get: they have them already, or have failed on them.
        var aside: [Tile] = []
        // What is lost is not out, and goes first: it is older.
        while !isOver, let tile = nextReady(), inFlight < graph.mostOut(of: tile) {
            var refused: [Place] = []
            var isSent = false
            while !isSent, let place = nextPlace() {
                let choice = takePreferred(by: place.worker) ?? tile
                if takes(place.worker, choice) {
                    if choice == tile { ready.removeMin() }
                    send(choice, to: place.worker, at: now, &commands)
                    isSent = true
                } else {
                    refused.append(place)
                }
            }
            for place in refused { line.insert(place) }
            guard !isSent else { continue }
            if refused.isEmpty { break }
            aside.append(ready.removeMin())
        }
        if !isOver, ready.isEmpty, leases.sendsCopies { speculate(at: now, &commands) }
        for tile in aside { ready.insert(tile) }
    }

    /// The first tile that is to be sent, which stays where it is.
    private mutating func nextReady() -> Tile? {
        while let tile = ready.min {
            switch graph.status(of: tile) {
            case .ready: return tile
            case .cut where flights[tile]?.holders.isEmpty == true: return tile
            // Answered while it waited to be repeated, or sent to the worker that it was meant for.
            default: ready.removeMin()
            }
        }
        return nil
    }

    private mutating func takePreferred(by worker: Worker) -> Tile? {
        while let tile = preferred[worker]?.popFirst() {
            if graph.status(of: tile) == .ready { return tile }
        }
        return nil
    }

    /// Whether a worker may be given a tile: it does not have it, and has not failed on it while others could take it.
    private func takes(_ worker: Worker, _ tile: Tile) -> Bool {
        guard let state = workers[worker], !state.tasks.contains(where: { $0.tile == tile }) else { return false }
        guard let failedOn = flights[tile]?.failedOn, failedOn.contains(state.record) else { return true }
        return failedOn.reduce(0) { $0 + records[$1].able } == ableWorkers
    }

    private mutating func send(
        _ tile: Tile, to worker: Worker, at now: Double, isCopy: Bool = false, _ commands: inout [Command]
    ) {
        guard let state = workers[worker] else { return }
        let flight = flights[tile, default: Flight()]
        let mean = seconds(of: state, graph.kind(of: tile)) ?? 0
        // A lane comes to it when the one before it on that lane is answered.
        let waiting = state.tasks.filter { !$0.isOverdue }
        let before = waiting.count - state.openLanes
        let start = before >= 0 && before < waiting.count ? max(now, waiting[before].finish) : now
        let task = Assignment(tile: tile, number: nextNumber(), sent: now, finish: start + mean)
        workers[worker]?.credit -= 1
        workers[worker]?.tasks.append(task)
        flights[tile, default: flight].attempts += 1
        flights[tile]?.holders.append(worker)
        if flight.holders.isEmpty { inFlight += 1 }
        beginTasks(of: worker, at: now)
        if before >= 0 { expect(tile) }
        offer(worker)
        if flight.attempts == 0 {
            commands.append(.cutAndSend(tile, to: worker))
            graph.cut(tile, &changes)
            takeChanges(&commands)
        } else {
            if isCopy { speculations += 1 } else { repeats += 1 }
            commands.append(.resend(tile, to: worker, attempt: flight.attempts))
        }
    }

    /// Notes when a tile is expected to be answered, if it is out once: only then a second copy may be worth it. Not of
    /// what somebody has kept a part of: whoever has not would begin anew.
    private mutating func expect(_ tile: Tile, notBefore least: Double = 0) {
        guard let flight = flights[tile] else { return }
        let number = nextNumber()
        flights[tile]?.expectation = number
        if let key = graph.key(of: tile), formerAnswerers[key] != nil { return }
        guard flight.holders.count == 1, leases.sendsCopies,
            let task = workers[flight.holders[0]]?.tasks.first(where: { $0.tile == tile })
        else { return }
        flights[tile]?.finish = max(task.finish, least)
        expectations.insert(Expectation(finish: max(task.finish, least), number: number, tile: tile))
    }

    /// Lanes are idle and nothing is ready: the tile that is expected last gets a second copy, if the worker whose turn
    /// it is should be clearly sooner.
    private mutating func speculate(at now: Double, _ commands: inout [Command]) {
        guard line.min?.prefetches == false else { return }
        // What should have been answered by now may take as long again as it has taken already.
        while let first = expectations.min, first.finish <= now {
            expectations.removeMin()
            guard let flight = flights[first.tile], flight.expectation == first.number else { continue }
            let started =
                flight.holders.first.flatMap { workers[$0]?.tasks.first { $0.tile == first.tile } }?.started ?? now
            expect(first.tile, notBefore: now + max(now - started, 0.01))
        }
        var refused: [Expectation] = []
        while let last = expectations.max, refused.count < 4 {
            guard let flight = flights[last.tile], flight.expectation == last.number else {
                expectations.removeMax()
                continue
            }
            guard let place = nextPlace() else { break }
            guard let state = workers[place.worker], state.hasIdleLane,
                let seconds = seconds(of: state, graph.kind(of: last.tile)),
                last.finish - now > leases.gain * seconds
            else {
                line.insert(place)
                break
            }
            expectations.removeMax()
            if takes(place.worker, last.tile) {
                send(last.tile, to: place.worker, at: now, isCopy: true, &commands)
            } else {
                refused.append(last)
                line.insert(place)
            }
        }
        for expectation in refused { expectations.insert(expectation) }
    }

    // MARK: Tiles

    /// Carries over what has become of the graph.
    private mutating func takeChanges(_ commands: inout [Command]) {
        for change in changes {
            switch change {
            case .began:
                (formerAnswerers, answerers, preferred) = (answerers, [:], [:])
            case .ready(let tile):
                ready.insert(tile)
                if let key = graph.key(of: tile), let worker = formerAnswerers[key] {
                    preferred[worker, default: []].append(tile)
                }
            case .merged(let tile):
                mergedTiles += 1
                commands.append(.merge(tile))
            case .finished(let step):
                commands.append(.finishedStep(step))
            }
        }
        changes.removeAll(keepingCapacity: true)
        if graph.isFinished, !isOver {
            isOver = true
            commands.append(.finishedJob)
        }
    }

    private mutating func answer(_ tile: Tile, from worker: Worker, _ commands: inout [Command]) {
        guard !isOver, graph.status(of: tile) == .cut else { return drop(tile, from: worker, &commands) }
        if flights.removeValue(forKey: tile)?.holders.isEmpty == false { inFlight -= 1 }
        if let key = graph.key(of: tile) { answerers[key] = worker }
        commands.append(.accept(tile))
        graph.answer(tile, &changes)
        takeChanges(&commands)
    }

    private mutating func drop(_ tile: Tile, from worker: Worker, _ commands: inout [Command]) {
        dropped += 1
        commands.append(.drop(tile, from: worker))
    }

    /// A worker holds a tile no longer; it is sent again if nobody else does.
    private mutating func lose(_ tile: Tile, from worker: Worker, cause: String, _ commands: inout [Command]) {
        guard !isOver, let index = flights[tile]?.holders.firstIndex(of: worker) else { return }
        flights[tile]?.holders.remove(at: index)
        guard flights[tile]?.holders.isEmpty == true else { return expect(tile) }
        inFlight -= 1
        ready.insert(tile)
        commands.append(.requeued(tile, from: worker, cause: cause))
    }

    private mutating func fail(
        _ tile: Tile, on worker: Worker, reason: String, at now: Double, _ commands: inout [Command]
    ) {
        guard let record = workers[worker]?.record, giveBack(worker, tile, at: now) != nil, !isOver,
            var flight = flights[tile]
        else { return }
        flight.failures += 1
        if !flight.failedOn.contains(record) { flight.failedOn.append(record) }
        flights[tile] = flight
        // The failures of two machines tell of the tile, those of one perhaps of the machine.
        if flight.failedOn.count >= Self.patience || flight.failedOn.count > 1 && flight.failures >= 2 * Self.patience
            || flight.failures >= Self.patience && !hasOthers(than: flight.failedOn)
        {
            giveUp(tile, reason: reason, &commands)
        } else {
            lose(tile, from: worker, cause: reason, &commands)
        }
    }

    /// Whether a tile could be done by somebody who is here, or comes, other than these.
    private func hasOthers(than failedOn: [Int]) -> Bool {
        leases.othersMayCome || failedOn.reduce(0) { $0 + records[$1].able } < ableWorkers
            || leases.identities > records.indices.count { records[$0].isQuarantined || failedOn.contains($0) }
    }

    private mutating func giveUp(_ tile: Tile, reason: String, _ commands: inout [Command]) {
        isOver = true
        commands.append(.gaveUp(tile, reason: reason))
    }
}
