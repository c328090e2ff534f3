import DequeModule
import Engine

/// Which tiles may be cut out and sent, and which answers may be merged: what the steps of a job need of one another.
/// It knows nothing of workers.
///
/// Steps have no barrier where tiles write disjoint cells: a tile is ready as soon as every cell of the step before
/// that its window touches is merged, and the canvas is updated in place. Because windows are wider than cells, an
/// answer waits until every window of its own step that reads its cell has been cut out. Everything else waits for the
/// whole step before, and where sums are made answers are merged in the order of the tiles, so that the sums have a
/// fixed order.
struct TileGraph {
    typealias Tile = Scheduler.Tile
    typealias Step = Scheduler.Step

    enum Status: UInt8 { case waiting, ready, cut, answered, merged }

    enum Change {
        /// A step that waited for all before it begins; its tiles follow as `ready`.
        case began(step: Int)
        case ready(Tile)
        case merged(Tile)
        case finished(step: Int)
    }

    private struct StepState {
        let step: Step
        /// The step after it, once it has been asked for.
        var successor: Step?
        var status: [Status]
        /// Cells of the step before that the window touches and that are not merged yet.
        var missing: [Int32]
        /// Windows of this step that read the tile's cell and are not cut yet.
        var uncut: [Int32]
        var merged = 0
        /// The next tile to merge, where the order matters.
        var next = 0

        /// The grid, where tiles write disjoint cells.
        var grid: TileGrid? { if case .cells(let grid, _, _) = step.shape { grid } else { nil } }
        var readsCanvas: Bool { if case .cells(_, let readsCanvas, _) = step.shape { readsCanvas } else { false } }
        var isInOrder: Bool { if case .barrier(_, let inOrder) = step.shape { inOrder } else { false } }
    }

    let steps: Int
    /// The lowest step that is not finished.
    private(set) var firstActive: Int
    private let makeStep: @Sendable (Int) -> Step
    private var active: Deque<StepState> = []

    /// Call `begin` next.
    init(steps: Int, startingAt first: Int, step: @escaping @Sendable (Int) -> Step) {
        self.steps = steps
        firstActive = min(first, steps)
        makeStep = step
    }

    var isFinished: Bool { firstActive == steps }

    /// nil for tiles of steps that are finished or have not begun, and for those that the job does not have.
    func status(of tile: Tile) -> Status? {
        let index = tile.step - firstActive
        guard active.indices.contains(index), active[index].status.indices.contains(tile.index) else { return nil }
        return active[index].status[tile.index]
    }

    func kind(of tile: Tile) -> Int { step(of: tile).kind }

    /// See `Scheduler.Step.mostOut`.
    func mostOut(of tile: Tile) -> Int { step(of: tile).mostOut }

    private func step(of tile: Tile) -> Step {
        let index = tile.step - firstActive
        return active.indices.contains(index) ? active[index].step : makeStep(tile.step)
    }

    /// The tile's name among the tiles of other steps.
    func key(of tile: Tile) -> Int? {
        let index = tile.step - firstActive
        guard active.indices.contains(index), active[index].step.keys.indices.contains(tile.index) else { return nil }
        return active[index].step.keys[tile.index]
    }

    /// Begins the step after all those that are finished, if it has not begun; it waits for nothing.
    mutating func begin(_ changes: inout [Change]) {
        guard active.isEmpty, firstActive < steps else { return }
        active.append(makeState(makeStep(firstActive), after: nil))
        changes.append(.began(step: firstActive))
        for index in active[0].status.indices { makeReady(Tile(step: firstActive, index: index), &changes) }
        finishSteps(&changes)
    }

    /// The tile's window is cut out of the canvas.
    mutating func cut(_ tile: Tile, _ changes: inout [Change]) {
        let index = tile.step - firstActive
        active[index].status[tile.index] = .cut
        guard active[index].readsCanvas, let grid = active[index].grid else { return }
        for other in grid.tilesWriting(grid.window(tile.index)) {
            active[index].uncut[other] -= 1
            if active[index].uncut[other] == 0, active[index].status[other] == .answered {
                merge(Tile(step: tile.step, index: other), &changes)
            }
        }
    }

    /// The answer of a tile that was cut is there.
    mutating func answer(_ tile: Tile, _ changes: inout [Change]) {
        let index = tile.step - firstActive
        active[index].status[tile.index] = .answered
        if !active[index].isInOrder {
            if active[index].uncut[tile.index] == 0 { merge(tile, &changes) }
        } else {
            while tile.step == firstActive, !active.isEmpty, active[0].next < active[0].status.count,
                active[0].status[active[0].next] == .answered
            {
                active[0].next += 1
                merge(Tile(step: tile.step, index: active[0].next - 1), &changes)
            }
        }
    }

    private func makeState(_ step: Step, after previous: TileGrid?) -> StepState {
        let tiles = 0..<step.count
        var missing = [Int32](repeating: 0, count: step.count)
        var uncut = missing
        if case .cells(let grid, readsCanvas: true, _) = step.shape {
            if let previous { missing = tiles.map { Int32(previous.tilesWriting(grid.window($0)).count) } }
            uncut = tiles.map { Int32(grid.tilesReading(grid.cell($0)).count) }
        }
        return StepState(
            step: step, status: Array(repeating: .waiting, count: step.count), missing: missing, uncut: uncut)
    }

    private mutating func makeReady(_ tile: Tile, _ changes: inout [Change]) {
        active[tile.step - firstActive].status[tile.index] = .ready
        changes.append(.ready(tile))
    }

    private mutating func merge(_ tile: Tile, _ changes: inout [Change]) {
        let index = tile.step - firstActive
        active[index].status[tile.index] = .merged
        active[index].merged += 1
        changes.append(.merged(tile))
        guard let grid = active[index].grid, tile.step + 1 < steps else { return finishSteps(&changes) }
        if index + 1 == active.count {
            // A step that does not read cells waits for all of them.
            let next = active[index].successor ?? makeStep(tile.step + 1)
            active[index].successor = next
            guard case .cells(_, readsCanvas: true, waits: false) = next.shape else { return finishSteps(&changes) }
            active.append(makeState(next, after: grid))
        }
        guard let readers = active[index + 1].grid?.tilesReading(grid.cell(tile.index)) else {
            return finishSteps(&changes)
        }
        finishSteps(&changes)
        for reader in readers {
            let next = Tile(step: tile.step + 1, index: reader)
            active[next.step - firstActive].missing[reader] -= 1
            if active[next.step - firstActive].missing[reader] == 0 { makeReady(next, &changes) }
        }
    }

    private mutating func finishSteps(_ changes: inout [Change]) {
        while !active.isEmpty, active[0].merged == active[0].status.count {
            active.removeFirst()
            changes.append(.finished(step: firstActive))
            firstActive += 1
            begin(&changes)
        }
    }
}
