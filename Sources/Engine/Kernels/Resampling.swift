internal import CKernels

/// For each pixel of a widened row the four neighbouring pixels that it depends on, and their weights.
package struct RowTaps: Sendable {
    private let starts: [Int32]
    private let weights: [SIMD4<Float>]
    /// The pixels that are read.
    package let sources: Range<Int>

    /// Values beyond the pixels that are read and written, too.
    package static let overhang = 3

    /// - Parameter starts: for each pixel the first of its four; not empty
    package init(starts: [Int], weights: [SIMD4<Float>]) {
        precondition(!starts.isEmpty && weights.count == starts.count)
        let sources = (starts.min() ?? 0)..<(starts.max() ?? 0) + 4
        self.starts = starts.map { Int32($0 - sources.lowerBound) }
        self.weights = weights
        self.sources = sources
    }

    /// Pixels of the widened row.
    package var count: Int { starts.count }

    /// Computes the widened row: each value is the sum of four products, in the order of the pixels.
    ///
    /// - Parameters:
    ///   - row: the pixels of `sources`, and `overhang`
    ///   - wide: receives `count` pixels from `start` on; what the `overhang` after them holds is lost
    package func widen(_ row: Span<Float>, channels: Int, into wide: inout MutableSpan<Float>, at start: Int = 0) {
        precondition(channels > 0 && row.count >= sources.count * channels + Self.overhang)
        precondition(start >= 0 && count * channels + Self.overhang <= wide.count - start)
        row.withUnsafeBufferPointer { row in
            weights.withUnsafeBytes { weights in
                wide.withUnsafeMutableBufferPointer { wide in
                    guard let from = row.baseAddress, let to = wide.baseAddress, let weights = weights.baseAddress
                    else { return }
                    tf_widen_row(from, channels, starts, weights.assumingMemoryBound(to: Float.self), count, to + start)
                }
            }
        }
    }
}

package enum WeightedRows {
    /// output[target + i] = weights[0] * values[starts[0] + i] + ... + weights[3] * values[starts[3] + i] for `count`
    /// values, summed in this order.
    /// - Parameter kernels: which to use; all give the same
    package static func sum(
        _ values: Span<Float>, from starts: SIMD4<Int>, weights: SIMD4<Float>, count: Int,
        into output: inout MutableSpan<Float>, at target: Int = 0,
        kernels: KernelSet = .best
    ) {
        precondition(
            count >= 0 && starts.min() >= 0 && starts.max() <= values.count - count && target >= 0
                && target <= output.count - count)
        values.withUnsafeBufferPointer { values in
            output.withUnsafeMutableBufferPointer { output in
                guard let from = values.baseAddress, let to = output.baseAddress else { return }
                tf_weigh_rows(
                    kernels.isa, [from + starts[0], from + starts[1], from + starts[2], from + starts[3]],
                    [weights[0], weights[1], weights[2], weights[3]], count, to + target)
            }
        }
    }
}

package enum Quantization {
    /// Clamps values to [0, 1] and rounds them to the nearest step, halves upwards; NaN becomes 0.
    ///
    /// - Parameters:
    ///   - bits: of a sample, 8 or 16
    ///   - samples: receives as many; those of 16 bits have their high byte first
    ///   - kernels: which to use; all give the same
    package static func quantize(
        _ values: Span<Float>, bits: Int, into samples: inout MutableSpan<UInt8>, kernels: KernelSet = .best
    ) {
        precondition((bits == 8 || bits == 16) && samples.count == values.count * (bits / 8))
        values.withUnsafeBufferPointer { values in
            samples.withUnsafeMutableBufferPointer { samples in
                guard let from = values.baseAddress, let to = samples.baseAddress else { return }
                tf_quantize(kernels.isa, from, values.count, Int32(bits), to)
            }
        }
    }
}
