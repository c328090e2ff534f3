internal import CKernels

/// The loops over bytes of writing PNG files. All kernels give the same.
package enum PNGKernels {
    /// A code of deflate, its first bit lowest.
    typealias Code = tf_code

    /// The most bits of a literal's code, and of a run's with its extra bits and its distance.
    static let longestLiteral = 14, longestRun = 56

    /// The average filter (PNG specification, 9.2): each byte less half the sum of those to its left and above, rounded
    /// down.
    ///
    /// - Parameters:
    ///   - row: holds `count` bytes from `start` on, and a pixel before them
    ///   - above: likewise, of the row above
    ///   - filtered: receives them from `target` on
    package static func filter(
        _ row: Span<UInt8>, above: Span<UInt8>, start: Int, count: Int, pixelBytes: Int,
        into filtered: inout MutableSpan<UInt8>, at target: Int,
        kernels: KernelSet = .best
    ) {
        precondition(
            count >= 0 && pixelBytes > 0 && start >= pixelBytes && row.count - start >= count
                && above.count - start >= count)
        precondition(target >= 0 && filtered.count - target >= count)
        row.withUnsafeBufferPointer { row in
            above.withUnsafeBufferPointer { above in
                filtered.withUnsafeMutableBufferPointer { filtered in
                    guard count > 0, let row = row.baseAddress, let above = above.baseAddress,
                        let filtered = filtered.baseAddress
                    else { return }
                    tf_png_filter(
                        kernels.isa, row + start, row + start - pixelBytes, above + start, count, filtered + target)
                }
            }
        }
    }

    /// Adler-32 (RFC 1950).
    /// - Parameter sum: 1, or that of the bytes before
    package static func adler32(_ sum: UInt32, _ bytes: Span<UInt8>, kernels: KernelSet = .best) -> UInt32 {
        bytes.withUnsafeBufferPointer { tf_adler32(kernels.isa, sum, $0.baseAddress, $0.count) }
    }

    /// How often each byte and each run occurs, as `Deflate` writes them, in one of `step` KiB.
    /// - Returns: literals by their byte, runs by their words.
    static func counts(_ bytes: Span<UInt8>, step: Int) -> (literals: [UInt32], runs: [UInt32]) {
        precondition(step > 0)
        var (literals, runs) = ([UInt32](repeating: 0, count: 256), [UInt32](repeating: 0, count: 33))
        bytes.withUnsafeBufferPointer { tf_deflate_counts($0.baseAddress, $0.count, step, &literals, &runs) }
        return (literals, runs)
    }

    /// The most bytes that `encode` touches.
    static func encodedBound(_ count: Int) -> Int { 2 * count + 16 }

    /// Writes the codes of all bytes.
    ///
    /// - Parameters:
    ///   - literals: by byte, of at most `longestLiteral` bits
    ///   - runs: by words, 1...32, of at most `longestRun` bits
    ///   - bits: `count` of them, fewer than 8, have not filled a byte yet
    ///   - output: at least `encodedBound(bytes.count)` long from `start`
    /// - Returns: the end of what was written
    static func encode(
        _ bytes: Span<UInt8>, literals: [Code], runs: [Code], bits: inout UInt64, count: inout Int,
        into output: inout MutableSpan<UInt8>, at start: Int,
        kernels: KernelSet = .best
    ) -> Int {
        precondition(
            literals.count == 256 && literals.allSatisfy { $0.count <= longestLiteral && $0.bits >> $0.count == 0 })
        precondition(runs.count == 33 && runs.allSatisfy { $0.count <= longestRun && $0.bits >> $0.count == 0 })
        precondition(0..<8 ~= count && start >= 0 && output.count - start >= encodedBound(bytes.count))
        var bitCount = UInt32(count)
        let written = bytes.withUnsafeBufferPointer { bytes in
            output.withUnsafeMutableBufferPointer { output in
                guard let source = bytes.baseAddress, let target = output.baseAddress else { return 0 }
                return tf_deflate_encode(
                    kernels.isa, source, bytes.count, literals, runs, &bits, &bitCount, target + start)
            }
        }
        count = Int(bitCount)
        return start + written
    }

    /// Means of 2x2 pixels, halves upwards; the last of an odd width counts twice.
    ///
    /// - Parameters:
    ///   - above: a row of `width` pixels of 1 or 3 channels
    ///   - below: the next
    ///   - half: receives `(width + 1) / 2` pixels
    package static func halve(
        _ above: Span<UInt8>, _ below: Span<UInt8>, width: Int, channels: Int, into half: inout MutableSpan<UInt8>,
        kernels: KernelSet = .best
    ) {
        precondition(channels == 1 || channels == 3)
        precondition(
            width > 0 && above.count == width * channels && below.count == above.count
                && half.count == (width + 1) / 2 * channels)
        above.withUnsafeBufferPointer { above in
            below.withUnsafeBufferPointer { below in
                half.withUnsafeMutableBufferPointer { half in
                    guard let above = above.baseAddress, let below = below.baseAddress, let half = half.baseAddress
                    else { return }
                    tf_halve(kernels.isa, above, below, width, Int32(channels), half)
                }
            }
        }
    }
}
