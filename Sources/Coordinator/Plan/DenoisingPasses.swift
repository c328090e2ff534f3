import Engine

/// The sampler's loop over one canvas as passes: what methods have in common, however tiles meet.
struct DenoisingPasses {
    /// One tile's task but for what the method adds to it.
    typealias Operation = @Sendable (_ tile: TileStep, _ window: Rect) throws -> any TaskOperation

    let tiling: Tiling
    let sampler: StepSampler
    let channels: Int
    let element: CanvasElement
    let seed: UInt64
    let stage: Int
    /// Where the loop begins: from nothing but noise, or from what a pass before has written.
    let startsWithNoise: Bool

    init(
        tiling: Tiling, sampler: StepSampler, channels: Int, element: CanvasElement, seed: UInt64, stage: Int = 0,
        startsWithNoise: Bool
    ) {
        self.tiling = tiling
        self.sampler = sampler
        self.channels = channels
        self.element = element
        self.seed = seed
        self.stage = stage
        self.startsWithNoise = startsWithNoise
    }

    /// Numbers of the planes of the loop.
    struct Planes {
        var sample: Plane.ID
        /// Sums of weighted predictions, and the last blended prediction, where tiles are blended.
        var sum: Plane.ID?
        var prediction: Plane.ID?
    }

    /// Appends the planes of the loop.
    func addPlanes(to planes: inout [Plane]) -> Planes {
        func array(_ name: String, _ element: CanvasElement) -> Plane {
            Plane(
                name,
                .array(height: tiling.canvasHeight, width: tiling.canvasWidth, channels: channels, element: element))
        }
        planes.append(array("sample", element))
        var numbers = Planes(sample: planes.count - 1)
        if !tiling.writesDisjointCells {
            // What is summed is float32 in any case.
            planes.append(array("sum", .float32))
            numbers.sum = planes.count - 1
        }
        if tiling.leavesGaps {
            planes.append(array("prediction", element))
            numbers.prediction = planes.count - 1
        }
        return numbers
    }

    /// - Parameters:
    ///   - reads: what a task of each tile gets beside the sample, in the order of the operation's inputs
    ///   - cost: of a tile
    func passes(
        _ planes: Planes, network: String, cost: Double, reads: [@Sendable (TileGrid) -> Read],
        operation: @escaping Operation
    ) -> [Pass] {
        // Workers make the noise of the first step themselves, unrounded, whether it is here too or not.
        func sample(_ step: Int) -> Read {
            let isNoise = step == 0 && startsWithNoise
            let field = NoiseField(.initial, stage: UInt8(truncatingIfNeeded: stage))
            return Read(planes.sample, .window(), isNoise ? .noise(field) : .frame)
        }
        var passes: [Pass] = []
        if let sum = planes.sum {
            if startsWithNoise {
                let noise = InitialNoise(channels: channels, seed: seed, stage: stage)
                passes.append(
                    Pass(
                        "noise", places: .one, writes: [Write(planes.sample, .whole)], network: network, cost: 0,
                        work: .local(noise)))
            }
            for step in 0..<sampler.count {
                let grid = tiling.grid(step: step)
                passes.append(
                    Pass(
                        "denoise", step: step, places: .grid(grid),
                        reads: [sample(step)] + reads.map { $0(grid) },
                        writes: [Write(sum, .blend(tiling.blendWeights))], network: network, cost: cost,
                        work: work(step, grid, operation)))
                passes.append(blend(step, grid, planes, sum: sum, network: network))
            }
            return passes
        }
        for step in 0..<sampler.count {
            let grid = tiling.grid(step: step)
            passes.append(
                Pass(
                    "denoise", step: step, places: .grid(grid), reads: [sample(step)] + reads.map { $0(grid) },
                    writes: [Write(planes.sample, .cells())], network: network, cost: cost,
                    work: work(step, grid, operation)))
        }
        return passes
    }

    /// The sampler's step of a whole canvas, from its blended predictions.
    private func blend(_ step: Int, _ grid: TileGrid, _ planes: Planes, sum: Plane.ID, network: String) -> Pass {
        var reads = [Read(sum, .whole), Read(planes.sample, .whole)], writes = [Write(planes.sample, .whole)]
        let hasFormer = planes.prediction != nil && step > 0
        if let prediction = planes.prediction {
            if hasFormer { reads.append(Read(prediction, .whole)) }
            writes.append(Write(prediction, .whole))
        }
        return Pass(
            "blend", step: step, places: .one, reads: reads, writes: writes, network: network, cost: 0,
            work: .local(
                BlendedStep(
                    grid: grid, weights: tiling.blendWeights, coefficients: sampler[step].coefficients, step: step,
                    stage: stage, seed: seed)))
    }

    private func work(_ step: Int, _ grid: TileGrid, _ operation: @escaping Operation) -> Pass.Work {
        let planned = sampler[step]
        return .task { [self] tile in
            let window = grid.window(tile)
            let tile = TileStep(
                canvasHeight: tiling.canvasHeight, canvasWidth: tiling.canvasWidth, channels: channels, window: window,
                cell: grid.cell(tile), timestep: Float(planned.timestep), coefficients: planned.coefficients,
                step: step, stage: stage, seed: seed, answer: tiling.writesDisjointCells ? .cell : .prediction,
                element: element)
            return try operation(tile, window)
        }
    }
}
