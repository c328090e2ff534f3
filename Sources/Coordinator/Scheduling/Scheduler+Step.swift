import Engine

extension Scheduler {
    /// One step of a job: so many tiles of the same kind of work.
    package struct Step: Sendable {
        package enum Shape: Sendable {
            /// Tiles that write disjoint cells of the canvas. `readsCanvas`: whether their windows hold what the step
            /// before wrote; `waits`: for all of that step, and not only for what the windows touch.
            case cells(TileGrid, readsCanvas: Bool, waits: Bool = false)
            /// Tiles that need nothing but the whole step before. `inOrder`: whether they are merged in the order of
            /// their numbers.
            case barrier(count: Int, inOrder: Bool)
        }

        package var shape: Shape
        /// Steps of one kind take a worker about the same time.
        package var kind: Int
        /// A name for each tile, or none. A tile goes, if it can, to the worker that has answered the tile of the same
        /// name in the step before: that one may have kept what both have in common. Other workers come to the same
        /// bits, only later.
        package var keys: [Int]
        /// No tile of it is sent while so many of any step are at workers: what is kept of them takes memory.
        package var mostOut: Int

        package init(_ shape: Shape, kind: Int = 0, keys: [Int] = [], mostOut: Int = .max) {
            self.shape = shape
            self.kind = kind
            self.keys = keys
            self.mostOut = mostOut
        }

        /// How many tiles it has.
        package var count: Int {
            switch shape {
            case .cells(let grid, _, _): grid.count
            case .barrier(let count, _): count
            }
        }
    }

    /// A tile of a step.
    package struct Tile: Hashable, Comparable, Sendable {
        package var step: Int
        package var index: Int

        package init(step: Int, index: Int) {
            self.step = step
            self.index = index
        }

        package static func < (left: Tile, right: Tile) -> Bool { (left.step, left.index) < (right.step, right.index) }
    }
}

extension Scheduler.Step {
    /// A step of a sampler.
    /// - Parameters:
    ///   - grid: the step's
    ///   - readsCanvas: not where the windows are pure noise, as at the first step: nothing has to wait
    ///   - waits: for the whole step before; slower, and there to be compared with
    package init(
        denoising grid: TileGrid, of tiling: Tiling, readsCanvas: Bool, waits: Bool = false, kind: Int = 0,
        mostOut: Int = .max
    ) {
        self.init(
            tiling.writesDisjointCells
                ? .cells(grid, readsCanvas: readsCanvas, waits: waits) : .barrier(count: grid.count, inOrder: true),
            kind: kind,
            mostOut: mostOut)
    }
}
