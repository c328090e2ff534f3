/// One axis of a step's tile grid: how many tiles, what each reads and what each writes.
///
/// A tile grid is the product of two axes, so that everything a scheduler asks of it (which cells does a window touch,
/// which windows read a cell) is a pair of index ranges found by arithmetic on short arrays.
public struct TileAxis: Sendable, Hashable {
    /// The part that each tile reads: ranges of equal length inside 0..<length, ascending.
    public let windows: [Range<Int>]
    /// The part that each tile writes, inside its window. In a covering axis the cells are disjoint, ascending and
    /// cover 0..<length.
    public let cells: [Range<Int>]

    public var count: Int { windows.count }

    init(windows: [Range<Int>], cells: [Range<Int>]) {
        self.windows = windows
        self.cells = cells
    }

    /// The most cells that a covering axis needs: `tile` wide windows whose inner borders lose `halo` on each side.
    ///
    /// The two outermost cells have no neighbour on their outer side and need no halo there, hence `length - 2 * halo`.
    static func leastCount(length: Int, tile: Int, halo: Int) -> Int {
        if length <= tile { return 1 }
        let stride = tile - 2 * halo
        return (length - 2 * halo + stride - 1) / stride
    }

    /// How far the cut lines can move towards the start before one more tile is needed.
    static func slack(length: Int, tile: Int, halo: Int) -> Int {
        if length <= tile { return 0 }
        let stride = tile - 2 * halo
        return leastCount(length: length, tile: tile, halo: halo) * stride + 2 * halo - length
    }

    /// Disjoint cells that cover the axis, cut at lines moved towards the start by `shift`; each window is its cell and
    /// a halo, slid inwards at the edges so that it keeps its full size.
    ///
    /// - Parameter shift: 0 up to `tile - 2 * halo`, exclusive. A grid of n tiles costs at most n + 1.
    static func covering(length: Int, tile: Int, halo: Int, shift: Int) -> TileAxis {
        if length <= tile { return TileAxis(windows: [0..<length], cells: [0..<length]) }
        let stride = tile - 2 * halo
        var cells: [Range<Int>] = []
        var start = 0
        var end = halo + stride - shift
        while start < length {
            // The last cell may reach to the edge when its window, which needs no halo there, still holds it.
            if length - start + (start == 0 ? 0 : halo) <= tile { end = length }
            end = min(end, length)
            cells.append(start..<end)
            (start, end) = (end, end + stride)
        }
        let windows = cells.map { cell in
            let first = min(max(cell.lowerBound - halo, 0), length - tile)
            return first..<first + tile
        }
        return TileAxis(windows: windows, cells: cells)
    }

    /// Windows that overlap by at least `overlap`, evenly enough spread: at every `tile - overlap`, the last one slid
    /// inwards. Every tile writes its whole window; what overlaps is blended.
    static func overlapping(length: Int, tile: Int, overlap: Int) -> TileAxis {
        if length <= tile { return TileAxis(windows: [0..<length], cells: [0..<length]) }
        let stride = tile - overlap
        let count = (length - tile + stride - 1) / stride + 1
        let windows = (0..<count).map { index in
            let first = min(index * stride, length - tile)
            return first..<first + tile
        }
        return TileAxis(windows: windows, cells: windows)
    }

    /// The published FSTD: tiles without overlap moved towards the end by `offset` and clamped at the far edge; the
    /// strip `0..<offset` has no tile.
    static func published(length: Int, tile: Int, offset: Int) -> TileAxis {
        if length <= tile { return TileAxis(windows: [0..<length], cells: [0..<length]) }
        let count = (length + tile - 1) / tile
        let windows = (0..<count).map { index in
            let first = min(index * tile + offset, length - tile)
            return first..<first + tile
        }
        return TileAxis(windows: windows, cells: windows)
    }

    /// Indices of the cells that share at least one pixel with `range`.
    public func cells(touching range: Range<Int>) -> Range<Int> { Self.indices(of: cells, touching: range) }

    /// Indices of the windows that share at least one pixel with `range`.
    public func windows(touching range: Range<Int>) -> Range<Int> { Self.indices(of: windows, touching: range) }

    /// Both bounds ascend with the index, so the indices that touch a range are consecutive.
    private static func indices(of spans: [Range<Int>], touching range: Range<Int>) -> Range<Int> {
        let first = partition(spans) { $0.upperBound > range.lowerBound }
        let last = partition(spans) { $0.lowerBound >= range.upperBound }
        return first..<max(first, last)
    }

    /// The first index whose span satisfies `predicate`, which once true stays true.
    private static func partition(_ spans: [Range<Int>], where predicate: (Range<Int>) -> Bool) -> Int {
        var (low, high) = (0, spans.count)
        while low < high {
            let middle = (low + high) / 2
            if predicate(spans[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
