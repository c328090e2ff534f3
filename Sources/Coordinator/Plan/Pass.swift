import Engine

/// The part of a plane that a pass reads for each of its tiles.
///
/// A pass reads every plane as it was before the pass: what its own tiles write is seen by later passes alone.
package struct Read: Sendable {
    package enum Region: Sendable {
        /// The tile's window.
        case window(Scale = .one)
        /// The tile's cell.
        case cell(Scale = .one)
        /// All of it. Of a plane that is written, the pass waits for the last tile that writes it.
        case whole
        /// The first so many of a plane of values; waits as `whole` does.
        case leading(Int)
        /// Any part, of the picture alone.
        case part(@Sendable (_ tile: Int) throws -> Rect)
    }

    /// How a task gets it.
    package enum Delivery: Sendable, Hashable {
        /// With every task.
        case frame
        /// Once to each worker, and named afterwards: for what many tasks have in common.
        case blob
        /// Not at all: the worker makes it from the job's seed. The plane need not have been written.
        case noise(NoiseField)
    }

    package var plane: Plane.ID
    package var region: Region
    package var delivery: Delivery

    package init(_ plane: Plane.ID, _ region: Region, _ delivery: Delivery = .frame) {
        self.plane = plane
        self.region = region
        self.delivery = delivery
    }

    /// Whether the plane's bytes are wanted, and so whoever writes them waited for.
    package var needsPlane: Bool { if case .noise = delivery { false } else { true } }
}

/// The part of a plane that a pass writes, and how the answers of its tiles come together.
package struct Write: Sendable {
    package enum Merge: Sendable, Hashable {
        /// Every tile writes its cell. The cells are disjoint and cover the plane.
        case cells(Scale = .one)
        /// The one tile of the pass writes all of it.
        case whole
        /// The answers are added up, element by element and in the order of the tiles, beginning with nothing. They are
        /// the values from `at` on; those before it stay as they are.
        case sum(at: Int = 0)
        /// The answers are windows; they are added up with these weights, in the order of the tiles, beginning with
        /// nothing.
        case blend(BlendWeights)
    }

    package var plane: Plane.ID
    package var merge: Merge

    package init(_ plane: Plane.ID, _ merge: Merge) {
        self.plane = plane
        self.merge = merge
    }

    /// The first value of the plane that is written; those before stay as they are.
    package var start: Int { if case .sum(let at) = merge { at } else { 0 } }

    /// Whether answers are merged in the order of the tiles.
    package var isOrdered: Bool {
        switch merge {
        case .cells, .whole: false
        case .sum, .blend: true
        }
    }
}

/// One sweep of tasks of one kind over a grid.
package struct Pass: Sendable {
    /// The places of a pass's tiles.
    package enum Places: Sendable, Hashable {
        /// A single tile without a place.
        case one
        /// Every tile of a grid.
        case grid(TileGrid)
        /// Some tiles of a grid, by their numbers in it, ascending.
        case sample(TileGrid, [Int])
    }

    /// Who does it.
    package enum Work: Sendable {
        /// Workers: the operation of each tile, whose inputs are what the pass reads and whose outputs are what it
        /// writes, in that order.
        case task(@Sendable (_ tile: Int) throws -> any TaskOperation)
        /// The coordinator itself, at once; the pass has one tile.
        case local(any LocalWork)
    }

    /// Its name to people: text, encode, denoise, decode.
    package var name: String
    /// The index of the sampler's loop; nil for what is no part of it.
    package var step: Int?
    package var places: Places
    package var reads: [Read]
    package var writes: [Write]
    package var work: Work
    /// Which network its tasks run; a worker has one of them in memory at a time.
    package var network: String
    /// The cost of a tile beside those of other passes, in any unit.
    package var cost: Double
    /// Passes of one affinity visit the same places one after the other: a tile goes, if it can, to the worker that did
    /// the same place before, which may have kept what both have in common.
    package var affinity: String?

    package init(
        _ name: String, step: Int? = nil, places: Places, reads: [Read] = [], writes: [Write], network: String = "",
        cost: Double = 1, affinity: String? = nil, work: Work
    ) {
        self.name = name
        self.step = step
        self.places = places
        self.reads = reads
        self.writes = writes
        self.network = network
        self.cost = cost
        self.affinity = affinity
        self.work = work
    }

    /// How many tiles it has.
    package var count: Int {
        switch places {
        case .one: 1
        case .grid(let grid): grid.count
        case .sample(_, let tiles): tiles.count
        }
    }

    /// Tasks for workers.
    package var taskCount: Int { isLocal ? 0 : count }
    package var isLocal: Bool { if case .local = work { true } else { false } }
    /// Whether answers are merged in the order of the tiles.
    package var isOrdered: Bool { writes.contains { $0.isOrdered } }

    package var grid: TileGrid? {
        switch places {
        case .one: nil
        case .grid(let grid), .sample(let grid, _): grid
        }
    }

    /// The number in the grid of a tile of the pass.
    package func place(_ tile: Int) -> Int { if case .sample(_, let tiles) = places { tiles[tile] } else { tile } }

    package func window(_ tile: Int) -> Rect? { grid?.window(place(tile)) }
    package func cell(_ tile: Int) -> Rect? { grid?.cell(place(tile)) }
}

/// Work that the coordinator does itself between the workers' passes.
package protocol LocalWork: Sendable {
    /// - Parameters:
    ///   - reads, writes: the buffers of what the pass reads and writes, in its order; a plane that is both may be one
    ///     buffer
    ///   - beat: to be called again and again where it takes long
    func run(reads: [Canvas], writes: [Canvas], beat: () -> Void)
}
