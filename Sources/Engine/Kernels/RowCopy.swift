internal import CKernels

/// Copies of rectangles between row-major buffers.
public enum RowCopy {
    /// Copies `rows` rows of `count` values, `sourceStride` and `targetStride` values apart, from `sourceStart` and to
    /// `targetStart`.
    ///
    /// - Precondition: every row lies inside its buffer.
    public static func copy<Element: BitwiseCopyable>(
        from source: Span<Element>, start sourceStart: Int, stride sourceStride: Int,
        to target: inout MutableSpan<Element>, start targetStart: Int, stride targetStride: Int,
        rows: Int, count: Int
    ) {
        guard rows > 0, count > 0 else { return }
        precondition(
            sourceStart >= 0 && sourceStride >= 0 && sourceStart + (rows - 1) * sourceStride + count <= source.count)
        precondition(
            targetStart >= 0 && targetStride >= 0 && targetStart + (rows - 1) * targetStride + count <= target.count)
        source.withUnsafeBufferPointer { source in
            target.withUnsafeMutableBufferPointer { target in
                guard let from = source.baseAddress, let to = target.baseAddress else { return }
                let size = MemoryLayout<Element>.stride
                tf_copy_rows(
                    from + sourceStart, sourceStride * size, to + targetStart, targetStride * size, rows, count * size)
            }
        }
    }

    /// Copies `count` values.
    ///
    /// - Precondition: they lie inside their buffers.
    public static func copy<Element: BitwiseCopyable>(
        from source: Span<Element>, start sourceStart: Int = 0, to target: inout MutableSpan<Element>,
        at targetStart: Int = 0, count: Int
    ) {
        copy(
            from: source, start: sourceStart, stride: 0, to: &target, start: targetStart, stride: 0, rows: 1,
            count: count)
    }
}
