import DequeModule
import Engine
import HeapModule

/// The farm's brain: which tile goes to which worker, and when an answer may be written into the canvas.
///
/// A value without sockets, clocks, threads or randomness: events go in with the time at which they happened, commands come
/// out. Whoever owns the sockets carries the commands out in their order.
///
/// Steps have no barrier where tiles write disjoint cells: a tile is ready as soon as every cell of the step before that its
/// window touches is merged, the lowest step goes first, and the canvas is updated in place. Because windows are wider than cells, an
/// answer waits until every window of its own step that reads its cell has been cut out. Everything else waits for the whole step
/// before, and where sums are made answers are merged in the order of the tiles, so that the sums have a fixed order.
package struct Scheduler {
    package typealias Worker = Int

    /// One step of a job: so many tiles of the same kind of work.
    package struct Step: Sendable {
        package enum Shape: Sendable {
            /// Tiles that write disjoint cells of the canvas. `readsCanvas`: whether their windows hold what the step before wrote.
            case cells(TileGrid, readsCanvas: Bool)
            /// Tiles that need nothing but the whole step before. `inOrder`: whether they are merged in the order of their numbers.
            case barrier(count: Int, inOrder: Bool)
        }

        package var shape: Shape
        /// Steps of one kind take a worker about the same time.
        package var kind: Int
        /// A name for each tile, or none. A tile goes, if it can, to the worker that has answered the tile of the same name in the step before: that one
        /// may have kept what both have in common. Other workers come to the same bits, only later.
        package var keys: [Int]

        package init(_ shape: Shape, kind: Int = 0, keys: [Int] = []) {
            self.shape = shape
            self.kind = kind
            self.keys = keys
        }

        /// How many tiles it has.
        package var count: Int {
            switch shape {
            case .cells(let grid, _): grid.count
            case .barrier(let count, _): count
            }
        }
    }

    /// A tile of a step.
    package struct Tile: Hashable, Comparable, Sendable {
        package var step: Int
        package var index: Int

        package init(step: Int, index: Int) {
            self.step = step
            self.index = index
        }

        package static func < (left: Tile, right: Tile) -> Bool { (left.step, left.index) < (right.step, right.index) }
    }

    package enum Event {
        /// A worker is ready, with that many lanes, and takes `credit` tasks before it answers one.
        case joined(Worker, lanes: Int, credit: Int)
        case answered(Worker, Tile)
        /// Given back before it was started.
        case returned(Worker, Tile)
        case failed(Worker, Tile, reason: String)
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
        /// Every tile of the step is merged. What follows from the whole step (the sampler's step of blended predictions, reduced statistics) is due
        /// now, before any later command.
        case finishedStep(Int)
        case finishedJob
        /// A tile failed on every worker there is, or on three of them: the job cannot be finished.
        case gaveUp(Tile, reason: String)
    }

    /// How long a task may take before it is given to another worker as well.
    package struct LeasePolicy: Sendable {
        /// Seconds for a worker that has not answered yet.
        package var unmeasured: Double = 120
        /// Never less than this many seconds.
        package var least: Double = 20
        /// Times the worker's own smoothed time from sending to answer.
        package var factor: Double = 8

        package init() {}
    }

    /// Workers that a tile fails on before the job is given up, or failures of it where there are fewer workers; and failures in a row
    /// after which a worker gets nothing more while another one works.
    package static let patience = 3

    package let steps: Int
    package let totalTiles: Int
    package private(set) var mergedTiles = 0
    /// Tiles sent again, for whatever reason.
    package private(set) var repeats = 0
    /// Answers that came after the tile had been answered.
    package private(set) var dropped = 0
    package private(set) var isOver = false

    private let leases: LeasePolicy
    private let makeStep: @Sendable (Int) -> Step
    private var active: Deque<StepState> = []
    private var firstActive = 0
    private var ready = Heap<Tile>()
    private var flights: [Tile: Flight] = [:]
    private var repeated: [Tile: Repeats] = [:]
    private var workers: [Worker: WorkerState] = [:]
    /// Workers with an idle lane, and workers that only have room to prefetch; entries may be stale and are checked when taken.
    private var idle: Deque<Worker> = []
    private var prefetching: Deque<Worker> = []
    /// Who answered the newest step's tiles, by their names, and which tiles that gives to whom. They are among `ready` too.
    private var answerers: [Int: Worker] = [:]
    private var preferred: [Worker: Deque<Tile>] = [:]

    private struct StepState {
        enum Status: UInt8 { case waiting, ready, cut, answered, merged }
        let step: Step
        var status: [Status]
        /// Cells of the step before that the window touches and that are not merged yet.
        var missing: [Int32]
        /// Windows of this step that read the tile's cell and are not cut yet.
        var uncut: [Int32]
        var merged = 0
        /// The next tile to merge, where the order matters.
        var next = 0

        /// The grid, where tiles write disjoint cells.
        var grid: TileGrid? { if case .cells(let grid, _) = step.shape { grid } else { nil } }
        var readsCanvas: Bool { if case .cells(_, let readsCanvas) = step.shape { readsCanvas } else { false } }
        var isInOrder: Bool { if case .barrier(_, let inOrder) = step.shape { inOrder } else { false } }
    }

    /// The newest holder of a tile.
    private struct Flight {
        var worker: Worker
        var deadline: Double
    }

    private struct Repeats {
        var attempts = 0
        var failures = 0
        var failedOn: Set<Worker> = []
    }

    private struct WorkerState {
        var lanes: Int
        var credit: Int
        var isDraining = false
        var failuresInRow = 0
        /// What it has, and when it was sent.
        var tasks: [Tile: Double] = [:]

        var takesTasks: Bool { credit > 0 && !isDraining }
        /// From sending to answer, by the kind of work.
        var smoothedSeconds: [Int: Double] = [:]
    }

    /// - Parameters:
    ///   - first: the steps before it are done
    ///   - step: what the steps 0..<steps are, a pure function
    package init(steps: Int, startingAt first: Int = 0, leases: LeasePolicy = LeasePolicy(), step: @escaping @Sendable (Int) -> Step) {
        self.steps = steps
        self.leases = leases
        makeStep = step
        totalTiles = (0..<steps).reduce(0) { $0 + step($1).count }
        mergedTiles = (0..<min(first, steps)).reduce(0) { $0 + step($1).count }
        firstActive = min(first, steps)
        isOver = firstActive == steps
        beginNextStep()
    }

    /// A job that denoises and does nothing else, from noise.
    package init(tiling: Tiling, steps: Int, leases: LeasePolicy = LeasePolicy()) {
        self.init(steps: steps, leases: leases) { Step(denoising: tiling, step: $0, fromNoise: true) }
    }

    /// Workers that have joined and not left.
    package var workerCount: Int { workers.count }
    package var inFlight: Int { flights.count }

    /// Tasks that a worker was given and has not answered or returned.
    package func tasks(of worker: Worker) -> Int { workers[worker]?.tasks.count ?? 0 }
    /// The lowest step that is not finished.
    package var currentStep: Int { min(firstActive, steps) }

    /// - Parameter now: seconds on any clock that does not go back.
    package mutating func handle(_ event: Event, at now: Double) -> [Command] {
        var commands: [Command] = []
        switch event {
        case .joined(let worker, let lanes, let credit):
            workers[worker] = WorkerState(lanes: max(lanes, 1), credit: max(credit, 0))
            offer(worker)
        case .answered(let worker, let tile):
            // Answers count from those alone who were given the task and have not answered it yet.
            if giveBack(worker, tile, answeredAt: now) {
                answer(tile, from: worker, &commands)
            } else {
                dropped += 1
                commands.append(.drop(tile, from: worker))
            }
        case .returned(let worker, let tile):
            guard giveBack(worker, tile, answeredAt: nil) else { break }
            requeue(tile, from: worker, cause: "returned by the worker", &commands)
        case .failed(let worker, let tile, let reason):
            workers[worker]?.failuresInRow += 1
            guard giveBack(worker, tile, answeredAt: nil) else { break }
            fail(tile, from: worker, reason: reason, &commands)
        case .draining(let worker):
            workers[worker]?.isDraining = true
        case .left(let worker, let reason):
            if let state = workers.removeValue(forKey: worker) {
                for tile in state.tasks.keys.sorted() { requeue(tile, from: worker, cause: reason, &commands) }
            }
            // Those that were passed over while it worked may be all there is now.
            for (other, state) in workers.sorted(by: { $0.key < $1.key }) where state.failuresInRow >= Self.patience { offer(other) }
        case .tick:
            for (tile, flight) in flights.filter({ $0.value.deadline <= now }).sorted(by: { $0.key < $1.key }) {
                requeue(tile, from: flight.worker, cause: "no answer within the lease", &commands)
            }
        }
        dispatch(at: now, &commands)
        return commands
    }

    // MARK: Workers

    private mutating func offer(_ worker: Worker) {
        guard let state = workers[worker], state.takesTasks else { return }
        if state.tasks.count < state.lanes { idle.append(worker) } else { prefetching.append(worker) }
    }

    /// The worker whose turn it is: one with an idle lane before one that would only prefetch.
    private mutating func nextWorker() -> Worker? {
        while let worker = idle.popFirst() {
            guard let state = workers[worker], state.takesTasks, !isPassedOver(state) else { continue }
            if state.tasks.count < state.lanes { return worker }
            prefetching.append(worker)
        }
        while let worker = prefetching.popFirst() {
            if let state = workers[worker], state.takesTasks, !isPassedOver(state) { return worker }
        }
        return nil
    }

    /// Takes a task off a worker's list and gives its credit back; false when it was not on it.
    private mutating func giveBack(_ worker: Worker, _ tile: Tile, answeredAt now: Double?) -> Bool {
        guard let sent = workers[worker]?.tasks.removeValue(forKey: tile) else { return false }
        workers[worker]?.credit += 1
        if let now {
            let kind = kind(of: tile)
            let smoothed = workers[worker]?.smoothedSeconds[kind].map { $0 * 0.8 + (now - sent) * 0.2 } ?? now - sent
            workers[worker]?.smoothedSeconds[kind] = smoothed
            workers[worker]?.failuresInRow = 0
        }
        offer(worker)
        return true
    }

    /// Whether a worker that keeps failing is passed over, because another one does not.
    private func isPassedOver(_ state: WorkerState) -> Bool {
        state.failuresInRow >= Self.patience && workers.contains { !$0.value.isDraining && $0.value.failuresInRow < Self.patience }
    }

    /// Whether another worker than `worker` could take a tile that failed there.
    private func couldGoElsewhere(_ tile: Tile, than worker: Worker) -> Bool {
        guard let failedOn = repeated[tile]?.failedOn, failedOn.contains(worker) else { return false }
        // Those that are passed over are given nothing, so waiting for one would be waiting for ever.
        return workers.contains { !$0.value.isDraining && !failedOn.contains($0.key) && !isPassedOver($0.value) }
    }

    private mutating func dispatch(at now: Double, _ commands: inout [Command]) {
        // Tiles that the worker whose turn it is should not get: it has them already, or has failed on them.
        var aside: [Tile] = []
        defer { for tile in aside { ready.insert(tile) } }
        while !isOver, !ready.isEmpty, let worker = nextWorker() {
            let tile = takePreferred(by: worker) ?? ready.removeMin()
            guard let status = status(of: tile), status == .ready || status == .cut && flights[tile] == nil else {
                offer(worker)  // Answered while it waited to be repeated, or sent to the worker that it was meant for.
                continue
            }
            guard workers[worker]?.tasks[tile] == nil, !couldGoElsewhere(tile, than: worker) else {
                aside.append(tile)
                offer(worker)
                continue
            }
            workers[worker]?.credit -= 1
            workers[worker]?.tasks[tile] = now
            offer(worker)
            let seconds = workers[worker]?.smoothedSeconds[kind(of: tile)].map { max(leases.least, leases.factor * $0) } ?? leases.unmeasured
            flights[tile] = Flight(worker: worker, deadline: now + seconds)
            if status == .ready {
                commands.append(.cutAndSend(tile, to: worker))
                cut(tile, &commands)
            } else {
                repeats += 1
                commands.append(.resend(tile, to: worker, attempt: repeated[tile]?.attempts ?? 0))
            }
        }
    }

    // MARK: Tiles

    private func status(of tile: Tile) -> StepState.Status? {
        let index = tile.step - firstActive
        guard active.indices.contains(index), active[index].status.indices.contains(tile.index) else { return nil }
        return active[index].status[tile.index]
    }

    private func kind(of tile: Tile) -> Int {
        let index = tile.step - firstActive
        return active.indices.contains(index) ? active[index].step.kind : makeStep(tile.step).kind
    }

    private func makeState(_ number: Int, after previous: TileGrid?) -> StepState {
        let step = makeStep(number)
        let tiles = 0..<step.count
        var missing = [Int32](repeating: 0, count: step.count)
        var uncut = missing
        if case .cells(let grid, readsCanvas: true) = step.shape {
            if let previous { missing = tiles.map { Int32(previous.tilesWriting(grid.window($0)).count) } }
            uncut = tiles.map { Int32(grid.tilesReading(grid.cell($0)).count) }
        }
        return StepState(step: step, status: Array(repeating: .waiting, count: step.count), missing: missing, uncut: uncut)
    }

    /// Begins the step after all those that are finished, if it has not begun; it waits for nothing.
    private mutating func beginNextStep() {
        guard active.isEmpty, firstActive < steps else { return }
        active.append(makeState(firstActive, after: nil))
        preferred = [:]
        for index in active[0].status.indices {
            let tile = Tile(step: firstActive, index: index)
            makeReady(tile)
            if active[0].step.keys.indices.contains(index), let worker = answerers[active[0].step.keys[index]] {
                preferred[worker, default: []].append(tile)
            }
        }
        answerers = [:]
    }

    private mutating func takePreferred(by worker: Worker) -> Tile? {
        while let tile = preferred[worker]?.popFirst() {
            if status(of: tile) == .ready { return tile }
        }
        return nil
    }

    private mutating func makeReady(_ tile: Tile) {
        active[tile.step - firstActive].status[tile.index] = .ready
        ready.insert(tile)
    }

    private mutating func cut(_ tile: Tile, _ commands: inout [Command]) {
        let index = tile.step - firstActive
        active[index].status[tile.index] = .cut
        guard active[index].readsCanvas, let grid = active[index].grid else { return }
        for other in grid.tilesWriting(grid.window(tile.index)) {
            active[index].uncut[other] -= 1
            if active[index].uncut[other] == 0, active[index].status[other] == .answered {
                merge(Tile(step: tile.step, index: other), &commands)
            }
        }
    }

    private mutating func answer(_ tile: Tile, from worker: Worker, _ commands: inout [Command]) {
        guard !isOver, status(of: tile) == .cut else {
            dropped += 1
            commands.append(.drop(tile, from: worker))
            return
        }
        flights[tile] = nil
        repeated[tile] = nil
        let index = tile.step - firstActive
        active[index].status[tile.index] = .answered
        if active[index].step.keys.indices.contains(tile.index) { answerers[active[index].step.keys[tile.index]] = worker }
        commands.append(.accept(tile))
        if !active[index].isInOrder {
            if active[index].uncut[tile.index] == 0 { merge(tile, &commands) }
        } else {
            while tile.step == firstActive, !isOver, active[0].next < active[0].status.count, active[0].status[active[0].next] == .answered {
                active[0].next += 1
                merge(Tile(step: tile.step, index: active[0].next - 1), &commands)
            }
        }
    }

    private mutating func merge(_ tile: Tile, _ commands: inout [Command]) {
        let index = tile.step - firstActive
        active[index].status[tile.index] = .merged
        active[index].merged += 1
        mergedTiles += 1
        commands.append(.merge(tile))
        guard let grid = active[index].grid, tile.step + 1 < steps else { return finishSteps(&commands) }
        if index + 1 == active.count {
            // A step that does not read cells waits for all of them.
            guard case .cells(_, readsCanvas: true) = makeStep(tile.step + 1).shape else { return finishSteps(&commands) }
            active.append(makeState(tile.step + 1, after: grid))
        }
        guard let readers = active[index + 1].grid?.tilesReading(grid.cell(tile.index)) else { return finishSteps(&commands) }
        finishSteps(&commands)
        for reader in readers {
            let next = Tile(step: tile.step + 1, index: reader)
            active[next.step - firstActive].missing[reader] -= 1
            if active[next.step - firstActive].missing[reader] == 0 { makeReady(next) }
        }
    }

    private mutating func finishSteps(_ commands: inout [Command]) {
        while let first = active.first, first.merged == first.status.count {
            active.removeFirst()
            commands.append(.finishedStep(firstActive))
            firstActive += 1
            beginNextStep()
        }
        if firstActive == steps, !isOver {
            isOver = true
            commands.append(.finishedJob)
        }
    }

    private mutating func requeue(_ tile: Tile, from worker: Worker, cause: String, _ commands: inout [Command]) {
        // Only the newest holder's loss counts: an older one has been replaced already.
        guard !isOver, let flight = flights[tile], flight.worker == worker else { return }
        flights[tile] = nil
        repeated[tile, default: Repeats()].attempts += 1
        ready.insert(tile)
        commands.append(.requeued(tile, from: worker, cause: cause))
    }

    private mutating func fail(_ tile: Tile, from worker: Worker, reason: String, _ commands: inout [Command]) {
        guard !isOver, status(of: tile) == .cut else { return }
        var history = repeated[tile] ?? Repeats()
        history.failures += 1
        history.failedOn.insert(worker)
        repeated[tile] = history
        let nobodyElse = !workers.contains { !history.failedOn.contains($0.key) }
        if history.failedOn.count >= Self.patience || nobodyElse && history.failures >= Self.patience {
            isOver = true
            commands.append(.gaveUp(tile, reason: reason))
        } else {
            requeue(tile, from: worker, cause: reason, &commands)
        }
    }
}

extension Scheduler.Step {
    /// A step of a sampler.
    /// - Parameter fromNoise: the first step's windows are pure noise: nobody reads the canvas, and nothing has to wait.
    package init(denoising tiling: Tiling, step: Int, fromNoise: Bool, kind: Int = 0) {
        let grid = tiling.grid(step: step)
        self.init(
            tiling.writesDisjointCells ? .cells(grid, readsCanvas: step > 0 || !fromNoise) : .barrier(count: grid.count, inOrder: true), kind: kind)
    }
}
