import Coordinator
import Engine
import Testing

/// An operation that is never asked for.
struct NoOperation: Error {}

extension Pass {
    /// A pass of which a test needs the accesses alone.
    init(
        _ name: String, step: Int? = nil, _ places: Places, reads: [Read] = [], writes: [Write], network: String = "",
        affinity: String? = nil
    ) {
        self.init(
            name, step: step, places: places, reads: reads, writes: writes, network: network, affinity: affinity,
            work: .task { _ in throw NoOperation() })
    }

    /// The coordinator's own.
    init(local name: String, step: Int? = nil, reads: [Read], writes: [Write]) {
        self.init(name, step: step, places: .one, reads: reads, writes: writes, work: .local(NoLocalWork()))
    }
}

/// Work that is never done.
struct NoLocalWork: LocalWork {
    func run(reads: [Canvas], writes: [Canvas], beat: () -> Void) {}
}

extension Plane {
    init(_ name: String, height: Int, width: Int) {
        self.init(name, .array(height: height, width: width, channels: 1, element: .float32))
    }
}

extension Pipeline {
    /// A job that denoises a sample and does nothing else, from noise. Where windows overlap, predictions are blended
    /// and the coordinator takes the sampler's step.
    static func denoising(_ tiling: Tiling, steps: Int) throws -> Pipeline {
        let (sample, prediction) = (0, 1)
        let passes = (0..<steps).flatMap { step -> [Pass] in
            let places = Pass.Places.grid(tiling.grid(step: step))
            let read = Read(sample, .window(), step == 0 ? .noise(NoiseField(.initial)) : .frame)
            if tiling.writesDisjointCells {
                return [Pass("denoise", step: step, places, reads: [read], writes: [Write(sample, .cells())])]
            }
            return [
                Pass(
                    "denoise", step: step, places, reads: [read],
                    writes: [Write(prediction, .blend(tiling.blendWeights))]),
                Pass(
                    local: "step", step: step,
                    reads: [Read(prediction, .whole)] + (step == 0 ? [] : [Read(sample, .whole)]),
                    writes: [Write(sample, .whole)]),
            ]
        }
        let planes = ["sample", "prediction"].map {
            Plane($0, height: tiling.canvasHeight, width: tiling.canvasWidth)
        }
        return try Pipeline(planes: planes, stages: [Stage(passes)], output: sample)
    }

    /// A row of tiles that need nothing of one another.
    static func row(_ tiles: Int, steps: Int = 1, network: (_ step: Int) -> String = { _ in "" }) throws -> Pipeline {
        let tiling = try Tiling(
            canvasHeight: 8, canvasWidth: 8 * tiles, tile: 8, overlap: .none, offset: .none, alignment: 1, seed: 1)
        let planes = (0..<steps).map { Plane("row \($0)", height: 8, width: 8 * tiles) }
        let passes = (0..<steps).map {
            Pass("row \($0)", .grid(tiling.grid(step: 0)), writes: [Write($0, .cells())], network: network($0))
        }
        return try Pipeline(planes: planes, stages: [Stage(passes)], output: steps - 1)
    }
}

/// The sample of `Pipeline.denoising`, whose pixels only count the steps that they have been through, so that a window
/// cut too early or a cell written too soon shows at once.
struct StepCountingPlanes: FarmPlanes {
    private(set) var sample: [Int]
    private let pipeline: Pipeline
    private let width: Int

    init(_ pipeline: Pipeline) {
        self.pipeline = pipeline
        let size = pipeline.planes[0].size ?? (0, 0)
        sample = Array(repeating: 0, count: size.height * size.width)
        width = size.width
    }

    private func step(_ pass: Int) -> Int { pipeline.passes[pass].step ?? 0 }
    private var everything: Rect { Rect(y: 0, x: 0, height: sample.count / width, width: width) }

    func cut(_ tile: Scheduler.Tile, for worker: Int, isRepeat: Bool) {
        // The first step's windows are noise, made from coordinates.
        guard !isRepeat, step(tile.pass) > 0, let window = pipeline.passes[tile.pass].window(tile.index) else { return }
        expect(window, at: step(tile.pass), "cut \(tile)")
    }

    func accept(_ tile: Scheduler.Tile, from worker: Int) {}

    mutating func merge(_ tile: Scheduler.Tile) {
        guard !pipeline.passes[tile.pass].isOrdered, let cell = pipeline.passes[tile.pass].cell(tile.index) else {
            return
        }
        advance(cell, to: step(tile.pass) + 1)
    }

    mutating func compute(_ tile: Scheduler.Tile) { advance(everything, to: step(tile.pass) + 1) }

    func finish(pass: Int) {}

    private func expect(_ rect: Rect, at version: Int, _ what: @autoclosure () -> String) {
        for y in rect.y..<rect.maxY {
            for x in rect.x..<rect.maxX where sample[y * width + x] != version {
                Issue.record("\(what()): pixel (\(y), \(x)) is at step \(sample[y * width + x]), not \(version)")
                return
            }
        }
    }

    private mutating func advance(_ rect: Rect, to version: Int) {
        expect(rect, at: version - 1, "merge to \(version)")
        for y in rect.y..<rect.maxY { for x in rect.x..<rect.maxX { sample[y * width + x] = version } }
    }
}

extension SimulatedFarm where Planes == StepCountingPlanes {
    init(tiling: Tiling, steps: Int, seed: UInt64, sendsCopies: Bool = true, maxInFlight: Int = .max) throws {
        var leases = Scheduler.LeasePolicy()
        (leases.sendsCopies, leases.othersMayCome) = (sendsCopies, true)
        let pipeline = try Pipeline.denoising(tiling, steps: steps)
        self.init(
            Scheduler(pipeline: pipeline, leases: leases) { _ in maxInFlight }, planes: StepCountingPlanes(pipeline),
            seed: seed)
    }
}

extension Scheduler {
    /// A job of a row of tiles that need nothing of one another.
    static func row(_ tiles: Int, _ leases: LeasePolicy = .init()) throws -> Scheduler {
        Scheduler(pipeline: try .row(tiles), leases: leases)
    }
}

extension Scheduler.Tile {
    /// A tile of a job's first pass.
    init(_ index: Int) { self.init(pass: 0, index: index) }
}
