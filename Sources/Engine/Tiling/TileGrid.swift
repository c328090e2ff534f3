/// How one step cuts the canvas: the product of a vertical and a horizontal axis.
///
/// Tiles are numbered row by row.
public struct TileGrid: Sendable, Hashable {
    public let rows: TileAxis
    public let columns: TileAxis

    public init(rows: TileAxis, columns: TileAxis) {
        self.rows = rows
        self.columns = columns
    }

    public var count: Int { rows.count * columns.count }

    /// The part that a tile reads: full size, inside the canvas.
    public func window(_ tile: Int) -> Rect {
        Rect(rows: rows.windows[tile / columns.count], columns: columns.windows[tile % columns.count])
    }

    /// The part that a tile writes, inside its window.
    public func cell(_ tile: Int) -> Rect {
        Rect(rows: rows.cells[tile / columns.count], columns: columns.cells[tile % columns.count])
    }

    /// The tiles whose cells share a pixel with `rect`.
    public func tilesWriting(_ rect: Rect) -> TileRange {
        TileRange(
            rows: rows.cells(touching: rect.y..<rect.maxY), columns: columns.cells(touching: rect.x..<rect.maxX),
            stride: columns.count)
    }

    /// The tiles whose windows share a pixel with `rect`.
    public func tilesReading(_ rect: Rect) -> TileRange {
        TileRange(
            rows: rows.windows(touching: rect.y..<rect.maxY), columns: columns.windows(touching: rect.x..<rect.maxX),
            stride: columns.count)
    }
}

/// The tiles of a rectangular part of a grid, as a sequence of tile numbers in row order.
public struct TileRange: Sequence, Sendable {
    public let rows: Range<Int>
    public let columns: Range<Int>
    let stride: Int

    public var count: Int { rows.count * columns.count }

    public func makeIterator() -> Iterator { Iterator(range: self, row: rows.lowerBound, column: columns.lowerBound) }

    public struct Iterator: IteratorProtocol {
        let range: TileRange
        var row: Int
        var column: Int

        public mutating func next() -> Int? {
            guard row < range.rows.upperBound, column < range.columns.upperBound else { return nil }
            defer {
                column += 1
                if column == range.columns.upperBound { (row, column) = (row + 1, range.columns.lowerBound) }
            }
            return row * range.stride + column
        }
    }
}

extension Rect {
    init(rows: Range<Int>, columns: Range<Int>) {
        self.init(y: rows.lowerBound, x: columns.lowerBound, height: rows.count, width: columns.count)
    }
}
