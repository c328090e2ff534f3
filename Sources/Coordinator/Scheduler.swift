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
/// answer waits until every window of its own step that reads its cell has been cut out. Where predictions are blended,
/// a step waits for the whole step before, and answers are merged in the order of the tiles, so that sums have a fixed order.
package struct Scheduler {
    package typealias Worker = Int

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
        /// Every tile of the step is merged. Where predictions are blended the sampler's step is due now, before any later command.
        case finishedStep(Int)
        case finishedJob
        /// A tile failed on too many attempts: the job cannot be finished.
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

    /// Failures of one tile, on whichever workers, after which the job is given up.
    package static let failuresBeforeGivingUp = 3

    package let tiling: Tiling
    package let steps: Int
    package let totalTiles: Int
    package private(set) var mergedTiles = 0
    /// Tiles sent again, for whatever reason.
    package private(set) var repeats = 0
    /// Answers that came after the tile had been answered.
    package private(set) var dropped = 0
    package private(set) var isOver = false

    private let leases: LeasePolicy
    private var active: Deque<StepState> = []
    private var firstActive = 0
    private var ready = Heap<Tile>()
    private var flights: [Tile: Flight] = [:]
    private var repeated: [Tile: Repeats] = [:]
    private var workers: [Worker: WorkerState] = [:]
    /// Workers with an idle lane, and workers that only have room to prefetch; entries may be stale and are checked when taken.
    private var idle: Deque<Worker> = []
    private var prefetching: Deque<Worker> = []

    private struct StepState {
        enum Status: UInt8 { case waiting, ready, cut, answered, merged }
        let grid: TileGrid
        var status: [Status]
        /// Cells of the step before that the window touches and that are not merged yet.
        var missing: [Int32]
        /// Windows of this step that read the tile's cell and are not cut yet.
        var uncut: [Int32]
        var merged = 0
        /// The next tile to merge, where the order matters.
        var next = 0
    }

    private struct Flight {
        var worker: Worker
        var sent: Double
        var deadline: Double
    }

    private struct Repeats {
        var attempts = 0
        var failures = 0
    }

    private struct WorkerState {
        var lanes: Int
        var credit: Int
        var isDraining = false
        var tasks: Set<Tile> = []

        var takesTasks: Bool { credit > 0 && !isDraining }
        var smoothedSeconds: Double?
    }

    package init(tiling: Tiling, steps: Int, leases: LeasePolicy = LeasePolicy()) {
        self.tiling = tiling
        self.steps = steps
        self.leases = leases
        totalTiles = (0..<steps).reduce(0) { $0 + tiling.grid(step: $1).count }
        if steps > 0 {
            active.append(makeStep(0, after: nil))
            for index in active[0].status.indices { makeReady(Tile(step: 0, index: index)) }
        }
    }

    /// Workers that have joined and not left.
    package var workerCount: Int { workers.count }
    package var inFlight: Int { flights.count }

    /// Tasks that a worker was given and has not answered or returned.
    package func tasks(of worker: Worker) -> Int { workers[worker]?.tasks.count ?? 0 }
    /// The lowest step that is not finished.
    package var currentStep: Int { min(firstActive, steps) }

    package func grid(step: Int) -> TileGrid {
        let index = step - firstActive
        return active.indices.contains(index) ? active[index].grid : tiling.grid(step: step)
    }

    /// - Parameter now: seconds on any clock that does not go back.
    package mutating func handle(_ event: Event, at now: Double) -> [Command] {
        var commands: [Command] = []
        switch event {
        case .joined(let worker, let lanes, let credit):
            workers[worker] = WorkerState(lanes: max(lanes, 1), credit: max(credit, 0))
            offer(worker)
        case .answered(let worker, let tile):
            giveBack(worker, tile, answeredAt: now)
            answer(tile, from: worker, &commands)
        case .returned(let worker, let tile):
            giveBack(worker, tile, answeredAt: nil)
            requeue(tile, from: worker, cause: "returned by the worker", &commands)
        case .failed(let worker, let tile, let reason):
            giveBack(worker, tile, answeredAt: nil)
            fail(tile, from: worker, reason: reason, &commands)
        case .draining(let worker):
            workers[worker]?.isDraining = true
        case .left(let worker, let reason):
            if let state = workers.removeValue(forKey: worker) {
                for tile in state.tasks.sorted() { requeue(tile, from: worker, cause: reason, &commands) }
            }
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
            guard let state = workers[worker], state.takesTasks else { continue }
            if state.tasks.count < state.lanes { return worker }
            prefetching.append(worker)
        }
        while let worker = prefetching.popFirst() {
            if let state = workers[worker], state.takesTasks { return worker }
        }
        return nil
    }

    private mutating func giveBack(_ worker: Worker, _ tile: Tile, answeredAt now: Double?) {
        // A task that the worker was not given earns no credit.
        guard workers[worker]?.tasks.remove(tile) != nil else { return }
        workers[worker]?.credit += 1
        if let now, let flight = flights[tile], flight.worker == worker {
            let seconds = now - flight.sent
            let smoothed = workers[worker]?.smoothedSeconds.map { $0 * 0.8 + seconds * 0.2 } ?? seconds
            workers[worker]?.smoothedSeconds = smoothed
        }
        offer(worker)
    }

    private mutating func dispatch(at now: Double, _ commands: inout [Command]) {
        while !isOver, !ready.isEmpty, let worker = nextWorker() {
            let tile = ready.removeMin()
            guard let status = status(of: tile), status == .ready || status == .cut else {
                offer(worker)  // Answered while it waited to be repeated.
                continue
            }
            workers[worker]?.credit -= 1
            workers[worker]?.tasks.insert(tile)
            offer(worker)
            let seconds = workers[worker]?.smoothedSeconds.map { max(leases.least, leases.factor * $0) } ?? leases.unmeasured
            flights[tile] = Flight(worker: worker, sent: now, deadline: now + seconds)
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

    private func makeStep(_ step: Int, after previous: TileGrid?) -> StepState {
        let grid = tiling.grid(step: step)
        let tiles = 0..<grid.count
        var missing = [Int32](repeating: 0, count: grid.count)
        var uncut = missing
        if tiling.writesDisjointCells, let previous {
            missing = tiles.map { Int32(previous.tilesWriting(grid.window($0)).count) }
            uncut = tiles.map { Int32(grid.tilesReading(grid.cell($0)).count) }
        }
        // The windows of the first step are pure noise: nobody reads the canvas, and nothing has to wait.
        return StepState(grid: grid, status: Array(repeating: .waiting, count: grid.count), missing: missing, uncut: uncut)
    }

    private mutating func makeReady(_ tile: Tile) {
        active[tile.step - firstActive].status[tile.index] = .ready
        ready.insert(tile)
    }

    private mutating func cut(_ tile: Tile, _ commands: inout [Command]) {
        let index = tile.step - firstActive
        active[index].status[tile.index] = .cut
        guard tiling.writesDisjointCells, tile.step > 0 else { return }
        for other in active[index].grid.tilesWriting(active[index].grid.window(tile.index)) {
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
        commands.append(.accept(tile))
        if tiling.writesDisjointCells {
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
        guard tiling.writesDisjointCells, tile.step + 1 < steps else { return finishSteps(&commands) }
        if index + 1 == active.count { active.append(makeStep(tile.step + 1, after: active[index].grid)) }
        let readers = active[index + 1].grid.tilesReading(active[index].grid.cell(tile.index))
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
            if !tiling.writesDisjointCells, firstActive < steps {
                active.append(makeStep(firstActive, after: first.grid))
                for index in active[0].status.indices { makeReady(Tile(step: firstActive, index: index)) }
            }
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
        repeated[tile, default: Repeats()].failures += 1
        if let failures = repeated[tile]?.failures, failures >= Self.failuresBeforeGivingUp {
            isOver = true
            commands.append(.gaveUp(tile, reason: reason))
        } else {
            requeue(tile, from: worker, cause: reason, &commands)
        }
    }
}
