import Engine

/// The farm's brain: which tile goes to which worker, and which answer counts.
///
/// A value without sockets, clocks, threads or randomness: events go in with the time at which they happened, commands
/// come out. Whoever owns the sockets carries the commands out in their order, on planes that are changed in place.
/// What tiles need of one another is `TaskGraph`'s; of those that are ready the lowest pass goes first, to the fastest
/// worker with an idle lane. An event takes a time that grows with the logarithm of workers and tiles, and with the
/// tasks that its worker has; only a quarantine looks at all workers.
package struct Scheduler {
    package typealias Worker = Int

    /// A tile of a pass.
    package struct Tile: Hashable, Comparable, Sendable {
        /// The pass's place in the pipeline's list.
        package var pass: Int
        package var index: Int

        package init(pass: Int, index: Int) {
            self.pass = pass
            self.index = index
        }

        package static func < (left: Tile, right: Tile) -> Bool { (left.pass, left.index) < (right.pass, right.index) }
    }

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
        /// Cut what the tile reads out of the planes, keep the frames until it is merged, and send them. Blobs may be
        /// cut again until it is answered.
        case cutAndSend(Tile, to: Worker)
        /// Send the kept frames again; `attempt` counts from 1 for the first repeat.
        case resend(Tile, to: Worker, attempt: Int)
        /// Keep the answer that has just arrived until it is merged.
        case accept(Tile)
        /// Forget the answer that has just arrived: late or duplicate.
        case drop(Tile, from: Worker)
        /// Write the kept answer into all planes that the pass writes, and forget the kept frames. Sums and blends
        /// begin with an emptied plane at the first tile.
        case merge(Tile)
        /// Do the work of a pass that is the coordinator's own.
        case compute(Tile)
        case requeued(Tile, from: Worker, cause: String)
        /// It lives and does not get on; it is given nothing until it does.
        case hung(Worker, seconds: Double)
        case recovered(Worker)
        /// Too many bad results, the last of them perhaps for a tile: neither the worker nor whoever joins under its
        /// identity gets anything more.
        case quarantined(Worker, Tile?, reason: String)
        /// Every tile of the pass is merged; passes that need nothing of one another finish in any order. A sum of a
        /// pass without tiles is empty from now on.
        case finishedPass(Int)
        case finishedJob
        /// A tile failed on three workers, or six times on two, or on every worker that there is and comes: the job
        /// cannot be finished.
        case gaveUp(Tile, reason: String)
    }

    /// Workers that a tile fails on before the job is given up, or failures of it where nobody else comes, or half of
    /// those where somebody might; failures in a row, or bad results in all, after which a worker is quarantined.
    package static let patience = 3

    /// Tasks for workers, without those that the coordinator does itself.
    package let totalTiles: Int
    package internal(set) var mergedTiles = 0
    /// Tiles sent again because a copy was lost.
    package internal(set) var repeats = 0
    /// Second copies, sent while the first was out.
    package internal(set) var speculations = 0
    /// Answers that came after the tile had been answered.
    package internal(set) var dropped = 0
    /// Answers that were none.
    package internal(set) var bad = 0
    package internal(set) var isOver = false
    /// Tiles that somebody holds a lease of.
    package internal(set) var inFlight = 0

    /// Traits of a pass that the scheduler looks up.
    struct PassTraits {
        /// Passes of one name and network take a worker about the same time.
        var kind: Int
        /// 0 for none.
        var network: Int
        /// No tile of the pass is sent while so many of any pass are at workers.
        var maxInFlight: Int
    }

    /// A tile that was cut and is not answered.
    struct PendingTask {
        /// Those that are at it, or have it waiting, within their leases.
        var holders: [Worker] = []
        var attempts = 0
        var failures = 0
        /// Records of those that it failed on.
        var failedOn: [Int] = []
        /// The number of the newest expectation of it.
        var expectation = 0
    }

    let traits: [PassTraits]
    var graph: TaskGraph
    var fleet: Fleet
    var leases: Leases
    var affinity: Affinity
    var readyTiles: ReadyTiles
    var pendingTasks: [Tile: PendingTask] = [:]
    private var hasStarted = false

    /// The first event, whatever it is, also starts the passes that wait for nothing.
    /// - Parameters:
    ///   - first: the passes before it are done
    ///   - hasBarrier: whether reads of windows and cells wait for the writer's last tile; slower, and there to be
    ///     compared with
    ///   - maxInFlight: for each pass, how many tiles of any pass may be at workers while one of it is sent: what is
    ///     kept of them takes memory
    package init(
        pipeline: Pipeline, startingAt first: Int = 0, leases: LeasePolicy = LeasePolicy(), hasBarrier: Bool = false,
        maxInFlight: (_ pass: Int) -> Int = { _ in .max }
    ) {
        struct Kind: Hashable {
            var name: String
            var network: String
        }
        var kinds: [Kind: Int] = [:], networks = ["": 0], traits: [PassTraits] = []
        for (index, pass) in pipeline.passes.enumerated() {
            let kind = kinds[Kind(name: pass.name, network: pass.network)] ?? kinds.count
            kinds[Kind(name: pass.name, network: pass.network)] = kind
            let network = networks[pass.network] ?? networks.count
            networks[pass.network] = network
            traits.append(PassTraits(kind: kind, network: network, maxInFlight: max(maxInFlight(index), 1)))
        }
        self.traits = traits
        self.leases = Leases(leases)
        graph = TaskGraph(pipeline, startingAt: first, hasBarrier: hasBarrier)
        fleet = Fleet(networks: networks.count - 1)
        affinity = Affinity(pipeline.passes, startingAt: first)
        readyTiles = ReadyTiles(networks: networks.count - 1)
        totalTiles = pipeline.taskCount
        mergedTiles = pipeline.passes.prefix(first).reduce(0) { $0 + $1.taskCount }
        isOver = graph.isFinished
    }

    /// Workers that have joined and not left, without those in quarantine, and those.
    package var workerCount: Int { fleet.count - fleet.quarantined }
    package var quarantinedWorkers: Int { fleet.quarantined }
    package func isQuarantined(_ worker: Worker) -> Bool { fleet.isQuarantined(worker) }
    /// Tasks that a worker was given and has not answered or returned.
    package func tasks(of worker: Worker) -> Int { fleet[worker]?.tasks.count ?? 0 }
    /// Whether the worker was given the tile and has neither answered nor returned it.
    package func has(_ worker: Worker, _ tile: Tile) -> Bool { fleet[worker]?.index(of: tile) != nil }
    /// Times that a tile was sent; 0 when it is answered.
    package func attempts(of tile: Tile) -> Int { pendingTasks[tile]?.attempts ?? 0 }
    /// The lowest pass that is not finished.
    package var currentPass: Int { graph.currentPass }

    /// - Parameter now: seconds on any clock that does not go back.
    package mutating func handle(_ event: Event, at now: Double) -> [Command] {
        var commands: [Command] = []
        if !hasStarted {
            hasStarted = true
            graph.start()
            takeChanges(&commands)
        }
        switch event {
        case .joined(let worker, let lanes, let credit, let identity):
            fleet.join(
                worker, lanes: max(lanes, 1), credit: max(credit, 0), identity: identity ?? "worker \(worker)", at: now)
            offer(worker)
        case .answered(let worker, let tile):
            // Answers count from those alone who were given the task and have not answered it yet.
            if let task = takeBack(tile, from: worker, at: now) {
                measure(task, of: worker, at: now, &commands)
                answer(tile, from: worker, &commands)
            } else {
                drop(tile, from: worker, &commands)
            }
        case .returned(let worker, let tile):
            guard takeBack(tile, from: worker, at: now) != nil else { break }
            lose(tile, from: worker, cause: "returned by the worker", &commands)
            // Whoever leaves says so before; else it would be sent the same tile again, for ever.
            if fleet[worker]?.isDraining == false {
                strike(worker, nil, reason: "it returns its tasks", &commands) { $0.failuresInRow += 1 }
            }
        case .failed(let worker, let tile, let reason):
            fail(tile, on: worker, reason: reason, at: now, &commands)
            strike(worker, tile, reason: reason, &commands) { $0.failuresInRow += 1 }
        case .misbehaved(let worker, let tile, let reason):
            bad += 1
            if let tile { fail(tile, on: worker, reason: reason, at: now, &commands) }
            strike(worker, tile, reason: reason, &commands) { $0.bad += 1 }
        case .alive(let worker, let progress, let isWorking):
            hear(worker, progress: progress, isWorking: isWorking, at: now, &commands)
        case .draining(let worker):
            fleet.update(worker) { $0.isDraining = true }
            offer(worker)
        case .left(let worker, let reason):
            guard let state = fleet.remove(worker) else { break }
            affinity.forget(worker)
            for task in state.tasks { lose(task.tile, from: worker, cause: reason, &commands) }
        case .tick:
            while let deadline = leases.popExpired(at: now) { expire(deadline, at: now, &commands) }
        }
        dispatch(at: now, &commands)
        fleet.compact()
        leases.compact(pendingTasks: pendingTasks.count) { pendingTasks[$0.tile]?.expectation == $0.number }
        return commands
    }

    // MARK: Tiles

    /// Carries over what has become of the graph.
    mutating func takeChanges(_ commands: inout [Command]) {
        for change in graph.changes {
            switch change {
            case .ready(let tile):
                readyTiles.insert(tile, network: traits[tile.pass].network)
                if let worker = affinity.lastWorker(tile), fleet[worker] != nil { affinity.prefer(tile, for: worker) }
            case .compute(let tile):
                commands.append(.compute(tile))
            case .merged(let tile):
                mergedTiles += 1
                commands.append(.merge(tile))
            case .finished(let pass):
                affinity.finished(pass: pass)
                commands.append(.finishedPass(pass))
            }
        }
        graph.clearChanges()
        if graph.isFinished, !isOver {
            isOver = true
            commands.append(.finishedJob)
        }
    }

    private mutating func answer(_ tile: Tile, from worker: Worker, _ commands: inout [Command]) {
        guard !isOver, graph.status(of: tile) == .cut else { return drop(tile, from: worker, &commands) }
        if pendingTasks.removeValue(forKey: tile)?.holders.isEmpty == false { inFlight -= 1 }
        affinity.answered(tile, by: worker)
        commands.append(.accept(tile))
        graph.answer(tile)
        takeChanges(&commands)
    }

    private mutating func drop(_ tile: Tile, from worker: Worker, _ commands: inout [Command]) {
        dropped += 1
        commands.append(.drop(tile, from: worker))
    }

    /// A worker holds a tile no longer; it is sent again if nobody else does.
    mutating func lose(_ tile: Tile, from worker: Worker, cause: String, _ commands: inout [Command]) {
        guard !isOver, let index = pendingTasks[tile]?.holders.firstIndex(of: worker) else { return }
        pendingTasks[tile]?.holders.remove(at: index)
        guard pendingTasks[tile]?.holders.isEmpty == true else { return expect(tile) }
        inFlight -= 1
        readyTiles.insert(tile, network: traits[tile.pass].network)
        commands.append(.requeued(tile, from: worker, cause: cause))
    }

    // MARK: Failures

    private mutating func fail(
        _ tile: Tile, on worker: Worker, reason: String, at now: Double, _ commands: inout [Command]
    ) {
        guard let record = fleet[worker]?.record, takeBack(tile, from: worker, at: now) != nil, !isOver,
            var task = pendingTasks[tile]
        else { return }
        task.failures += 1
        if !task.failedOn.contains(record) { task.failedOn.append(record) }
        pendingTasks[tile] = task
        // The failures of two machines tell of the tile, those of one perhaps of the machine.
        if task.failedOn.count >= Self.patience || task.failedOn.count > 1 && task.failures >= 2 * Self.patience
            || task.failures >= Self.patience && !hasOthers(than: task.failedOn)
        {
            giveUp(tile, reason: reason, &commands)
        } else {
            lose(tile, from: worker, cause: reason, &commands)
        }
    }

    /// Something speaks against the worker.
    private mutating func strike(
        _ worker: Worker, _ tile: Tile?, reason: String, _ commands: inout [Command],
        _ record: (inout Fleet.Record) -> Void
    ) {
        guard let number = fleet[worker]?.record else { return }
        fleet.updateRecord(of: worker, record)
        let record = fleet.records[number]
        guard !isOver, !record.isQuarantined, max(record.failuresInRow, record.bad) >= Self.patience else { return }
        commands.append(.quarantined(worker, tile, reason: reason))
        for other in fleet.quarantine(worker) {
            let tasks = fleet[other]?.tasks ?? []
            fleet.update(other) { $0.tasks = [] }
            offer(other)
            for task in tasks { lose(task.tile, from: other, cause: "the worker is in quarantine", &commands) }
        }
        if workerCount == 0, !hasOthers(than: []), let tile = nextReady() { giveUp(tile, reason: reason, &commands) }
    }

    /// Whether a tile could be done by somebody who is here, or comes, other than these.
    private func hasOthers(than failedOn: [Int]) -> Bool {
        leases.policy.othersMayCome || fleet.ableWorkers(besides: failedOn) > 0
            || leases.policy.identities
                > fleet.records.indices.count { fleet.records[$0].isQuarantined || failedOn.contains($0) }
    }

    private mutating func giveUp(_ tile: Tile, reason: String, _ commands: inout [Command]) {
        isOver = true
        commands.append(.gaveUp(tile, reason: reason))
    }
}
