import Coordinator
import Engine

/// Draws pipelines of all shapes that `Pipeline` accepts: planes of several resolutions, grids of all kinds, reads by
/// window, cell and whole, planes that are written in place, sums, blends, samples and the coordinator's own work.
struct RandomPipeline {
    private static let picture = 0, text = 1
    /// Tiles that a pass has at most.
    private static let mostTiles = 64

    private var random: SplitMix64
    /// A multiple of four, so that half of it is even.
    private let height: Int
    private let width: Int
    private var planes: [Plane] = []
    /// Twice the positions of a plane for one of the canvas, along either axis; nil for planes without.
    private var resolutions: [Int?] = []
    private var written: Set<Plane.ID> = []

    /// - Throws: `PipelineError` where the generator is wrong.
    static func draw(seed: UInt64) throws -> Pipeline {
        var generator = RandomPipeline(seed: seed)
        return try generator.draw()
    }

    private init(seed: UInt64) {
        random = SplitMix64(state: seed)
        height = 4 * Int.random(in: 1...6, using: &random)
        width = 4 * Int.random(in: 1...6, using: &random)
        let resolution = pick([1, 2, 4])
        add(Plane("picture", .picture(height: height * resolution / 2, width: width * resolution / 2)), resolution)
        add(Plane("text", .text("a random pipeline")), nil)
        for number in 0..<Int.random(in: 1...4, using: &random) {
            let resolution = pick([1, 2, 2, 4]), channels = Int.random(in: 1...2, using: &random)
            let content = Plane.Content.array(
                height: height * resolution / 2, width: width * resolution / 2, channels: channels, element: .float32)
            add(Plane("array \(number)", content), resolution)
        }
        for number in 0..<Int.random(in: 0...2, using: &random) {
            let count = Int.random(in: 1...4, using: &random)
            add(Plane("values \(number)", .values(count: count, element: .float64)), nil)
        }
    }

    private mutating func add(_ plane: Plane, _ resolution: Int?) {
        planes.append(plane)
        resolutions.append(resolution)
    }

    private mutating func draw() throws -> Pipeline {
        var passes: [Pass] = []
        for number in 0..<Int.random(in: 2...8, using: &random) {
            // The first one writes an array, so that there is an output.
            let pass =
                switch Int.random(in: 0..<(number == 0 ? 6 : 10), using: &random) {
                case 0..<5: try drawGridPass()
                case 5: drawSinglePass()
                case 6, 7: try drawSample() ?? drawSinglePass()
                case 8: drawLocalPass()
                default: try drawGridPass()
                }
            passes.append(pass)
            written.formUnion(pass.writes.map(\.plane))
        }
        let outputs = written.filter { planes[$0].arrayBytes > 0 }.sorted()
        let cut = Int.random(in: 0...passes.count, using: &random)
        return try Pipeline(
            planes: planes, stages: [Stage(Array(passes[..<cut])), Stage(Array(passes[cut...]))],
            output: pick(outputs))
    }

    // MARK: Passes

    private struct Grid {
        var grid: TileGrid
        var resolution: Int
        /// All borders are multiples of this.
        var alignment: Int
        var isDisjoint: Bool

        /// How a plane lies on the grid; nil where borders might fall between its positions.
        func scale(_ plane: Int?) -> Scale? {
            guard let plane else { return nil }
            if plane >= resolution { return Scale(up: plane / resolution) }
            return alignment % (resolution / plane) == 0 ? Scale(down: resolution / plane) : nil
        }

        /// As though a plane were half as large as it is, so that its upper left quarter is read.
        func quarter(_ scale: Scale) -> Scale? {
            alignment * scale.up % (2 * scale.down) == 0 ? Scale(up: scale.up, down: 2 * scale.down) : nil
        }
    }

    private mutating func drawGrid() throws -> Grid {
        while true {
            let resolution = pick([1, 2, 2, 4]), alignment = pick([1, 2, 4])
            let (height, width) = (height * resolution / 2, width * resolution / 2)
            guard height % alignment == 0, width % alignment == 0 else { continue }
            let tile = alignment * pick([1, 2, 3, 3, 4, 4, 5, 6, 8, 12])
            let halo = alignment * Int.random(in: 0...2, using: &random)
            var overlaps: [Tiling.Overlap] = [.none]
            if 2 * halo < tile { overlaps += [.implicit(halo: halo), .implicit(halo: halo)] }
            if halo < tile { overlaps.append(.explicit(width: halo, weights: .mean)) }
            if alignment == 1 { overlaps.append(.reference) }
            let tiling = try Tiling(
                canvasHeight: height, canvasWidth: width, tile: tile, overlap: pick(overlaps),
                offset: pick([.random, .fixed, .none]), alignment: alignment, seed: random.next())
            let grid = tiling.grid(step: Int.random(in: 0...7, using: &random))
            guard grid.count <= Self.mostTiles else { continue }
            return Grid(
                grid: grid, resolution: resolution, alignment: alignment, isDisjoint: tiling.writesDisjointCells)
        }
    }

    private mutating func drawGridPass() throws -> Pass {
        while true {
            let grid = try drawGrid()
            var writes: [Write] = [], reads: [Read] = []
            for plane in planes.indices.shuffled(using: &random).prefix(Int.random(in: 2...4, using: &random)) {
                guard let write = drawWrite(plane, grid) else { continue }
                writes.append(write)
                // In place, or with the history of the step before.
                if written.contains(plane), Bool.random(using: &random), let scale = grid.scale(resolutions[plane]) {
                    let quarter = grid.quarter(scale) ?? scale
                    reads.append(
                        Read(plane, pick([.window(scale), .window(scale), .cell(scale), .cell(quarter)]), delivery()))
                }
            }
            guard writes.contains(where: { planes[$0.plane].arrayBytes > 0 }) else { continue }
            reads += drawReads(grid)
            return makePass(.grid(grid.grid), reads, writes)
        }
    }

    private mutating func drawWrite(_ plane: Plane.ID, _ grid: Grid) -> Write? {
        switch planes[plane].content {
        case .picture, .text: return nil
        case .values: return drawSum(plane)
        case .array:
            var merges: [Write.Merge] = []
            if grid.isDisjoint, let scale = grid.scale(resolutions[plane]) {
                merges += Array(repeating: .cells(scale), count: 3)
            }
            if grid.resolution == resolutions[plane] { merges.append(.blend(pick([.mean, .gaussian]))) }
            if grid.grid.count == 1 { merges.append(.whole) }
            return merges.isEmpty ? nil : Write(plane, pick(merges))
        }
    }

    /// A sum of all of a plane's values or, where they have been written before, of the last ones.
    private mutating func drawSum(_ plane: Plane.ID) -> Write {
        guard case .values(let count, _) = planes[plane].content, written.contains(plane) else {
            return Write(plane, .sum())
        }
        return Write(plane, .sum(at: Int.random(in: 0..<count, using: &random)))
    }

    /// Some tiles of a grid, or none; nil where there is nothing that they could write.
    private mutating func drawSample() throws -> Pass? {
        let sums = planes.indices.filter { if case .values = planes[$0].content { true } else { false } }
        guard !sums.isEmpty else { return nil }
        let grid = try drawGrid()
        let places = (0..<grid.grid.count).filter { _ in Int.random(in: 0..<3, using: &random) == 0 }
        return makePass(.sample(grid.grid, places), drawReads(grid), [drawSum(pick(sums))])
    }

    private mutating func drawSinglePass() -> Pass {
        let plane = pick(planes.indices.filter { !planes[$0].isGiven && (!written.isEmpty || isArray($0)) })
        return makePass(.one, drawReads(nil), [Write(plane, .whole)])
    }

    private mutating func drawLocalPass() -> Pass {
        let arrays = planes.indices.filter { isArray($0) }
        let reads = arrays.filter { written.contains($0) && Bool.random(using: &random) }.map { Read($0, .whole) }
        var writes = arrays.filter { _ in Int.random(in: 0..<3, using: &random) == 0 }.map { Write($0, .whole) }
        if writes.isEmpty { writes = [Write(pick(arrays), .whole)] }
        return Pass(local: "local", reads: reads, writes: writes)
    }

    private mutating func makePass(_ places: Pass.Places, _ reads: [Read], _ writes: [Write]) -> Pass {
        Pass(
            pick(["encode", "denoise", "decode"]), places, reads: reads, writes: writes,
            network: pick(["", "", "first", "second"]), affinity: pick([nil, nil, "places"]))
    }

    // MARK: Reads

    private mutating func drawReads(_ grid: Grid?) -> [Read] {
        (0..<Int.random(in: 0...3, using: &random)).compactMap { _ in
            let plane = pick(Array(planes.indices))
            var regions: [Read.Region] = [.whole]
            if let grid, let scale = grid.scale(resolutions[plane]) {
                regions += [.window(scale), .window(scale), .window(scale), .cell(scale), .cell(scale)]
                if let quarter = grid.quarter(scale) { regions.append(.window(quarter)) }
            }
            if case .values(let count, _) = planes[plane].content {
                regions.append(.leading(Int.random(in: 1...count, using: &random)))
            }
            if case .picture(let height, let width) = planes[plane].content {
                regions.append(
                    .part { Rect(y: $0 % height, x: $0 % width, height: 1, width: width - $0 % width) })
            }
            if planes[plane].isGiven { return Read(plane, pick(regions), delivery()) }
            guard written.contains(plane), Int.random(in: 0..<8, using: &random) > 0 else {
                return Read(
                    plane, pick(regions), .noise(NoiseField(.initial, step: .random(in: 0..<9, using: &random))))
            }
            return Read(plane, pick(regions), delivery())
        }
    }

    private mutating func delivery() -> Read.Delivery { Int.random(in: 0..<3, using: &random) == 0 ? .blob : .frame }

    private func isArray(_ plane: Plane.ID) -> Bool { planes[plane].arrayBytes > 0 }

    /// One of them, which are not none.
    private mutating func pick<Element>(_ elements: [Element]) -> Element {
        elements[Int.random(in: 0..<elements.count, using: &random)]
    }
}
