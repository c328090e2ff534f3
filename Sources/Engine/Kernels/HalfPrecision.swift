internal import CKernels

/// Single precision to half, rounded to nearest, ties to even, and back.
public enum HalfPrecision {
    /// What is too large becomes infinite.
    public static func narrow(_ values: Span<Float>, into halves: inout MutableSpan<UInt16>) {
        let count = values.count
        precondition(halves.count == count)
        values.withUnsafeBufferPointer { from in
            halves.withUnsafeMutableBufferPointer { to in
                guard let from = from.baseAddress, let to = to.baseAddress else { return }
                tf_rows_to_half(from, 0, to, 0, 1, count)
            }
        }
    }

    public static func widen(_ halves: Span<UInt16>, into values: inout MutableSpan<Float>) {
        let count = halves.count
        precondition(values.count == count)
        halves.withUnsafeBufferPointer { from in
            values.withUnsafeMutableBufferPointer { to in
                guard let from = from.baseAddress, let to = to.baseAddress else { return }
                tf_rows_from_half(from, 0, to, 0, 1, count)
            }
        }
    }
}
