import Engine
import HeapModule

/// A farm without machines: the real scheduler, with workers that are nothing but times and misfortunes. A pure
/// function of its settings.
package struct Simulation {
    package struct Settings: Sendable {
        /// Tiles along a side of the canvas. Their cut lines move, so most steps have one row and one column more.
        package var grid = 16
        package var steps = 16
        package var workers = 50
        /// Lanes of a worker, and tasks that each has at hand besides the one it is at.
        package var lanes = 1
        package var prefetched = 1
        /// How much slower than the first workers are the others: worker i takes `slowness[i % slowness.count]` times
        /// as long.
        package var slowness: [Double] = [1]
        /// How far a task's time goes up or down at most, as a part of it; evenly spread.
        package var jitter = 0.1
        /// The part of the tasks that end badly: a third each with an error, with the worker's death (another comes
        /// after a while), with a worker that hangs until somebody kills it.
        package var failing = 0.0
        /// Every step waits for the whole step before.
        package var isBarrier = false
        package var seed: UInt64 = 0
        package var leases = Scheduler.LeasePolicy()

        package init() { leases.othersMayCome = true }
    }

    package struct Report: Sendable, Encodable, Equatable {
        package var finished = false
        package var tiles = 0
        /// In units of what a tile takes the first worker.
        package var seconds = 0.0
        /// Time that the same tiles would take if no lane was ever idle, over `seconds`.
        package var efficiency = 0.0
        package var repeated = 0
        package var speculative = 0
        package var dropped = 0
        package var quarantined = 0
        package var events = 0
        /// Most windows kept, and most answers that waited to be merged, at one time.
        package var mostKept = 0
        package var mostWaiting = 0
    }

    private enum Incident {
        case done(worker: Int, Scheduler.Tile, misfortune: Misfortune?)
        case joins(worker: Int)
        case killed(worker: Int)
        case ticks
    }

    private enum Misfortune { case error, death, silence }

    private struct Entry: Comparable {
        let time: Double
        let number: Int
        let incident: Incident

        static func < (left: Entry, right: Entry) -> Bool { (left.time, left.number) < (right.time, right.number) }
        static func == (left: Entry, right: Entry) -> Bool { left.number == right.number }
    }

    private struct Worker {
        let slowness: Double
        var idleLanes: Int
        var waiting: [Scheduler.Tile] = []
    }

    private let settings: Settings
    private var scheduler: Scheduler
    private var random: SplitMix64
    private var agenda = Heap<Entry>()
    private var number = 0
    private var workers: [Int: Worker] = [:]
    private var nextWorker: Int
    private var now = 0.0
    private var report = Report()
    private var kept = 0
    private var waiting = 0

    /// - Throws: `TilingError` for a grid that cannot be cut, `PipelineError` for no steps.
    package static func run(_ settings: Settings) throws -> Report {
        var simulation = try Simulation(settings)
        return simulation.run()
    }

    private init(_ settings: Settings) throws {
        self.settings = settings
        // A tile of 64 with a halo of 8, as latent models have them.
        let side = settings.grid * 48 + 16
        let tiling = try Tiling(
            canvasHeight: side, canvasWidth: side, tile: 64, overlap: .implicit(halo: 8), offset: .random, alignment: 8,
            seed: settings.seed)
        scheduler = Scheduler(
            pipeline: try Self.pipeline(tiling, steps: settings.steps), leases: settings.leases,
            hasBarrier: settings.isBarrier)
        random = SplitMix64(state: settings.seed)
        nextWorker = settings.workers
    }

    /// A sample of latents that every step reads and writes, the first one from noise.
    private static func pipeline(_ tiling: Tiling, steps: Int) throws(PipelineError) -> Pipeline {
        let sample = Plane(
            "sample",
            .array(height: tiling.canvasHeight, width: tiling.canvasWidth, channels: 4, element: .float32))
        let passes = (0..<steps).map { step in
            Pass(
                "denoise", step: step, places: .grid(tiling.grid(step: step)),
                reads: [Read(0, .window(), step == 0 ? .noise(NoiseField(.initial)) : .frame)],
                writes: [Write(0, .cells())],
                work: .task { _ in throw NothingToDo() })
        }
        return try Pipeline(planes: [sample], stages: [Stage(passes)], output: 0)
    }

    /// A simulated worker's failure at any task.
    private struct NothingToDo: Error {}

    private mutating func run() -> Report {
        for worker in 0..<settings.workers { schedule(at: 0, .joins(worker: worker)) }
        schedule(at: 1, .ticks)
        while !report.finished, let next = agenda.popMin() {
            now = next.time
            report.events += 1
            switch next.incident {
            case .joins(let worker):
                workers[worker] = Worker(
                    slowness: settings.slowness[worker % settings.slowness.count], idleLanes: settings.lanes)
                tell(.joined(worker, lanes: settings.lanes, credit: settings.lanes * (1 + settings.prefetched)))
            case .killed(let worker):
                replace(worker)
            case .ticks:
                tell(.tick)
                schedule(at: now + 1, .ticks)
            case .done(let worker, let tile, let misfortune):
                finish(tile, on: worker, misfortune)
            }
        }
        let capacity = (0..<settings.workers).reduce(0) {
            $0 + Double(settings.lanes) / settings.slowness[$1 % settings.slowness.count]
        }
        report.tiles = scheduler.totalTiles
        report.seconds = now
        report.efficiency = now > 0 ? Double(scheduler.totalTiles) / capacity / now : 0
        report.repeated = scheduler.repeats
        report.speculative = scheduler.speculations
        report.dropped = scheduler.dropped
        return report
    }

    private mutating func schedule(at time: Double, _ incident: Incident) {
        number += 1
        agenda.insert(Entry(time: time, number: number, incident: incident))
    }

    private mutating func finish(_ tile: Scheduler.Tile, on worker: Int, _ misfortune: Misfortune?) {
        guard workers[worker] != nil else { return }
        switch misfortune {
        case .death: return replace(worker)
        case .silence: return schedule(at: now + 60, .killed(worker: worker))
        case .error, nil: break
        }
        workers[worker]?.idleLanes += 1
        begin(worker)
        tell(misfortune == nil ? .answered(worker, tile) : .failed(worker, tile, reason: "misfortune"))
    }

    /// A worker dies, and one of the same speed comes after a while.
    private mutating func replace(_ worker: Int) {
        guard workers.removeValue(forKey: worker) != nil else { return }
        tell(.left(worker, reason: "killed"))
        let kinds = settings.slowness.count
        let successor = (nextWorker + kinds - 1) / kinds * kinds + worker % kinds
        nextWorker = successor + 1
        schedule(at: now + 5, .joins(worker: successor))
    }

    /// Gives idle lanes what waits for them.
    private mutating func begin(_ worker: Int) {
        while let state = workers[worker], state.idleLanes > 0, let tile = state.waiting.first {
            workers[worker]?.idleLanes -= 1
            workers[worker]?.waiting.removeFirst()
            let seconds = (1 + settings.jitter * Double.random(in: -1...1, using: &random)) * state.slowness
            var misfortune: Misfortune?
            if settings.failing > 0, Double.random(in: 0..<1, using: &random) < settings.failing {
                misfortune = [.error, .death, .silence].randomElement(using: &random)
            }
            schedule(at: now + seconds, .done(worker: worker, tile, misfortune: misfortune))
        }
    }

    private mutating func tell(_ event: Scheduler.Event) {
        for command in scheduler.handle(event, at: now) {
            switch command {
            case .cutAndSend(let tile, let worker):
                kept += 1
                report.mostKept = max(report.mostKept, kept)
                workers[worker]?.waiting.append(tile)
                begin(worker)
            case .resend(let tile, let worker, _):
                workers[worker]?.waiting.append(tile)
                begin(worker)
            case .accept:
                waiting += 1
                report.mostWaiting = max(report.mostWaiting, waiting)
            case .merge:
                kept -= 1
                waiting -= 1
            case .quarantined(let worker, _, _):
                report.quarantined += 1
                // Somebody looks after it, or another takes its place.
                schedule(at: now + 5, .killed(worker: worker))
            case .finishedJob:
                report.finished = true
            case .gaveUp:
                agenda = Heap()
            case .drop, .compute, .requeued, .hung, .recovered, .finishedPass:
                break
            }
        }
    }
}
