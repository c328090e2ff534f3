import Engine
import Testing

@Suite("Tiling")
struct TilingTests {
    /// Tilings of random size, alignment, halo, offset and range.
    static func randomTilings(_ count: Int, overlap: (inout SplitMix64, Int, Int) -> Tiling.Overlap) throws -> [Tiling]
    {
        var random = SplitMix64(seed: 11)
        return try (0..<count).map { _ in
            let alignment = [1, 2, 4, 8].randomElement(using: &random) ?? 8
            let tile = alignment * Int.random(in: 3...40, using: &random)
            return try Tiling(
                canvasHeight: alignment * Int.random(in: 1...150, using: &random),
                canvasWidth: alignment * Int.random(in: 1...150, using: &random),
                tile: tile, overlap: overlap(&random, tile, alignment),
                offset: [.random, .fixed, .none].randomElement(using: &random) ?? .random,
                offsetRange: Bool.random(using: &random) ? nil : Int.random(in: 1...tile, using: &random),
                alignment: alignment, seed: random.next())
        }
    }

    static func implicit(_ random: inout SplitMix64, tile: Int, alignment: Int) -> Tiling.Overlap {
        .implicit(halo: alignment * Int.random(in: 0...((tile / alignment - 1) / 2), using: &random))
    }

    @Test("cells are disjoint and cover the canvas, windows are full size, inside, aligned and hold their cells")
    func covering() throws {
        let tilings =
            try Self.randomTilings(300, overlap: Self.implicit)
            + Self.randomTilings(100) { _, _, _ in Tiling.Overlap.none }
        for tiling in tilings {
            for step in 0..<4 {
                let grid = tiling.grid(step: step)
                let canvas = Rect(y: 0, x: 0, height: tiling.canvasHeight, width: tiling.canvasWidth)
                var covered = 0
                for tile in 0..<grid.count {
                    let (window, cell) = (grid.window(tile), grid.cell(tile))
                    #expect(canvas.contains(window) && window.contains(cell) && cell.area > 0)
                    #expect(
                        window.height == min(tiling.tile, canvas.height)
                            && window.width == min(tiling.tile, canvas.width))
                    #expect(window.y % tiling.alignment == 0 && window.x % tiling.alignment == 0)
                    covered += cell.area
                    // Its own cell alone: with the areas' sum this makes the cells disjoint and covering.
                    #expect(Array(grid.tilesWriting(cell)) == [tile])
                }
                #expect(covered == canvas.area)
            }
        }
    }

    @Test("a halo of context surrounds every cell, save at the canvas border")
    func halo() throws {
        for tiling in try Self.randomTilings(200, overlap: Self.implicit) {
            guard case .implicit(let halo) = tiling.overlap else { continue }
            let grid = tiling.grid(step: 1)
            for tile in 0..<grid.count {
                let (window, cell) = (grid.window(tile), grid.cell(tile))
                #expect(cell.y - window.y >= halo || window.y == 0)
                #expect(window.maxY - cell.maxY >= halo || window.maxY == tiling.canvasHeight)
                #expect(cell.x - window.x >= halo || window.x == 0)
                #expect(window.maxX - cell.maxX >= halo || window.maxX == tiling.canvasWidth)
            }
        }
    }

    @Test("a shifted grid has at most one tile more per axis than the unshifted one")
    func cost() throws {
        for tiling in try Self.randomTilings(200, overlap: Self.implicit) {
            let still = try Tiling(
                canvasHeight: tiling.canvasHeight, canvasWidth: tiling.canvasWidth, tile: tiling.tile,
                overlap: tiling.overlap,
                offset: .none, alignment: tiling.alignment, seed: 0
            ).grid(step: 0)
            for step in 0..<6 {
                let grid = tiling.grid(step: step)
                #expect((still.rows.count...still.rows.count + 1).contains(grid.rows.count))
                #expect((still.columns.count...still.columns.count + 1).contains(grid.columns.count))
            }
        }
    }

    @Test("the tiles that read or write a rectangle are those that share a pixel with it")
    func touching() throws {
        var random = SplitMix64(seed: 5)
        for tiling in try Self.randomTilings(100, overlap: Self.implicit) {
            let grid = tiling.grid(step: 2)
            let y = Int.random(in: 0..<tiling.canvasHeight, using: &random)
            let x = Int.random(in: 0..<tiling.canvasWidth, using: &random)
            let rect = Rect(
                y: y, x: x, height: Int.random(in: 1...tiling.canvasHeight - y, using: &random),
                width: Int.random(in: 1...tiling.canvasWidth - x, using: &random))
            #expect(
                Array(grid.tilesWriting(rect)) == (0..<grid.count).filter { grid.cell($0).intersection(rect) != nil })
            #expect(
                Array(grid.tilesReading(rect)) == (0..<grid.count).filter { grid.window($0).intersection(rect) != nil })
        }
    }

    @Test("random offsets differ from step to step and with the seed, and repeat with the same seed")
    func randomness() throws {
        func grids(_ seed: UInt64) throws -> [TileGrid] {
            let tiling = try Tiling(
                canvasHeight: 2048, canvasWidth: 2048, tile: 256, overlap: .implicit(halo: 8), offset: .random,
                alignment: 8, seed: seed)
            return (0..<50).map(tiling.grid)
        }
        #expect(try grids(1) == grids(1))
        #expect(try grids(1) != grids(2))
        #expect(try Set(grids(1)).count > 40)
    }

    @Test("fixed offsets alternate and no offset stays")
    func fixed() throws {
        func grids(_ offset: Tiling.Offset) throws -> [TileGrid] {
            let tiling = try Tiling(
                canvasHeight: 2048, canvasWidth: 1024, tile: 256, overlap: .implicit(halo: 8), offset: offset,
                alignment: 8, seed: 3)
            return (0..<4).map(tiling.grid)
        }
        let fixed = try grids(.fixed)
        #expect(fixed[0] == fixed[2] && fixed[1] == fixed[3] && fixed[0] != fixed[1])
        #expect(try Set(grids(.none)).count == 1)
    }

    @Test("explicitly overlapping windows cover the canvas and share at least the overlap with each neighbour")
    func explicit() throws {
        let tilings = try Self.randomTilings(200) { random, tile, alignment in
            .explicit(width: alignment * Int.random(in: 0...(tile / alignment - 1), using: &random), weights: .mean)
        }
        for tiling in tilings {
            guard case .explicit(let width, _) = tiling.overlap else { continue }
            let columns = tiling.grid(step: 0).columns
            #expect(columns.windows.first?.lowerBound == 0 && columns.windows.last?.upperBound == tiling.canvasWidth)
            for (left, right) in zip(columns.windows, columns.windows.dropFirst()) {
                #expect(left.upperBound - right.lowerBound >= width && right.lowerBound > left.lowerBound)
            }
        }
    }

    @Test("the published form rests at every fourth step and leaves a strip no wider than the range")
    func reference() throws {
        let tiling = try Tiling(
            canvasHeight: 1024, canvasWidth: 768, tile: 256, overlap: .reference, offset: .random, offsetRange: 32,
            alignment: 8, seed: 9)
        var strips = Set<Int>()
        for step in 0..<40 {
            let grid = tiling.grid(step: step)
            #expect(grid.rows.count == 4 && grid.columns.count == 3)
            let strip = grid.rows.windows[0].lowerBound
            #expect(strip < 32)
            if step % 4 == 0 { #expect(strip == 0 && grid.columns.windows[0].lowerBound == 0) }
            strips.insert(strip)
        }
        #expect(strips.count > 10)
    }

    @Test("what does not fit is refused in words that name it and its number")
    func refusals() {
        func message(canvas: Int = 64, tile: Int = 32, overlap: Tiling.Overlap = .none, range: Int? = nil) -> String? {
            do {
                _ = try Tiling(
                    canvasHeight: canvas, canvasWidth: 64, tile: tile, overlap: overlap, offset: .random,
                    offsetRange: range,
                    alignment: 8, seed: 0)
                return nil
            } catch { return error.description }
        }
        #expect(message() == nil)
        #expect(message(canvas: 60)?.contains("multiple of the model's alignment") == true)
        #expect(message(tile: 30)?.contains("a tile of 30") == true)
        #expect(message(tile: 0)?.contains("a tile of 0") == true)
        #expect(message(overlap: .implicit(halo: 4))?.contains("a halo of 4") == true)
        #expect(message(overlap: .implicit(halo: 16))?.contains("a halo of 16") == true)
        #expect(message(overlap: .explicit(width: 32, weights: .mean))?.contains("an overlap of 32") == true)
        #expect(message(range: 0)?.contains("an offset range of 0") == true)
    }
}
