import Coordinator
import Engine
import Testing

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

    static func tiling(_ side: Int, tile: Int = 8, overlap: Tiling.Overlap = .none, offset: Tiling.Offset = .none)
        throws -> Tiling
    {
        try Tiling(
            canvasHeight: side, canvasWidth: side, tile: tile, overlap: overlap, offset: offset, alignment: 1, seed: 2)
    }

    @Test("every window is cut at its own step and every cell written once a step, whatever the order of answers")
    func order() throws {
        for (number, tiling) in try Self.tilings().enumerated() {
            var farm = try SimulatedFarm(tiling: tiling, steps: 6, seed: UInt64(number))
            for worker in 0..<5 { farm.join(worker, lanes: 1 + worker % 3) }
            farm.answerAll()
            #expect(farm.isFinished && farm.scheduler.isOver)
            #expect(farm.planes.sample.allSatisfy { $0 == 6 })
            #expect(farm.finishedPasses == Array(0..<(tiling.writesDisjointCells ? 6 : 12)))
            #expect(farm.scheduler.currentPass == farm.finishedPasses.count)
            #expect(Set(farm.merges).count == farm.merges.count && farm.merges.count == farm.scheduler.totalTiles)
            #expect(farm.scheduler.mergedTiles == farm.scheduler.totalTiles && farm.scheduler.repeats == 0)
            #expect(farm.isEmpty)
        }
    }

    @Test(
        "workers that die, hang, fail, lie, return tasks, answer late or twice and come back change nothing",
        arguments: 0..<10 as Range<UInt64>)
    func faults(seed: UInt64) throws {
        for (number, tiling) in try Self.tilings().enumerated() {
            var farm = try SimulatedFarm(tiling: tiling, steps: 5, seed: 100 + UInt64(number) + 1000 * seed)
            var random = SplitMix64(state: UInt64(number) + 1000 * seed)
            var failures = 0
            while !farm.isFinished {
                let worker = farm.workers.sorted().randomElement(using: &random)
                let task = farm.tasks.randomElement(using: &random)
                switch Int.random(in: 0..<24, using: &random) {
                case 0: farm.joinAnother(lanes: Int.random(in: 1...3, using: &random))
                case 1: if let worker { farm.lose(worker) }
                // A hung worker's tasks go elsewhere; it may still answer them afterwards.
                case 2: farm.wait(1000)
                case 3: if let tile = farm.merges.randomElement(using: &random) { farm.answer(0, tile) }
                case 4: if let task { farm.returnTask(task.worker, task.tile) }
                case 5 where failures < 2:
                    if let task {
                        failures += 1
                        farm.fail(task.worker, task.tile)
                    }
                // Lies until it is in quarantine; what it says then is dropped.
                case 6: if let worker { farm.lie(worker, nil) }
                case 7:
                    if let worker {
                        farm.now += Double.random(in: 0...200, using: &random)
                        farm.hear(worker, progress: .random(in: 0...1, using: &random))
                    }
                default: farm.answerOne()
                }
            }
            #expect(farm.planes.sample.allSatisfy { $0 == 5 } && !farm.hasGivenUp && farm.isEmpty)
            #expect(farm.merges.count == farm.scheduler.totalTiles && Set(farm.merges).count == farm.merges.count)
        }
    }

    @Test("blended answers are merged in the order of the tiles")
    func blendedOrder() throws {
        let tiling = try Tiling(
            canvasHeight: 40, canvasWidth: 40, tile: 8, overlap: .explicit(width: 4, weights: .gaussian), offset: .none,
            alignment: 4, seed: 1)
        var farm = try SimulatedFarm(tiling: tiling, steps: 3, seed: 4)
        for worker in 0..<9 { farm.join(worker) }
        farm.answerAll()
        #expect(farm.isFinished && farm.merges == farm.merges.sorted())
    }

    @Test("no worker gets more than its credit, and an idle lane comes before a prefetch")
    func credit() throws {
        var farm = try SimulatedFarm(tiling: Self.tiling(64), steps: 1, seed: 1)
        farm.join(0, lanes: 2)
        #expect(farm.tiles(of: 0).count == 4)
        farm.join(1, lanes: 1)
        #expect(farm.tiles(of: 1).count == 2)
        farm.answerOne()
        #expect(farm.tasks.count == 6)
        // With two tiles left, a worker that is idle gets one before a busy one prefetches.
        var small = SimulatedFarm(try .row(3))
        small.join(0, lanes: 2)
        #expect(small.tiles(of: 0).count == 2, "the last one waits for whoever is idle first")
        small.lose(0)
        #expect(small.requeued.count == 2)
        small.join(1, lanes: 1)
        small.join(2, lanes: 1)
        #expect(small.tiles(of: 1).count == 2 && small.tiles(of: 2).count == 1)
    }

    @Test("a draining worker gets nothing more and answers what it has")
    func draining() throws {
        var farm = try SimulatedFarm(tiling: Self.tiling(64), steps: 1, seed: 1)
        farm.join(0)
        farm.join(1)
        farm.drain(0)
        let tiles = farm.tiles(of: 0)
        #expect(tiles.count == 2 && farm.scheduler.tasks(of: 0) == 2)
        farm.answer(0, tiles[0])
        farm.returnTask(0, tiles[1])
        #expect(farm.tiles(of: 0).isEmpty && farm.scheduler.tasks(of: 0) == 0)
        farm.lose(0, reason: "SIGTERM")
        farm.answerAll()
        #expect(farm.isFinished && farm.scheduler.repeats == 1 && farm.scheduler.dropped == 0)
    }

    @Test("steps overlap: tiles of later steps are sent before a slow one of the first step is answered")
    func dataflow() throws {
        let tiling = try Self.tiling(128, tile: 16, overlap: .implicit(halo: 2), offset: .random)
        var farm = try SimulatedFarm(tiling: tiling, steps: 8, seed: 1, sendsCopies: false)
        farm.join(0)
        farm.join(1)
        let slow = farm.tiles(of: 0)
        #expect(slow.count == 2)
        var furthest = 0
        while let task = farm.tasks.filter({ $0.worker == 1 }).randomElement(using: &farm.random) {
            furthest = max(furthest, task.tile.pass)
            farm.now += 0.01
            farm.answer(task.worker, task.tile)
        }
        #expect(furthest > 2 && !farm.isFinished)
        for tile in slow { farm.answer(0, tile) }
        farm.answerAll()
        #expect(farm.isFinished)
    }

    @Test(
        """
        no more tiles are at workers than a pass allows, however many workers come, go and lose what they have, and \
        the job ends
        """,
        arguments: [1, 2, 7])
    func maxInFlight(limit: Int) throws {
        for tiling in try Self.tilings() {
            var farm = try SimulatedFarm(tiling: tiling, steps: 4, seed: UInt64(limit), maxInFlight: limit)
            var random = SplitMix64(state: UInt64(limit)), most = 0
            for worker in 0..<40 { farm.join(worker, lanes: 2) }
            while let task = farm.tasks.first {
                most = max(most, farm.scheduler.inFlight)
                if Int.random(in: 0..<10, using: &random) == 0 {
                    farm.lose(task.worker, reason: "lost")
                    farm.join(task.worker, lanes: 2)
                } else {
                    farm.answerOne()
                }
            }
            #expect(farm.isFinished && farm.scheduler.inFlight == 0)
            #expect(most <= limit && most > 0)
        }
    }

    @Test("only the windows of tiles that are out or wait for a neighbour are kept")
    func memory() throws {
        let tiling = try Self.tiling(320, tile: 16, overlap: .implicit(halo: 2), offset: .random)
        var farm = try SimulatedFarm(tiling: tiling, steps: 4, seed: 1)
        for worker in 0..<4 { farm.join(worker) }
        farm.answerAll()
        #expect(farm.isFinished)
        // Eight in flight; an answer waits for the row below at most.
        #expect(farm.mostKept < 100)
    }

    @Test(
        "with a barrier a step begins after the whole step before it, and cells are still written after their readers")
    func barrier() throws {
        let tiling = try Self.tiling(40, tile: 16, overlap: .implicit(halo: 2), offset: .random)
        let pipeline = try Pipeline.denoising(tiling, steps: 5)
        var farm = SimulatedFarm(
            Scheduler(pipeline: pipeline, hasBarrier: true), planes: StepCountingPlanes(pipeline), seed: 3)
        for worker in 0..<3 { farm.join(worker, lanes: 2) }
        while !farm.tasks.isEmpty {
            #expect(farm.cuts.allSatisfy { $0.pass <= farm.finishedPasses.count })
            farm.answerOne()
        }
        #expect(farm.isFinished && farm.planes.sample.allSatisfy { $0 == 5 })
    }

    @Test("a worker has tasks of one network at a time, and gets another when it has answered them")
    func networks() throws {
        var farm = SimulatedFarm(try .row(4, steps: 3) { ["first", "second", ""][$0] })
        for worker in 0..<3 { farm.join(worker, lanes: 2, credit: 4) }
        var networks: [Int: Set<String>] = [:]
        while !farm.tasks.isEmpty {
            for worker in 0..<3 {
                networks[worker] = Set(farm.tiles(of: worker).map { ["first", "second", ""][$0.pass] }).subtracting([""]
                )
                #expect(networks[worker]?.count ?? 0 <= 1)
            }
            farm.answerOne()
        }
        #expect(farm.isFinished)
        // One alone does everything, and a straggler of one network keeps the others from no lane that could run them.
        var alone = SimulatedFarm(try .row(4, steps: 3) { ["first", "second", ""][$0] })
        alone.join(0, lanes: 8, credit: 8)
        #expect(Set(alone.tasks.map(\.tile.pass)) == [0, 2], "those of no network beside those of the first")
        alone.answerAll()
        #expect(alone.isFinished && alone.scheduler.repeats == 0)
    }

    @Test("a tile does not wait behind those that the idle worker has failed on or has already")
    func passedOver() throws {
        var farm = SimulatedFarm(try .row(100))
        // The leases of all lanes but one are over: their tiles wait for somebody else.
        farm.join(1, lanes: 60, credit: 61)
        farm.answer(1, Scheduler.Tile(pass: 0, index: 0))
        farm.wait(1000)
        #expect(farm.requeued.count > 50 && farm.scheduler.inFlight < 10)
        farm.join(2, lanes: 60, credit: 60)
        farm.answerAll()
        #expect(farm.isFinished)
    }
}
