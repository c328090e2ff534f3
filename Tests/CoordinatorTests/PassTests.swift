import Coordinator
import Engine
import Testing

/// Jobs of several kinds of work: texts and the autoencoder's tiles around the sampler's steps.
@Suite("Passes")
struct PassTests {
    private static let statisticsTiles = 9

    /// Two texts, two passes that gather sums at the same places, one that writes the sample by cells, three steps of
    /// the sampler, a last one in any order.
    static func pipeline(_ tiling: Tiling) throws -> Pipeline {
        let (height, width) = (tiling.canvasHeight, tiling.canvasWidth)
        let names = [
            "picture", "prompt", "embeddings", "negative", "sums 1", "sums 2", "sample", "pixels", "prediction",
        ]
        var planes = names.map { Plane($0, .values(count: 3, element: .float64)) }
        planes[0].content = .picture(height: height, width: width)
        planes[1].content = .text("a cat")
        for plane in 6...8 {
            planes[plane].content = .array(height: height, width: width, channels: 1, element: .float32)
        }
        let covering = try Tiling(
            canvasHeight: height, canvasWidth: width, tile: 8, overlap: .implicit(halo: 1), offset: .random,
            alignment: 1, seed: 9)
        let grid = covering.grid(step: 0)
        let some = Pass.Places.sample(grid, Array(stride(from: 0, to: 2 * statisticsTiles, by: 2)))
        let passes: [Pass] =
            [
                Pass("text", .one, reads: [Read(1, .whole)], writes: [Write(2, .whole)]),
                Pass("text", .one, reads: [Read(1, .whole)], writes: [Write(3, .whole)]),
                Pass(
                    "encode", some, reads: [Read(0, .window()), Read(2, .whole), Read(3, .whole)],
                    writes: [Write(4, .sum())], affinity: "encoder"),
                Pass(
                    "encode", some, reads: [Read(0, .window()), Read(4, .whole, .blob)], writes: [Write(5, .sum())],
                    affinity: "encoder"),
                Pass(
                    "encode", .grid(grid), reads: [Read(0, .window()), Read(5, .whole, .blob)],
                    writes: [Write(6, .cells())], affinity: "encoder"),
            ]
            + (0..<3).flatMap { denoising(step: $0, tiling) }
            + [Pass("decode", .grid(grid), reads: [Read(6, .whole)], writes: [Write(7, .cells())])]
        return try Pipeline(planes: planes, stages: [Stage(passes)], output: 7)
    }

    /// A step of the sampler; where windows overlap, predictions are blended.
    private static func denoising(step: Int, _ tiling: Tiling) -> [Pass] {
        let places = Pass.Places.grid(tiling.grid(step: step))
        let reads = [Read(6, .window()), Read(2, .whole, .blob), Read(3, .whole, .blob)]
        if tiling.writesDisjointCells {
            return [Pass("denoise", step: step, places, reads: reads, writes: [Write(6, .cells())])]
        }
        return [
            Pass("denoise", step: step, places, reads: reads, writes: [Write(8, .blend(tiling.blendWeights))]),
            Pass(
                local: "step", step: step, reads: [Read(6, .whole), Read(8, .whole)], writes: [Write(6, .whole)]),
        ]
    }

    /// The passes that must be finished before a tile of a pass is cut, as the job is meant.
    static func passesBefore(_ index: Int, _ pipeline: Pipeline) -> Range<Int> {
        switch index {
        case 0, 1: return 0..<0
        case 2, 3: return 0..<index
        case 4: return 0..<4
        default: break
        }
        let pass = pipeline.passes[index], follows = pipeline.passes[index - 1]
        return pass.name == "decode" || follows.isLocal ? 0..<index : 0..<4
    }

    static func tilings() throws -> [Tiling] {
        try [.implicit(halo: 2), .none, .explicit(width: 3, weights: .mean)].map {
            try Tiling(canvasHeight: 20, canvasWidth: 33, tile: 8, overlap: $0, offset: .random, alignment: 1, seed: 4)
        }
    }

    /// Records what was cut before what was merged.
    struct Journal: FarmPlanes {
        var cut: Set<Scheduler.Tile> = []
        var finished: [Int] = []
        let pipeline: Pipeline

        mutating func cut(_ tile: Scheduler.Tile, for worker: Int, isRepeat: Bool) {
            cut.insert(tile)
            for pass in passesBefore(tile.pass, pipeline) where !finished.contains(pass) {
                Issue.record("pass \(tile.pass) began before pass \(pass) was finished")
            }
        }

        func merge(_ tile: Scheduler.Tile) {
            let pass = pipeline.passes[tile.pass]
            guard pass.step != nil, !pass.isOrdered, let grid = pass.grid else { return }
            for reader in grid.tilesReading(grid.cell(tile.index))
            where !cut.contains(.init(pass: tile.pass, index: reader)) {
                Issue.record("a cell was written before its readers were cut")
            }
        }

        func accept(_ tile: Scheduler.Tile, from worker: Int) {}
        func compute(_ tile: Scheduler.Tile) {}
        mutating func finish(pass: Int) { finished.append(pass) }
    }

    static func checkSums(_ merges: [Scheduler.Tile]) {
        for pass in [2, 3] {
            #expect(merges.filter { $0.pass == pass }.map(\.index) == Array(0..<statisticsTiles))
        }
    }

    @Test(
        """
        a pass that reads all of a plane begins after its last tile is merged, sums are merged in their order, and \
        windows are cut before they are overwritten
        """)
    func order() throws {
        for (number, tiling) in try Self.tilings().enumerated() {
            let pipeline = try Self.pipeline(tiling)
            var farm = SimulatedFarm(
                Scheduler(pipeline: pipeline), planes: Journal(pipeline: pipeline), seed: UInt64(number))
            for worker in 0..<3 { farm.join(worker, lanes: 2) }
            farm.answerAll()
            #expect(farm.isFinished && Set(farm.finishedPasses) == Set(pipeline.passes.indices))
            #expect(Set(farm.merges).count == farm.scheduler.totalTiles && farm.requeued.isEmpty)
            Self.checkSums(farm.merges)
        }
    }

    /// Three passes over the same eight places, each after the whole of the one before.
    static func sticky() throws -> Pipeline {
        let tiling = try Tiling(
            canvasHeight: 8, canvasWidth: 64, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        let places = Pass.Places.sample(tiling.grid(step: 0), Array(0..<8))
        let planes =
            [Plane("features", height: 8, width: 64)]
            + (0..<3).map { Plane("sums \($0)", .values(count: 1, element: .float64)) }
        let passes =
            [Pass(local: "clear", reads: [], writes: [Write(0, .whole)])]
            + (1...3).map { number in
                let reads = [Read(0, .window(), .blob)] + (number > 1 ? [Read(number - 1, .whole)] : [])
                return Pass("norm", places, reads: reads, writes: [Write(number, .sum())], affinity: "places")
            }
        return try Pipeline(planes: planes, stages: [Stage(passes)], output: 0)
    }

    @Test(
        """
        the tiles of an affinity go to the workers that answered the same places before, and to others when those are \
        gone
        """)
    func affinity() throws {
        var farm = SimulatedFarm(try Self.sticky())
        func holders(_ pass: Int) -> [Int: Int] {
            Dictionary(
                farm.sent.filter { $0.tile.pass == pass }.map { ($0.tile.index, $0.worker) },
                uniquingKeysWith: { _, last in last })
        }
        // The worker that joins last gets the last tiles.
        for worker in [2, 0, 1] { farm.join(worker, lanes: 2, credit: 3) }
        farm.now = 1
        while let next = farm.tasks.first, next.tile.pass < 3 { farm.answerFirst() }
        #expect(holders(1) == holders(2) && Set(holders(1).values).count == 3)
        farm.lose(2)
        while !farm.tasks.isEmpty { farm.answerFirst() }
        #expect(farm.isFinished && holders(3).count == 8 && !holders(3).values.contains(2))
        #expect(holders(3).filter { holders(2)[$0.key] != 2 } == holders(2).filter { $0.value != 2 })
    }

    @Test(
        """
        deaths, failures, returns, expired leases and late answers of earlier passes leave every tile merged once, and \
        sums in their order
        """,
        arguments: 0..<20)
    func faults(seed: UInt64) throws {
        let tiling = try Tiling(
            canvasHeight: 20, canvasWidth: 33, tile: 8, overlap: .implicit(halo: 2), offset: .random, alignment: 1,
            seed: seed)
        let pipeline = try Self.pipeline(tiling)
        var farm = SimulatedFarm(Scheduler(pipeline: pipeline), planes: Journal(pipeline: pipeline), seed: seed)
        for _ in 0..<3 { farm.joinAnother(lanes: 2) }
        var turns = 0
        while !farm.isFinished, turns < 20_000 {
            turns += 1
            farm.now += 0.01
            guard let task = farm.tasks.randomElement(using: &farm.random) else {
                // Everything was lost with its workers.
                farm.joinAnother(lanes: 2)
                continue
            }
            switch Int.random(in: 0..<20, using: &farm.random) {
            case 0:
                farm.lose(task.worker)
                farm.joinAnother(lanes: 2)
            case 1: farm.returnTask(task.worker, task.tile)
            case 2 where farm.merges.count % 7 == 0: farm.fail(task.worker, task.tile, reason: "misfortune")
            case 3: farm.wait(200)
            case 4:
                if let late = farm.answers.randomElement(using: &farm.random) { farm.answer(late.worker, late.tile) }
            default: farm.answer(task.worker, task.tile)
            }
        }
        #expect(farm.isFinished && !farm.hasGivenUp)
        #expect(farm.merges.count == farm.scheduler.totalTiles && Set(farm.merges).count == farm.merges.count)
        Self.checkSums(farm.merges)
    }
}
