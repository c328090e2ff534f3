import Coordinator
import Engine
import Testing

/// Planes of a simulated farm, changed when the scheduler says so.
protocol FarmPlanes {
    /// Cuts what a tile reads and gives it to a worker: the first time frames and blobs, later blobs alone, as the
    /// frames are kept.
    mutating func cut(_ tile: Scheduler.Tile, for worker: Int, isRepeat: Bool)
    /// Keeps the answer that a worker has made of what it was given.
    mutating func accept(_ tile: Scheduler.Tile, from worker: Int)
    mutating func merge(_ tile: Scheduler.Tile)
    mutating func compute(_ tile: Scheduler.Tile)
    mutating func finish(pass: Int)
}

/// For tests of who gets which tile.
struct NoPlanes: FarmPlanes {
    func cut(_ tile: Scheduler.Tile, for worker: Int, isRepeat: Bool) {}
    func accept(_ tile: Scheduler.Tile, from worker: Int) {}
    func merge(_ tile: Scheduler.Tile) {}
    func compute(_ tile: Scheduler.Tile) {}
    func finish(pass: Int) {}
}

/// A farm without machines: carries the scheduler's commands out in their order, on workers that do what the test says.
struct SimulatedFarm<Planes: FarmPlanes> {
    typealias Tile = Scheduler.Tile

    struct Task: Hashable {
        var worker: Int
        var tile: Tile
    }

    var scheduler: Scheduler
    var planes: Planes
    var random: SplitMix64
    var now = 0.0
    /// Tasks that the workers there were sent and have not answered, returned or failed, in the order of sending.
    private(set) var tasks: [Task] = []
    private(set) var workers: Set<Int> = []
    /// Answers that workers gave, to be given late or again.
    private(set) var answers: [Task] = []
    private(set) var sent: [Task] = []
    private(set) var cuts: Set<Tile> = []
    private(set) var merges: [Tile] = []
    private(set) var requeued: [Tile] = []
    private(set) var finishedPasses: [Int] = []
    private(set) var isFinished = false
    private(set) var hasGivenUp = false
    private(set) var mostKept = 0
    private var kept: Set<Tile> = []
    private var accepted: Set<Tile> = []
    private var nextWorker = 0

    init(_ scheduler: Scheduler, planes: Planes, seed: UInt64 = 0) {
        self.scheduler = scheduler
        self.planes = planes
        random = SplitMix64(state: seed)
    }

    /// Nothing is kept of tiles that are over.
    var isEmpty: Bool { kept.isEmpty && accepted.isEmpty && scheduler.inFlight == 0 }

    func tiles(of worker: Int) -> [Tile] { tasks.filter { $0.worker == worker }.map(\.tile) }

    // MARK: What workers do

    @discardableResult
    mutating func join(_ worker: Int, lanes: Int = 1, credit: Int? = nil, identity: String? = nil)
        -> [Scheduler.Command]
    {
        workers.insert(worker)
        nextWorker = max(nextWorker, worker + 1)
        return handle(.joined(worker, lanes: lanes, credit: credit ?? 2 * lanes, identity: identity))
    }

    /// A worker that was not there before comes.
    mutating func joinAnother(lanes: Int = 1) { join(nextWorker, lanes: lanes) }

    @discardableResult
    mutating func lose(_ worker: Int, reason: String = "killed") -> [Scheduler.Command] {
        workers.remove(worker)
        tasks.removeAll { $0.worker == worker }
        return handle(.left(worker, reason: reason))
    }

    @discardableResult
    mutating func answer(_ worker: Int, _ tile: Tile) -> [Scheduler.Command] {
        end(worker, tile)
        answers.append(Task(worker: worker, tile: tile))
        return handle(.answered(worker, tile))
    }

    @discardableResult
    mutating func returnTask(_ worker: Int, _ tile: Tile) -> [Scheduler.Command] {
        end(worker, tile)
        return handle(.returned(worker, tile))
    }

    @discardableResult
    mutating func fail(_ worker: Int, _ tile: Tile, reason: String = "out of memory") -> [Scheduler.Command] {
        end(worker, tile)
        return handle(.failed(worker, tile, reason: reason))
    }

    /// The worker answers something that is no answer.
    @discardableResult
    mutating func lie(_ worker: Int, _ tile: Tile?, reason: String = "not finite") -> [Scheduler.Command] {
        if let tile { end(worker, tile) }
        return handle(.misbehaved(worker, tile, reason: reason))
    }

    @discardableResult
    mutating func drain(_ worker: Int) -> [Scheduler.Command] { handle(.draining(worker)) }

    @discardableResult
    mutating func hear(_ worker: Int, progress: UInt64) -> [Scheduler.Command] {
        handle(.alive(worker, progress: progress, isWorking: true))
    }

    /// Time passes.
    @discardableResult
    mutating func wait(_ seconds: Double) -> [Scheduler.Command] {
        now += seconds
        return handle(.tick)
    }

    /// Some worker answers, not always the task that it got first.
    mutating func answerOne() {
        guard let task = tasks.randomElement(using: &random) else { return }
        now += 0.01
        answer(task.worker, task.tile)
    }

    /// The task that was sent first is answered.
    mutating func answerFirst() {
        if let first = tasks.first { answer(first.worker, first.tile) }
    }

    mutating func answerAll() { while !tasks.isEmpty { answerOne() } }

    private mutating func end(_ worker: Int, _ tile: Tile) {
        if let index = tasks.firstIndex(of: Task(worker: worker, tile: tile)) { tasks.remove(at: index) }
    }

    // MARK: What the coordinator does

    @discardableResult
    private mutating func handle(_ event: Scheduler.Event) -> [Scheduler.Command] {
        let commands = scheduler.handle(event, at: now)
        for command in commands { carryOut(command, after: event) }
        return commands
    }

    private mutating func carryOut(_ command: Scheduler.Command, after event: Scheduler.Event) {
        switch command {
        case .cutAndSend(let tile, let worker):
            check(cuts.insert(tile).inserted && kept.insert(tile).inserted, "\(tile) was cut before")
            mostKept = max(mostKept, kept.count)
            planes.cut(tile, for: worker, isRepeat: false)
            send(tile, to: worker)
        case .resend(let tile, let worker, let attempt):
            check(kept.contains(tile) && attempt > 0, "\(tile) is sent again and is not kept")
            planes.cut(tile, for: worker, isRepeat: true)
            send(tile, to: worker)
        case .accept(let tile):
            check(accepted.insert(tile).inserted, "\(tile) is accepted twice")
            if case .answered(let worker, tile) = event { planes.accept(tile, from: worker) }
        case .merge(let tile):
            check(accepted.remove(tile) != nil && kept.remove(tile) != nil, "\(tile) is merged without an answer")
            planes.merge(tile)
            merges.append(tile)
        case .compute(let tile):
            planes.compute(tile)
        case .finishedPass(let pass):
            check(!finishedPasses.contains(pass), "pass \(pass) finishes twice")
            finishedPasses.append(pass)
            planes.finish(pass: pass)
        case .requeued(let tile, _, _):
            requeued.append(tile)
        case .finishedJob:
            check(!isFinished, "the job finishes twice")
            isFinished = true
        case .gaveUp:
            hasGivenUp = true
        case .drop, .hung, .recovered, .quarantined:
            break
        }
    }

    private mutating func send(_ tile: Tile, to worker: Int) {
        check(workers.contains(worker), "\(tile) is sent to worker \(worker), who is gone")
        let task = Task(worker: worker, tile: tile)
        tasks.append(task)
        sent.append(task)
    }

    /// `#expect` takes too long for what is checked a million times.
    private func check(_ condition: Bool, _ message: @autoclosure () -> String) {
        if !condition { Issue.record("\(message())") }
    }
}

extension SimulatedFarm where Planes == NoPlanes {
    init(_ pipeline: Pipeline, leases: Scheduler.LeasePolicy = .init(), seed: UInt64 = 0) {
        self.init(Scheduler(pipeline: pipeline, leases: leases), planes: NoPlanes(), seed: seed)
    }
}
