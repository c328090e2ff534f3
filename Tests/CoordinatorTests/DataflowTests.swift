import Coordinator
import Engine
import Testing

/// Dependencies of a pipeline's passes, said as plainly as can be: every tile is compared with every other.
private struct Oracle: FarmPlanes {
    typealias Tile = Scheduler.Tile

    let pipeline: Pipeline
    private(set) var cut: Set<Tile> = []
    private var answered: Set<Tile> = []
    private var merged: Set<Tile> = []
    private var finished: Set<Int> = []

    init(_ pipeline: Pipeline) { self.pipeline = pipeline }

    mutating func cut(_ tile: Tile, for worker: Int, isRepeat: Bool) {
        if !mayBeCut(tile) { Issue.record("\(tile) is cut too early") }
        cut.insert(tile)
    }

    mutating func accept(_ tile: Tile, from worker: Int) { answered.insert(tile) }

    mutating func merge(_ tile: Tile) {
        if !mayBeMerged(tile) { Issue.record("\(tile) is merged too early") }
        merged.insert(tile)
    }

    mutating func finish(pass: Int) { finished.insert(pass) }

    mutating func compute(_ tile: Tile) {
        if !mayBeCut(tile) || !mayBeMerged(tile) { Issue.record("\(tile) is computed too early") }
        for set in [\Self.cut, \.answered, \.merged] { self[keyPath: set].insert(tile) }
    }

    private func tiles(_ pass: Int) -> [Tile] { (0..<pipeline.passes[pass].count).map { Tile(pass: pass, index: $0) } }

    /// nil for everything.
    private func part(_ write: Write, _ tile: Tile) -> Rect? {
        if case .cells = write.merge { pipeline.part(write, tile.pass, tile.index) } else { nil }
    }

    private func part(_ read: Read, _ tile: Tile) -> Rect? {
        if case .leading = read.region { return nil }
        return (try? pipeline.part(read, tile.pass, tile.index)) ?? nil
    }

    /// Whether all that a pass has written where `part` lies is there.
    private func isWritten(_ plane: Plane.ID, by pass: Int, _ part: Rect?) -> Bool {
        guard let write = pipeline.passes[pass].writes.first(where: { $0.plane == plane }) else { return true }
        return tiles(pass).allSatisfy { tile in
            guard let part, let other = self.part(write, tile) else { return finished.contains(pass) }
            return part.intersection(other) == nil || merged.contains(tile)
        } && (part != nil || finished.contains(pass))
    }

    func mayBeCut(_ tile: Tile) -> Bool {
        zip(pipeline.passes[tile.pass].reads, pipeline.writers[tile.pass]).allSatisfy { read, writer in
            writer.map { isWritten(read.plane, by: $0, part(read, tile)) } ?? true
        }
    }

    func mayBeMerged(_ tile: Tile) -> Bool {
        let pass = pipeline.passes[tile.pass]
        if pass.isOrdered, !(0..<tile.index).allSatisfy({ merged.contains(Tile(pass: tile.pass, index: $0)) }) {
            return false
        }
        return pass.writes.allSatisfy { write in
            guard let before = pipeline.lastWriter(of: write.plane, before: tile.pass) else { return true }
            let part = part(write, tile)
            guard isWritten(write.plane, by: before, part) else { return false }
            return (0...tile.pass).allSatisfy { reader in
                reader == tile.pass && pass.isLocal || !isWanted(write, by: reader, part)
            }
        }
    }

    /// Whether a tile of a pass still reads what is written where `part` lies.
    private func isWanted(_ write: Write, by pass: Int, _ part: Rect?) -> Bool {
        pipeline.passes[pass].reads.contains { read in
            guard read.plane == write.plane, read.needsPlane else { return false }
            if case .leading(let count) = read.region, count <= write.start { return false }
            return tiles(pass).contains { tile in
                if (read.delivery == .blob ? answered : cut).contains(tile) { return false }
                guard let part, let other = self.part(read, tile) else { return true }
                return part.intersection(other) != nil
            }
        }
    }

    /// Tiles that wait for nothing.
    func mistakes() -> [Tile] {
        pipeline.passes.indices.flatMap { pass in
            tiles(pass).filter { tile in
                if pipeline.passes[pass].isLocal {
                    return !merged.contains(tile) && mayBeCut(tile) && mayBeMerged(tile)
                }
                if !cut.contains(tile) { return mayBeCut(tile) }
                return answered.contains(tile) && !merged.contains(tile) && mayBeMerged(tile)
            }
        }
    }
}

@Suite("Dataflow")
struct DataflowTests {
    @Test("tiles of random pipelines wait for what they need and for nothing else", arguments: 0..<4)
    func waiting(part: Int) throws {
        var leases = Scheduler.LeasePolicy()
        leases.sendsCopies = false
        for seed in UInt64(part) * 500..<UInt64(part + 1) * 500 {
            let pipeline = try RandomPipeline.draw(seed: seed)
            var farm = SimulatedFarm(
                Scheduler(pipeline: pipeline, leases: leases), planes: Oracle(pipeline), seed: seed)
            // One for each tile, so that whatever is ready is sent.
            for worker in 0..<max(pipeline.taskCount, 1) { farm.join(worker, credit: 1) }
            var mistakes = farm.planes.mistakes()
            while mistakes.isEmpty, !farm.tasks.isEmpty {
                farm.answerOne()
                mistakes = farm.planes.mistakes()
            }
            if !mistakes.isEmpty || !farm.isFinished { Issue.record("pipeline \(seed): \(mistakes)") }
        }
    }

    private static let planes = ["a", "b", "c"].map { Plane($0, height: 8, width: 32) }

    /// Four tiles in a row.
    private static func places(halo: Int = 0) throws -> Pass.Places {
        let tiling = try Tiling(
            canvasHeight: 8, canvasWidth: 32, tile: 8 + 2 * halo, overlap: .implicit(halo: halo), offset: .none,
            alignment: 1, seed: 0)
        return .grid(tiling.grid(step: 0))
    }

    private static func farm(_ passes: Pass..., startingAt first: Int = 0, output: Plane.ID = 0) throws
        -> SimulatedFarm<NoPlanes>
    {
        let pipeline = try Pipeline(planes: planes, stages: [Stage(passes)], output: output)
        var farm = SimulatedFarm(Scheduler(pipeline: pipeline, startingAt: first), planes: NoPlanes())
        for worker in 0..<16 { farm.join(worker, credit: 1) }
        return farm
    }

    private static func tile(_ pass: Int, _ index: Int) -> Scheduler.Tile { .init(pass: pass, index: index) }

    @Test("passes that need nothing of one another begin together and finish in any order")
    func independent() throws {
        let places = try Self.places()
        var farm = try Self.farm(
            Pass("first", places, writes: [Write(0, .cells())]), Pass("second", places, writes: [Write(1, .cells())]))
        #expect(farm.tasks.count == 8)
        for task in farm.tasks where task.tile.pass == 1 { farm.answer(task.worker, task.tile) }
        #expect(farm.finishedPasses == [1] && farm.scheduler.currentPass == 0 && farm.scheduler.mergedTiles == 4)
        farm.answerAll()
        #expect(farm.finishedPasses == [1, 0] && farm.isFinished && farm.scheduler.currentPass == 2)
    }

    @Test("what is sent as a blob is not overwritten before the task is answered, what is sent as a frame may be")
    func blobs() throws {
        for delivery in [Read.Delivery.blob, .frame] {
            let places = try Self.places()
            var farm = try Self.farm(
                Pass("first", places, writes: [Write(0, .cells())]),
                Pass("reader", places, reads: [Read(0, .cell(), delivery)], writes: [Write(1, .cells())]),
                Pass("writer", places, writes: [Write(0, .cells())]))
            for pass in [0, 2] {
                let task = try #require(farm.tasks.first { $0.tile == Self.tile(pass, 0) })
                farm.answer(task.worker, task.tile)
            }
            let reader = try #require(farm.tasks.first { $0.tile == Self.tile(1, 0) })
            #expect(farm.merges.contains(Self.tile(2, 0)) == (delivery == .frame))
            let commands = farm.answer(reader.worker, reader.tile)
            #expect(commands.contains(.merge(Self.tile(2, 0))) == (delivery == .blob))
            farm.answerAll()
            #expect(farm.isFinished)
        }
    }

    @Test("the coordinator's own work is done between what it reads and what reads it, and is no task")
    func localWork() throws {
        let places = try Self.places(halo: 1)
        var farm = try Self.farm(
            Pass("first", places, writes: [Write(0, .cells())]),
            Pass(local: "own", reads: [Read(0, .whole)], writes: [Write(0, .whole), Write(1, .whole)]),
            Pass("second", places, reads: [Read(1, .window())], writes: [Write(2, .cells())]), output: 2)
        let count = farm.tasks.count
        #expect(farm.scheduler.totalTiles == 2 * count)
        for _ in 1..<count { farm.answerFirst() }
        let last = try #require(farm.tasks.first)
        let commands = farm.answer(last.worker, last.tile)
        #expect(
            commands.prefix(5) == [
                .accept(last.tile), .merge(last.tile), .finishedPass(0), .compute(Self.tile(1, 0)), .finishedPass(1),
            ])
        #expect(commands.dropFirst(5).count == count && farm.scheduler.mergedTiles == count)
        farm.answerAll()
        #expect(farm.isFinished && farm.scheduler.mergedTiles == farm.scheduler.totalTiles)
    }

    @Test("a job whose workers' tasks are all done ends with the first event, after the coordinator's own work")
    func onlyLocalWork() throws {
        let first = Pass("first", try Self.places(), writes: [Write(0, .cells())])
        let own = Pass(local: "own", reads: [Read(0, .whole)], writes: [Write(1, .whole)])
        let pipeline = try Pipeline(planes: Self.planes, stages: [Stage([first, own])], output: 1)
        var scheduler = Scheduler(pipeline: pipeline, startingAt: 1)
        #expect(!scheduler.isOver && scheduler.mergedTiles == 4 && scheduler.currentPass == 1)
        #expect(scheduler.handle(.tick, at: 0) == [.compute(Self.tile(1, 0)), .finishedPass(1), .finishedJob])
        #expect(Scheduler(pipeline: pipeline, startingAt: 2).isOver)
    }

    @Test("a job that goes on from a boundary waits for nothing before it")
    func boundary() throws {
        let places = try Self.places(halo: 1)
        let passes = (0..<3).map { step in
            Pass(
                "denoise", step: step, places,
                reads: [Read(0, .window(), step == 0 ? .noise(NoiseField(.initial)) : .frame)],
                writes: [Write(0, .cells())])
        }
        var farm = try Self.farm(passes[0], passes[1], passes[2], startingAt: 2)
        #expect(farm.tasks.allSatisfy { $0.tile.pass == 2 } && farm.tasks.count == passes[2].count)
        farm.answerAll()
        #expect(farm.isFinished && farm.finishedPasses == [2])
    }

    @Test("sums behind the first values do not wait for who reads those, and who writes those anew does")
    func leadingValues() throws {
        let grid = try #require(Pass("any", try Self.places(), writes: []).grid)
        let planes = Self.planes + [Plane("sums", .values(count: 4, element: .float64))]
        let passes = [
            Pass("first", .one, writes: [Write(3, .whole)]),
            Pass("reader", .one, reads: [Read(3, .leading(2), .blob)], writes: [Write(0, .whole)]),
            Pass(
                "behind", .sample(grid, [0, 2]), reads: [Read(3, .leading(2), .blob)], writes: [Write(3, .sum(at: 2))]),
            Pass("anew", .one, writes: [Write(3, .sum(at: 1))]),
        ]
        let pipeline = try Pipeline(planes: planes, stages: [Stage(passes)], output: 0)
        var farm = SimulatedFarm(Scheduler(pipeline: pipeline), planes: NoPlanes())
        for worker in 0..<4 { farm.join(worker, credit: 1) }
        for tile in [Self.tile(3, 0), Self.tile(0, 0), Self.tile(2, 0), Self.tile(2, 1)] {
            let task = try #require(farm.tasks.first { $0.tile == tile })
            farm.answer(task.worker, tile)
            #expect(farm.merges.contains(tile) == (tile.pass != 3))
        }
        #expect(farm.finishedPasses == [0, 2])
        farm.answerAll()
        #expect(farm.finishedPasses == [0, 2, 3, 1] && farm.isFinished)
    }

    @Test("a pass without tiles is finished once it might have written")
    func noTiles() throws {
        let grid = try #require(Pass("any", try Self.places(), writes: []).grid)
        let planes = Self.planes + [Plane("sums", .values(count: 1, element: .float64))]
        let passes = [
            Pass("sums", .one, writes: [Write(3, .whole)]),
            Pass("reader", .one, reads: [Read(3, .whole, .blob)], writes: [Write(0, .whole)]),
            Pass("none", .sample(grid, []), writes: [Write(3, .sum())]),
            Pass("last", .one, reads: [Read(3, .whole)], writes: [Write(1, .whole)]),
        ]
        let pipeline = try Pipeline(planes: planes, stages: [Stage(passes)], output: 1)
        var farm = SimulatedFarm(Scheduler(pipeline: pipeline), planes: NoPlanes())
        farm.join(0, credit: 1)
        farm.answerFirst()
        #expect(farm.finishedPasses == [0] && farm.tasks.map(\.tile) == [Self.tile(1, 0)])
        farm.answerFirst()
        #expect(Set(farm.finishedPasses) == [0, 1, 2] && farm.tasks.map(\.tile) == [Self.tile(3, 0)])
        farm.answerFirst()
        #expect(farm.isFinished)
    }
}
