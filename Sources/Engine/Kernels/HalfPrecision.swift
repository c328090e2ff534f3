internal import CKernels

/// Single precision to half, rounded to nearest, ties to even, and back.
public enum HalfPrecision {
    /// Rounds to half precision; values that are too large become infinite.
    /// - Parameter start: where in `halves` the first goes
    public static func narrow(_ values: Span<Float>, into halves: inout MutableSpan<UInt16>, at start: Int = 0) {
        let count = values.count
        precondition(start >= 0 && count <= halves.count - start)
        values.withUnsafeBufferPointer { from in
            halves.withUnsafeMutableBufferPointer { to in
                guard let from = from.baseAddress, let to = to.baseAddress else { return }
                tf_rows_to_half(from, 0, to + start, 0, 1, count)
            }
        }
    }

    /// Fills `values` with those that begin at `start`.
    public static func widen(_ halves: Span<UInt16>, from start: Int = 0, into values: inout MutableSpan<Float>) {
        let count = values.count
        precondition(start >= 0 && count <= halves.count - start)
        halves.withUnsafeBufferPointer { from in
            values.withUnsafeMutableBufferPointer { to in
                guard let from = from.baseAddress, let to = to.baseAddress else { return }
                tf_rows_from_half(from + start, 0, to, 0, 1, count)
            }
        }
    }
}
