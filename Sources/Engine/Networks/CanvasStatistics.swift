/// Statistics for the group norms of a network, where a canvas is worked on in tiles: for each norm in the
/// order of evaluation and each of its groups the sum, the sum of squares and the number of the values. Those of parts
/// add up to those of the whole, which means of variances would not.
public struct CanvasStatistics: Sendable, Hashable {
    /// Groups of every norm.
    public let groups: Int
    /// The norms that are covered, counted in the order of evaluation.
    public let norms: Range<Int>
    /// For each norm, for each group: sum, sum of squares, count. As it travels.
    public private(set) var values: [Double]

    /// - Throws: `ModelError.wrongStatistics` if the values are not as many as that, not finite, or counts not above 0.
    public init(groups: Int, norms: Range<Int>, values: [Double]) throws {
        guard groups > 0, norms.lowerBound >= 0, elementCount([norms.count, groups, 3]) == values.count else {
            throw ModelError.wrongStatistics(
                "\(values.count) values are not those of \(norms.count) norms of \(groups) groups")
        }
        guard values.allSatisfy(\.isFinite), stride(from: 2, to: values.count, by: 3).allSatisfy({ values[$0] > 0 })
        else {
            throw ModelError.wrongStatistics(
                "a sum is not finite, as where weights are damaged or overflow, or a count not above 0")
        }
        (self.groups, self.norms, self.values) = (groups, norms, values)
    }

    /// Adds those of another part. Whoever adds many does it in a fixed order, so that the same bits result.
    /// - Throws: `ModelError.wrongStatistics` if they are of other norms.
    public mutating func add(_ other: CanvasStatistics) throws {
        guard other.groups == groups, other.norms == norms else {
            throw ModelError.wrongStatistics("those of norms \(other.norms) cannot be added to those of norms \(norms)")
        }
        for i in values.indices { values[i] += other.values[i] }
    }

    /// Appends those of the norms that follow.
    /// - Throws: `ModelError.wrongStatistics` if they are of others.
    public mutating func append(_ next: CanvasStatistics) throws {
        guard next.groups == groups, next.norms.lowerBound == norms.upperBound else {
            throw ModelError.wrongStatistics("those of norms \(next.norms) do not follow those of norms \(norms)")
        }
        self = try CanvasStatistics(
            groups: groups, norms: norms.lowerBound..<next.norms.upperBound, values: values + next.values)
    }

    /// Those of the norms after the first `count`; nil if there are none.
    func dropFirst(_ count: Int) throws -> CanvasStatistics? {
        guard count < norms.count else { return nil }
        return try CanvasStatistics(
            groups: groups, norms: norms.lowerBound + count..<norms.upperBound,
            values: Array(values.dropFirst(count * groups * 3)))
    }

    /// The sums of a norm, nil if it is not covered.
    func sums(of norm: Int) -> [GroupSums]? {
        guard norms.contains(norm) else { return nil }
        let start = (norm - norms.lowerBound) * groups * 3
        return stride(from: start, to: start + groups * 3, by: 3).map {
            GroupSums(sum: values[$0], squares: values[$0 + 1], count: values[$0 + 2])
        }
    }
}

/// One call of a network on a tile: its group norms by given statistics, by the tile's own where none are given, and
/// what the tile adds to the canvas's statistics.
final class NormPass {
    /// The wanted sums are complete: the layers that follow need not run.
    struct Complete: Error {}

    private let given: CanvasStatistics?
    private let wanted: (norms: Range<Int>, cell: Rect, height: Int, width: Int)?
    private var index: Int
    private(set) var values: [Double] = []

    /// - Parameters:
    ///   - start: the number of the first norm that the call comes to
    ///   - wanted: which norms' inputs to sum up within `cell`, which lies in an input of the call of `height` x
    ///     `width`
    init(
        given: CanvasStatistics?, start: Int = 0,
        wanted: (norms: Range<Int>, cell: Rect, height: Int, width: Int)? = nil
    ) {
        (self.given, index, self.wanted) = (given, start, wanted)
    }

    /// Scale and shift of the next norm.
    /// - Throws: `Complete` after the last norm that is wanted.
    func scaleShift(_ norm: GroupNorm, _ x: Activation, workspace: Workspace) throws -> ScaleShift {
        defer { index += 1 }
        if let wanted, wanted.norms.contains(index) {
            // The same place at the resolution of this layer.
            func scaled(_ start: Int, _ end: Int, from: Int, to: Int) -> Range<Int> {
                start * to / from..<end * to / from
            }
            let rows = scaled(wanted.cell.y, wanted.cell.maxY, from: wanted.height, to: x.height)
            let columns = scaled(wanted.cell.x, wanted.cell.maxX, from: wanted.width, to: x.width)
            let isWhole = rows.count == x.height && columns.count == x.width
            let sums =
                isWhole
                ? norm.sums(of: x)
                : norm.sums(
                    of: x, in: Rect(y: rows.lowerBound, x: columns.lowerBound, height: rows.count, width: columns.count)
                )
            values += sums.flatMap { [$0.sum, $0.squares, $0.count] }
            if index == wanted.norms.upperBound - 1 { throw Complete() }
        }
        return norm.scaleShift(by: given?.sums(of: index) ?? norm.sums(of: x), workspace: workspace)
    }
}
