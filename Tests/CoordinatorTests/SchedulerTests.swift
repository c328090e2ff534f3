import Coordinator
import Engine
import Testing

extension Scheduler {
    /// A job that denoises and does nothing else, from noise.
    init(tiling: Tiling, steps: Int, leases: LeasePolicy = LeasePolicy(), mostOut: Int = .max) {
        self.init(steps: steps, leases: leases) {
            Step(denoising: tiling.grid(step: $0), of: tiling, readsCanvas: $0 > 0, mostOut: mostOut)
        }
    }
}

/// A farm without machines: carries the scheduler's commands out on a canvas whose pixels only count the steps they
/// have been through, so that a window cut too early or a cell written too soon shows at once.
struct SimulatedFarm {
    var scheduler: Scheduler
    var random: SplitMix64
    var canvas: [Int]
    let width: Int
    var kept: Set<Scheduler.Tile> = []
    var held: Set<Scheduler.Tile> = []
    let tiling: Tiling
    var queues: [Int: [Scheduler.Tile]] = [:]
    var now = 0.0
    var merges: [Scheduler.Tile] = []
    var finishedSteps: [Int] = []
    var finished = false
    var gaveUp = false
    var requeues = 0
    var mostKept = 0

    init(tiling: Tiling, steps: Int, seed: UInt64, sendsCopies: Bool = true, mostOut: Int = .max) {
        self.tiling = tiling
        var leases = Scheduler.LeasePolicy()
        (leases.sendsCopies, leases.othersMayCome) = (sendsCopies, true)
        scheduler = Scheduler(tiling: tiling, steps: steps, leases: leases, mostOut: mostOut)
        random = SplitMix64(state: seed)
        canvas = Array(repeating: 0, count: tiling.canvasHeight * tiling.canvasWidth)
        width = tiling.canvasWidth
    }

    mutating func send(_ event: Scheduler.Event) {
        for command in scheduler.handle(event, at: now) {
            switch command {
            case .cutAndSend(let tile, let worker):
                // The first step's windows are noise, made from coordinates.
                if tile.step > 0 {
                    expect(tiling.grid(step: tile.step).window(tile.index), at: tile.step, "cut \(tile)")
                }
                #expect(kept.insert(tile).inserted)
                mostKept = max(mostKept, kept.count)
                queues[worker, default: []].append(tile)
            case .resend(let tile, let worker, let attempt):
                #expect(kept.contains(tile) && attempt > 0)
                queues[worker, default: []].append(tile)
            case .accept(let tile):
                #expect(held.insert(tile).inserted)
            case .drop, .hung, .recovered, .quarantined:
                break
            case .merge(let tile):
                #expect(held.remove(tile) != nil && kept.remove(tile) != nil)
                merges.append(tile)
                if tiling.writesDisjointCells {
                    advance(tiling.grid(step: tile.step).cell(tile.index), to: tile.step + 1)
                }
            case .requeued:
                requeues += 1
            case .finishedStep(let step):
                finishedSteps.append(step)
                if !tiling.writesDisjointCells {
                    advance(Rect(y: 0, x: 0, height: canvas.count / width, width: width), to: step + 1)
                }
            case .finishedJob:
                #expect(!finished)
                finished = true
            case .gaveUp:
                gaveUp = true
            }
        }
    }

    func expect(_ rect: Rect, at version: Int, _ what: @autoclosure () -> String) {
        for y in rect.y..<rect.maxY {
            for x in rect.x..<rect.maxX where canvas[y * width + x] != version {
                Issue.record("\(what()): pixel (\(y), \(x)) is at step \(canvas[y * width + x]), not \(version)")
                return
            }
        }
    }

    mutating func advance(_ rect: Rect, to version: Int) {
        expect(rect, at: version - 1, "merge to \(version)")
        for y in rect.y..<rect.maxY { for x in rect.x..<rect.maxX { canvas[y * width + x] = version } }
    }

    mutating func join(_ worker: Int, lanes: Int = 1) { send(.joined(worker, lanes: lanes, credit: 2 * lanes)) }

    /// Some worker answers, not always the task it got first.
    mutating func answerOne() {
        let busy = queues.filter { !$0.value.isEmpty }.keys.sorted()
        guard let worker = busy.randomElement(using: &random), let count = queues[worker]?.count else { return }
        let tile = queues[worker]?.remove(at: Int.random(in: 0..<count, using: &random))
        now += 0.01
        if let tile { send(.answered(worker, tile)) }
    }

    var nothingToAnswer: Bool { queues.values.allSatisfy(\.isEmpty) }
}

@Suite("Scheduler")
struct SchedulerTests {
    static func tilings() throws -> [Tiling] {
        let overlaps: [Tiling.Overlap] = [
            .implicit(halo: 0), .implicit(halo: 1), .implicit(halo: 2), .none, .reference,
            .explicit(width: 3, weights: .mean),
        ]
        return try overlaps.flatMap { overlap in
            try [(20, 33), (7, 40), (6, 6), (50, 50)].map { height, width in
                try Tiling(
                    canvasHeight: height, canvasWidth: width, tile: 8, overlap: overlap, offset: .random, alignment: 1,
                    seed: UInt64(height))
            }
        }
    }

    @Test("every window is cut at its own step and every cell written once a step, whatever the order of answers")
    func order() throws {
        for (number, tiling) in try Self.tilings().enumerated() {
            var farm = SimulatedFarm(tiling: tiling, steps: 6, seed: UInt64(number))
            for worker in 0..<5 { farm.join(worker, lanes: 1 + worker % 3) }
            while !farm.nothingToAnswer { farm.answerOne() }
            #expect(farm.finished && farm.scheduler.isOver)
            #expect(farm.canvas.allSatisfy { $0 == 6 })
            #expect(farm.finishedSteps == Array(0..<6))
            #expect(Set(farm.merges).count == farm.merges.count && farm.merges.count == farm.scheduler.totalTiles)
            #expect(farm.scheduler.mergedTiles == farm.scheduler.totalTiles && farm.scheduler.repeats == 0)
            #expect(farm.kept.isEmpty && farm.held.isEmpty)
        }
    }

    @Test(
        "workers that die, hang, fail, lie, return tasks, answer late or twice and come back change nothing",
        arguments: 0..<10 as Range<UInt64>)
    func faults(seed: UInt64) throws {
        for (number, tiling) in try Self.tilings().enumerated() {
            var farm = SimulatedFarm(tiling: tiling, steps: 5, seed: 100 + UInt64(number) + 1000 * seed)
            var random = SplitMix64(state: UInt64(number) + 1000 * seed)
            var nextWorker = 0
            var failures = 0
            while !farm.finished {
                switch Int.random(in: 0..<24, using: &random) {
                case 0:
                    farm.join(nextWorker, lanes: Int.random(in: 1...3, using: &random))
                    nextWorker += 1
                case 1:
                    if let victim = farm.queues.keys.sorted().randomElement(using: &random) {
                        farm.queues[victim] = nil
                        farm.send(.left(victim, reason: "killed"))
                    }
                case 2:
                    // A hung worker's tasks go elsewhere; it may still answer them afterwards.
                    farm.now += 1000
                    farm.send(.tick)
                case 3:
                    if let tile = farm.merges.randomElement(using: &random) { farm.send(.answered(0, tile)) }
                case 4:
                    if let worker = farm.queues.keys.sorted().randomElement(using: &random),
                        let tile = farm.queues[worker]?.popLast()
                    {
                        farm.send(.returned(worker, tile))
                    }
                case 5 where failures < 2:
                    if let worker = farm.queues.keys.sorted().randomElement(using: &random),
                        let tile = farm.queues[worker]?.popLast()
                    {
                        failures += 1
                        farm.send(.failed(worker, tile, reason: "out of memory"))
                    }
                case 6:
                    // Lies until it is in quarantine; what it says then is dropped.
                    if let worker = farm.queues.keys.sorted().randomElement(using: &random) {
                        farm.send(.misbehaved(worker, nil, reason: "lies"))
                    }
                case 7:
                    if let worker = farm.queues.keys.sorted().randomElement(using: &random) {
                        farm.now += Double.random(in: 0...200, using: &random)
                        farm.send(.alive(worker, progress: .random(in: 0...1, using: &random), isWorking: true))
                    }
                default:
                    farm.answerOne()
                }
            }
            #expect(farm.canvas.allSatisfy { $0 == 5 } && !farm.gaveUp)
            #expect(farm.kept.isEmpty && farm.held.isEmpty && farm.scheduler.inFlight == 0)
            #expect(farm.merges.count == farm.scheduler.totalTiles && Set(farm.merges).count == farm.merges.count)
        }
    }

    @Test("blended answers are merged in the order of the tiles")
    func blendedOrder() throws {
        let tiling = try Tiling(
            canvasHeight: 40, canvasWidth: 40, tile: 8, overlap: .explicit(width: 4, weights: .gaussian), offset: .none,
            alignment: 4, seed: 1)
        var farm = SimulatedFarm(tiling: tiling, steps: 3, seed: 4)
        for worker in 0..<9 { farm.join(worker) }
        while !farm.nothingToAnswer { farm.answerOne() }
        #expect(farm.merges == farm.merges.sorted())
    }

    @Test("no worker gets more than its credit, and an idle lane comes before a prefetch")
    func credit() throws {
        let tiling = try Tiling(
            canvasHeight: 64, canvasWidth: 64, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        var farm = SimulatedFarm(tiling: tiling, steps: 1, seed: 1)
        farm.join(0, lanes: 2)
        #expect(farm.queues[0]?.count == 4)
        farm.join(1, lanes: 1)
        #expect(farm.queues[1]?.count == 2)
        farm.answerOne()
        #expect((farm.queues[0]?.count ?? 0) + (farm.queues[1]?.count ?? 0) == 6)
        // With two tiles left, a worker that is idle gets one before a busy one prefetches.
        let few = try Tiling(
            canvasHeight: 8, canvasWidth: 24, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        var small = SimulatedFarm(tiling: few, steps: 1, seed: 1)
        small.join(0, lanes: 2)
        #expect(small.queues[0]?.count == 2, "the last one waits for whoever is idle first")
        small.send(.left(0, reason: "killed"))
        small.queues[0] = nil
        #expect(small.requeues == 2)
        small.join(1, lanes: 1)
        small.join(2, lanes: 1)
        #expect(small.queues[1]?.count == 2 && small.queues[2]?.count == 1)
    }

    @Test("a draining worker gets nothing more and answers what it has")
    func draining() throws {
        let tiling = try Tiling(
            canvasHeight: 64, canvasWidth: 64, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        var farm = SimulatedFarm(tiling: tiling, steps: 1, seed: 1)
        farm.join(0)
        farm.join(1)
        farm.send(.draining(0))
        let tiles = farm.queues[0] ?? []
        farm.queues[0] = nil
        #expect(tiles.count == 2 && farm.scheduler.tasks(of: 0) == 2)
        farm.send(.answered(0, tiles[0]))
        farm.send(.returned(0, tiles[1]))
        #expect(farm.queues[0] == nil && farm.scheduler.tasks(of: 0) == 0)
        farm.send(.left(0, reason: "SIGTERM"))
        while !farm.nothingToAnswer { farm.answerOne() }
        #expect(farm.finished && farm.scheduler.repeats == 1 && farm.scheduler.dropped == 0)
    }

    @Test("steps overlap: tiles of later steps are sent before a slow one of the first step is answered")
    func dataflow() throws {
        let tiling = try Tiling(
            canvasHeight: 128, canvasWidth: 128, tile: 16, overlap: .implicit(halo: 2), offset: .random, alignment: 1,
            seed: 2)
        var farm = SimulatedFarm(tiling: tiling, steps: 8, seed: 1, sendsCopies: false)
        farm.join(0)
        farm.join(1)
        let slow = farm.queues.removeValue(forKey: 0) ?? []
        #expect(slow.count == 2)
        var furthest = 0
        while !farm.nothingToAnswer {
            furthest = max(furthest, farm.queues[1]?.map(\.step).max() ?? 0)
            farm.answerOne()
        }
        #expect(furthest > 2 && !farm.finished)
        for tile in slow { farm.send(.answered(0, tile)) }
        while !farm.nothingToAnswer { farm.answerOne() }
        #expect(farm.finished)
    }

    @Test(
        "no more tiles are at workers than a step allows, however many workers come, go and lose what they have, and the job ends",
        arguments: [1, 2, 7])
    func mostOut(limit: Int) throws {
        for tiling in try Self.tilings() {
            var farm = SimulatedFarm(tiling: tiling, steps: 4, seed: UInt64(limit), mostOut: limit)
            var random = SplitMix64(state: UInt64(limit)), most = 0
            for worker in 0..<40 { farm.join(worker, lanes: 2) }
            while !farm.nothingToAnswer {
                most = max(most, farm.scheduler.inFlight)
                if Int.random(in: 0..<10, using: &random) == 0,
                    let worker = farm.queues.filter({ !$0.value.isEmpty }).keys.min()
                {
                    farm.queues[worker] = nil
                    farm.send(.left(worker, reason: "lost"))
                    farm.join(worker, lanes: 2)
                } else {
                    farm.answerOne()
                }
            }
            #expect(farm.finished && farm.scheduler.inFlight == 0)
            #expect(most <= limit && most > 0)
        }
    }

    @Test("only the windows of tiles that are out or wait for a neighbour are kept")
    func memory() throws {
        let tiling = try Tiling(
            canvasHeight: 320, canvasWidth: 320, tile: 16, overlap: .implicit(halo: 2), offset: .random, alignment: 1,
            seed: 2)
        var farm = SimulatedFarm(tiling: tiling, steps: 4, seed: 1)
        for worker in 0..<4 { farm.join(worker) }
        while !farm.nothingToAnswer { farm.answerOne() }
        #expect(farm.finished)
        // Eight in flight; an answer waits for the row below at most.
        #expect(farm.mostKept < 100)
    }

    @Test("a worker that fails on everything loses no job while another works")
    func brokenWorker() throws {
        let tiling = try Tiling(
            canvasHeight: 64, canvasWidth: 64, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        var farm = SimulatedFarm(tiling: tiling, steps: 3, seed: 1)
        farm.join(0)
        farm.join(1)
        var failures = 0
        while !farm.nothingToAnswer {
            if let tile = farm.queues[0]?.popLast() {
                failures += 1
                farm.send(.failed(0, tile, reason: "not finite"))
            } else {
                farm.answerOne()
            }
        }
        #expect(farm.finished && !farm.gaveUp)
        #expect(failures <= 4, "two in its credit, and few more until it is in quarantine")
    }

    @Test("nobody's answer, failure or return counts who was not given the task")
    func impostor() throws {
        let tiling = try Tiling(
            canvasHeight: 8, canvasWidth: 16, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        var scheduler = Scheduler(tiling: tiling, steps: 1)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        let tile = Scheduler.Tile(step: 0, index: 0)
        #expect(scheduler.handle(.answered(2, tile), at: 1) == [.drop(tile, from: 2)])
        for _ in 0..<5 { #expect(scheduler.handle(.failed(2, tile, reason: "no"), at: 1) == []) }
        #expect(scheduler.handle(.returned(2, tile), at: 1) == [])
        #expect(scheduler.mergedTiles == 0 && !scheduler.isOver && scheduler.tasks(of: 1) == 1)
    }

    @Test("a slow worker keeps its credit and is measured, although its leases expired")
    func slowWorker() throws {
        let tiling = try Tiling(
            canvasHeight: 8, canvasWidth: 80, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        var scheduler = Scheduler(tiling: tiling, steps: 1)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 2), at: 0)
        // The lease of 120 s expires, and with it what waits behind the task; there is nobody else, and it is not sent
        // again what it has.
        let expired = scheduler.handle(.tick, at: 200)
        #expect(expired.count == 2 && expired.allSatisfy { if case .requeued = $0 { true } else { false } })
        let first = Scheduler.Tile(step: 0, index: 0)
        let commands = scheduler.handle(.answered(1, first), at: 300)
        #expect(commands == [.accept(first), .merge(first), .cutAndSend(Scheduler.Tile(step: 0, index: 2), to: 1)])
        #expect(scheduler.tasks(of: 1) == 2)
        // Its lease is now 300 s and four times their deviation.
        _ = scheduler.handle(.answered(1, Scheduler.Tile(step: 0, index: 1)), at: 310)
        #expect(scheduler.handle(.tick, at: 1200) == [])
        #expect(scheduler.repeats == 0)
    }

    @Test("a tile that fails three times ends the job with its reason")
    func givingUp() throws {
        let tiling = try Tiling(
            canvasHeight: 8, canvasWidth: 8, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        var scheduler = Scheduler(tiling: tiling, steps: 1)
        let tile = Scheduler.Tile(step: 0, index: 0)
        #expect(scheduler.handle(.joined(7, lanes: 1, credit: 2), at: 0) == [.cutAndSend(tile, to: 7)])
        for attempt in 1...2 {
            #expect(
                scheduler.handle(.failed(7, tile, reason: "bad"), at: 1)
                    == [.requeued(tile, from: 7, cause: "bad"), .resend(tile, to: 7, attempt: attempt)])
        }
        #expect(scheduler.handle(.failed(7, tile, reason: "bad"), at: 2) == [.gaveUp(tile, reason: "bad")])
        #expect(scheduler.isOver)
    }

    @Test("a lease grows with the worker's own measured time")
    func leases() throws {
        let tiling = try Tiling(
            canvasHeight: 8, canvasWidth: 16, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        var scheduler = Scheduler(tiling: tiling, steps: 1)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        // Answered after 100 s, which is thought to deviate by 50: the second task's lease is 300 s.
        _ = scheduler.handle(.answered(1, Scheduler.Tile(step: 0, index: 0)), at: 100)
        #expect(scheduler.handle(.tick, at: 399) == [])
        let second = Scheduler.Tile(step: 0, index: 1)
        #expect(scheduler.handle(.tick, at: 401) == [.requeued(second, from: 1, cause: "no answer within the lease")])
        // The late answer is as good as any other.
        #expect(
            scheduler.handle(.answered(1, second), at: 902) == [
                .accept(second), .merge(second), .finishedStep(0), .finishedJob,
            ])
        #expect(scheduler.dropped == 0)
        #expect(scheduler.handle(.answered(1, second), at: 903) == [.drop(second, from: 1)])
        #expect(scheduler.dropped == 1)
    }

    @Test("a tile does not wait for a worker that is in quarantine")
    func passedOver() throws {
        let tiling = try Tiling(
            canvasHeight: 8, canvasWidth: 32, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        var scheduler = Scheduler(tiling: tiling, steps: 1)
        var sent: [(worker: Int, tile: Scheduler.Tile)] = [], isFinished = false
        func take(_ commands: [Scheduler.Command]) {
            for command in commands {
                switch command {
                case .cutAndSend(let tile, let worker), .resend(let tile, let worker, _): sent.append((worker, tile))
                case .finishedJob: isFinished = true
                default: break
                }
            }
        }
        // The first fails three tiles and is in quarantine; the second then fails the one that the first has never had.
        take(scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0))
        for _ in 0..<Scheduler.patience - 1 {
            let next = sent.removeFirst()
            take(scheduler.handle(.failed(next.worker, next.tile, reason: "broken"), at: 1))
        }
        take(scheduler.handle(.joined(2, lanes: 4, credit: 4), at: 2))
        var hasFailed = false
        var turns = 0
        while !isFinished, turns < 100, !sent.isEmpty {
            turns += 1
            let next = sent.removeFirst()
            if next.worker == 1 {
                take(scheduler.handle(.failed(1, next.tile, reason: "broken"), at: 3))
            } else if !hasFailed, next.tile.index == 3 {
                hasFailed = true
                take(scheduler.handle(.failed(2, next.tile, reason: "once"), at: 3))
            } else {
                take(scheduler.handle(.answered(2, next.tile), at: 3))
            }
        }
        #expect(isFinished && hasFailed)
    }

    /// A row of tiles that need nothing of one another.
    static func row(_ tiles: Int, _ leases: Scheduler.LeasePolicy = .init()) throws -> Scheduler {
        let tiling = try Tiling(
            canvasHeight: 8, canvasWidth: 8 * tiles, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        return Scheduler(tiling: tiling, steps: 1, leases: leases)
    }

    static func tile(_ index: Int) -> Scheduler.Tile { Scheduler.Tile(step: 0, index: index) }

    @Test("a new worker's lease comes from what others needed, and an overrun doubles it")
    func pooledLease() throws {
        var leases = Scheduler.LeasePolicy()
        leases.sendsCopies = false
        var scheduler = try Self.row(20, leases)
        var now = 0.0
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        for index in 0..<10 {
            now += 10
            _ = scheduler.handle(.answered(1, Self.tile(index)), at: now)
        }
        // Ten times 10 s: the deviation has all but vanished, twice the mean is left.
        #expect(scheduler.handle(.joined(2, lanes: 1, credit: 1), at: now) == [.cutAndSend(Self.tile(11), to: 2)])
        #expect(scheduler.handle(.tick, at: now + 19) == [])
        let expired = scheduler.handle(.tick, at: now + 30)
        #expect(
            Set(expired.compactMap { if case .requeued(let tile, _, _) = $0 { tile } else { nil } }) == [
                Self.tile(10), Self.tile(11),
            ])
        // The late answer is taken, the worker that gave it gets the other's tile.
        let commands = scheduler.handle(.answered(2, Self.tile(11)), at: now + 40)
        #expect(commands == [.accept(Self.tile(11)), .merge(Self.tile(11)), .resend(Self.tile(10), to: 2, attempt: 1)])
        #expect(scheduler.repeats == 1 && scheduler.dropped == 0)
        #expect(scheduler.handle(.answered(1, Self.tile(10)), at: now + 41).first == .accept(Self.tile(10)))
        #expect(scheduler.handle(.answered(2, Self.tile(10)), at: now + 42).first == .drop(Self.tile(10), from: 2))
        #expect(scheduler.dropped == 1)
    }

    @Test("lanes that stall together overrun one lease, not one each: the next is twice as long", arguments: [1, 2, 8])
    func stalledLanes(lanes: Int) throws {
        var leases = Scheduler.LeasePolicy()
        leases.sendsCopies = false
        var scheduler = try Self.row(40 * lanes, leases)
        var queue: [Scheduler.Tile] = [], requeued: [Scheduler.Tile] = [], now = 0.0
        func take(_ commands: [Scheduler.Command]) {
            for command in commands {
                switch command {
                case .cutAndSend(let tile, _), .resend(let tile, _, _): queue.append(tile)
                case .requeued(let tile, _, _): requeued.append(tile)
                default: break
                }
            }
        }
        // Every lane has one at hand. Ten seconds each, until there is no deviation left: leases are twice that.
        take(scheduler.handle(.joined(1, lanes: lanes, credit: 2 * lanes), at: 0))
        for _ in 0..<20 {
            now += 10
            for _ in 0..<lanes { take(scheduler.handle(.answered(1, queue.removeFirst()), at: now)) }
        }
        #expect(requeued.isEmpty && queue.count == 2 * lanes)
        // All stall, and everything that waits behind them is given back.
        now += 21
        take(scheduler.handle(.tick, at: now))
        #expect(Set(requeued) == Set(queue))
        // It hangs once it has stood still for longer than the next lease would be.
        for seconds in [39.0, 40] {
            #expect(scheduler.handle(.alive(1, progress: 0, isWorking: true), at: now - 21 + seconds) == [])
        }
        #expect(
            scheduler.handle(.alive(1, progress: 0, isWorking: true), at: now - 21 + 41).first == .hung(1, seconds: 41))
    }

    @Test(
        "the last straggler gets one second copy on an idle worker that is clearly faster; the first answer wins, the other is dropped"
    )
    func speculation() throws {
        var scheduler = try Self.row(6)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        _ = scheduler.handle(.joined(2, lanes: 1, credit: 1), at: 0)
        // The first is ten times slower than the second.
        for index in 1...4 { _ = scheduler.handle(.answered(2, Self.tile(index)), at: Double(index)) }
        // Nobody knows what the first takes for a tile; it has taken five times as long as the second does already.
        #expect(scheduler.handle(.answered(2, Self.tile(5)), at: 5).contains(.resend(Self.tile(0), to: 2, attempt: 1)))
        #expect(scheduler.speculations == 1 && scheduler.repeats == 0)
        // A third worker does not get it too.
        #expect(scheduler.handle(.joined(3, lanes: 1, credit: 1), at: 5).isEmpty)
        #expect(scheduler.handle(.tick, at: 5.5).isEmpty)
        #expect(scheduler.handle(.answered(2, Self.tile(0)), at: 6).contains(.finishedJob))
        #expect(scheduler.handle(.answered(1, Self.tile(0)), at: 7) == [.drop(Self.tile(0), from: 1)])
        #expect(scheduler.dropped == 1 && scheduler.mergedTiles == 6)
    }

    @Test("a copy that is lost costs nothing while the other is out, and neither dies nor fails twice")
    func lostCopy() throws {
        var scheduler = try Self.row(3)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        _ = scheduler.handle(.joined(2, lanes: 1, credit: 1), at: 0)
        _ = scheduler.handle(.answered(2, Self.tile(1)), at: 1)
        _ = scheduler.handle(.answered(2, Self.tile(2)), at: 2)
        #expect(scheduler.speculations == 1)
        let now = 2.5
        #expect(scheduler.handle(.left(1, reason: "killed"), at: now).isEmpty)
        #expect(scheduler.inFlight == 1)
        #expect(
            scheduler.handle(.left(2, reason: "killed"), at: now) == [.requeued(Self.tile(0), from: 2, cause: "killed")]
        )
        #expect(scheduler.inFlight == 0)
        #expect(
            scheduler.handle(.joined(3, lanes: 1, credit: 1), at: now) == [.resend(Self.tile(0), to: 3, attempt: 2)])
        #expect(scheduler.handle(.answered(3, Self.tile(0)), at: now + 1).contains(.finishedJob))
    }

    @Test("a worker that lives and does not get on hangs: its tiles go elsewhere, it gets nothing until it moves")
    func hung() throws {
        var scheduler = try Self.row(8)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 2), at: 0)
        _ = scheduler.handle(.answered(1, Self.tile(0)), at: 10)
        // Growing progress is life, however long it takes; standing still within the lease is too.
        for second in 11..<40 {
            #expect(scheduler.handle(.alive(1, progress: UInt64(second), isWorking: true), at: Double(second)) == [])
        }
        #expect(scheduler.handle(.alive(1, progress: 39, isWorking: true), at: 60) == [])
        let commands = scheduler.handle(.alive(1, progress: 39, isWorking: true), at: 75)
        #expect(commands.first == .hung(1, seconds: 36))
        #expect(
            commands.dropFirst() == [
                .requeued(Self.tile(1), from: 1, cause: "the worker hangs"),
                .requeued(Self.tile(2), from: 1, cause: "the worker hangs"),
            ])
        #expect(scheduler.handle(.alive(1, progress: 39, isWorking: true), at: 80) == [], "said once")
        #expect(scheduler.handle(.joined(2, lanes: 4, credit: 4), at: 81).count == 4)
        #expect(scheduler.handle(.alive(1, progress: 40, isWorking: true), at: 82) == [.recovered(1)])
        // What it still has is as good as any other's.
        #expect(scheduler.handle(.answered(1, Self.tile(1)), at: 83).contains(.accept(Self.tile(1))))
    }

    @Test("an idle worker's progress may stand still for ever")
    func idleIsNotHung() throws {
        var scheduler = try Self.row(1)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        _ = scheduler.handle(.joined(2, lanes: 1, credit: 1), at: 0)
        for second in 0..<10_000 {
            #expect(scheduler.handle(.alive(2, progress: 1, isWorking: false), at: Double(second)) == [])
        }
    }

    @Test(
        "three bad results put an identity into quarantine, under whatever connection it comes back, and the job goes on without it"
    )
    func quarantine() throws {
        var leases = Scheduler.LeasePolicy()
        leases.othersMayCome = true
        var scheduler = try Self.row(20, leases)
        var quarantines = 0
        for connection in 0..<3 {
            #expect(scheduler.handle(.joined(connection, lanes: 1, credit: 1, identity: "rogue"), at: 0).count == 1)
            let commands = scheduler.handle(.misbehaved(connection, Self.tile(0), reason: "not finite"), at: 1)
            quarantines += commands.count { if case .quarantined = $0 { true } else { false } }
            _ = scheduler.handle(.left(connection, reason: "connection lost"), at: 1)
        }
        #expect(
            scheduler.handle(.joined(4, lanes: 1, credit: 1, identity: "rogue"), at: 2).isEmpty
                && scheduler.workerCount == 0)
        #expect(quarantines == 1 && scheduler.bad == 3 && !scheduler.isOver && scheduler.isQuarantined(4))
        _ = scheduler.handle(.joined(9, lanes: 1, credit: 1), at: 2)
        for index in 0..<20 { _ = scheduler.handle(.answered(9, Self.tile(index)), at: 3) }
        #expect(scheduler.isOver && scheduler.mergedTiles == 20)
    }

    @Test("good answers forgive failures that a worker reports, but not answers that were none")
    func forgiveness() throws {
        var leases = Scheduler.LeasePolicy()
        leases.othersMayCome = true
        var scheduler = try Self.row(60, leases)
        var commands = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        func sent() throws -> Scheduler.Tile {
            try #require(
                commands.compactMap { command in
                    switch command {
                    case .cutAndSend(let tile, _), .resend(let tile, _, _): tile
                    default: nil
                    }
                }.last)
        }
        for _ in 0..<10 {
            for _ in 0..<2 { commands = scheduler.handle(.failed(1, try sent(), reason: "out of memory"), at: 1) }
            commands = scheduler.handle(.answered(1, try sent()), at: 2)
        }
        for _ in 0..<2 {
            commands = scheduler.handle(.misbehaved(1, try sent(), reason: "damaged"), at: 3)
            commands = scheduler.handle(.answered(1, try sent()), at: 3)
        }
        let last = try sent()
        commands = scheduler.handle(.misbehaved(1, last, reason: "damaged"), at: 4)
        #expect(
            commands.contains(.quarantined(1, last, reason: "damaged")) && scheduler.workerCount == 0
                && !scheduler.isOver)
    }

    @Test("a tile that fails on three workers ends the job, while others could still take it")
    func threeWorkers() throws {
        var scheduler = try Self.row(1)
        for worker in 1...5 { _ = scheduler.handle(.joined(worker, lanes: 1, credit: 1), at: 0) }
        let first = scheduler.handle(.failed(1, Self.tile(0), reason: "bad"), at: 1)
        #expect(first == [.requeued(Self.tile(0), from: 1, cause: "bad"), .resend(Self.tile(0), to: 2, attempt: 1)])
        #expect(
            scheduler.handle(.misbehaved(2, Self.tile(0), reason: "bad"), at: 2).last
                == .resend(Self.tile(0), to: 3, attempt: 2))
        #expect(
            scheduler.handle(.failed(3, Self.tile(0), reason: "worse"), at: 3) == [
                .gaveUp(Self.tile(0), reason: "worse")
            ])
    }

    @Test(
        "where others may come, two machines that fail six times on a tile end the job, and one alone waits for another",
        arguments: [false, true])
    func twoMachines(lies: Bool) throws {
        var leases = Scheduler.LeasePolicy()
        leases.othersMayCome = true
        for machines in 1...2 {
            var scheduler = try Self.row(1, leases)
            var holder: Int?, failures = 0, gaveUp = 0
            func take(_ commands: [Scheduler.Command]) {
                for command in commands {
                    switch command {
                    case .cutAndSend(_, let worker), .resend(_, let worker, _): holder = worker
                    case .gaveUp: gaveUp += 1
                    default: break
                    }
                }
            }
            for worker in 1...machines { take(scheduler.handle(.joined(worker, lanes: 1, credit: 1), at: 0)) }
            while let worker = holder {
                (holder, failures) = (nil, failures + 1)
                let tile = Self.tile(0)
                take(
                    scheduler.handle(
                        lies
                            ? .misbehaved(worker, tile, reason: "not finite")
                            : .failed(worker, tile, reason: "not finite"), at: 1))
            }
            #expect(failures == 3 * machines && scheduler.isOver == (machines == 2) && gaveUp == machines - 1)
            if machines == 1 {
                take(scheduler.handle(.joined(9, lanes: 1, credit: 1), at: 2))
                #expect(holder == 9 && scheduler.handle(.answered(9, Self.tile(0)), at: 3).last == .finishedJob)
            }
        }
    }

    @Test(
        "a local worker that is just being started again is waited for when the other is put into quarantine, and the job ends when both are"
    )
    func restarting() throws {
        var leases = Scheduler.LeasePolicy()
        leases.identities = 2
        var scheduler = try Self.row(4, leases)
        func lie(_ worker: Int, _ first: Scheduler.Tile) -> [Scheduler.Command] {
            var commands: [Scheduler.Command] = [], tile = first
            while !scheduler.isOver, !scheduler.isQuarantined(worker) {
                commands = scheduler.handle(.misbehaved(worker, tile, reason: "not finite"), at: 1)
                if case .resend(let next, _, _)? = commands.last { tile = next }
                if case .cutAndSend(let next, _)? = commands.last { tile = next }
            }
            return commands
        }
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1, identity: "local-1"), at: 0)
        _ = scheduler.handle(.joined(2, lanes: 1, credit: 1, identity: "local-2"), at: 0)
        _ = scheduler.handle(.left(2, reason: "killed"), at: 1)
        #expect(
            lie(1, Self.tile(0)).contains { if case .quarantined(1, _, _) = $0 { true } else { false } }
                && !scheduler.isOver && scheduler.workerCount == 0)
        let sent = scheduler.handle(.joined(3, lanes: 1, credit: 1, identity: "local-2"), at: 2)
        #expect(sent == [.resend(Self.tile(0), to: 3, attempt: 3)])
        let last = lie(3, Self.tile(0)).last
        #expect(scheduler.isOver)
        if case .gaveUp = last {} else { Issue.record("\(String(describing: last))") }
    }

    @Test(
        "a step that waits begins after the whole step before it, and cells are still written after their readers were cut"
    )
    func barrier() throws {
        let tiling = try Tiling(
            canvasHeight: 40, canvasWidth: 40, tile: 16, overlap: .implicit(halo: 2), offset: .random, alignment: 1,
            seed: 2)
        var random = SplitMix64(state: 3)
        var scheduler = Scheduler(steps: 5) {
            .init(denoising: tiling.grid(step: $0), of: tiling, readsCanvas: $0 > 0, waits: true)
        }
        var sent: [(worker: Int, tile: Scheduler.Tile)] = [], finished = 0, cut: Set<Scheduler.Tile> = []
        func take(_ commands: [Scheduler.Command]) {
            for command in commands {
                switch command {
                case .cutAndSend(let tile, let worker):
                    #expect(tile.step == finished)
                    cut.insert(tile)
                    sent.append((worker, tile))
                case .merge(let tile) where tile.step > 0:
                    let grid = tiling.grid(step: tile.step)
                    for reader in grid.tilesReading(grid.cell(tile.index)) {
                        #expect(cut.contains(.init(step: tile.step, index: reader)))
                    }
                case .finishedStep: finished += 1
                default: break
                }
            }
        }
        for worker in 0..<3 { take(scheduler.handle(.joined(worker, lanes: 2, credit: 4), at: 0)) }
        while let index = sent.indices.randomElement(using: &random) {
            let (worker, tile) = sent.remove(at: index)
            take(scheduler.handle(.answered(worker, tile), at: 0))
        }
        #expect(scheduler.isOver && finished == 5)
    }
}
