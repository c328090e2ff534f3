internal import CKernels

/// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1,
/// 2, 3" (SC 2011): a block of four 32-bit words as a pure function of a 128-bit counter and a 64-bit key.
public enum Philox4x32 {
    public static func block(counter: SIMD4<UInt32>, key: UInt64) -> SIMD4<UInt32> {
        var (a, b, c, d) = ([UInt32(0)], [UInt32(0)], [UInt32(0)], [UInt32(0)])
        fill(&a, &b, &c, &d, counter: counter, key: key)
        return SIMD4(a[0], b[0], c[0], d[0])
    }

    /// Blocks of counters that differ in their first word, which grows by one from block to block: the first words of
    /// all of them, the second, ...
    /// - Parameter kernels: which to use; all give the same.
    package static func fill(
        _ a: inout [UInt32], _ b: inout [UInt32], _ c: inout [UInt32], _ d: inout [UInt32], counter: SIMD4<UInt32>,
        key: UInt64,
        kernels: KernelSet = .best
    ) {
        let count = a.count
        precondition(b.count == count && c.count == count && d.count == count)
        tf_philox(kernels.isa, [counter.x, counter.y, counter.z, counter.w], key, count, &a, &b, &c, &d)
    }
}

/// Box and Muller (1958): two uniform words to two independent normals, sqrt(-2 ln u) (cos, sin)(angle), right to about
/// 1e-6 of the radius. The first word's 32 bits reach out to 6.7 standard deviations.
package enum BoxMuller {
    /// - Parameters:
    ///   - first, second: where in `normals` the cosines' and the sines' go, as many as there are words
    ///   - kernels: which to use; all give the same
    package static func fill(
        _ normals: inout MutableSpan<Float>, at first: Int, _ second: Int, radii: [UInt32], angles: [UInt32],
        kernels: KernelSet = .best
    ) {
        let count = radii.count
        precondition(angles.count == count && first >= 0 && first + count <= second && second + count <= normals.count)
        normals.withUnsafeMutableBufferPointer {
            guard let start = $0.baseAddress else { return }
            tf_box_muller(kernels.isa, radii, angles, count, start + first, start + second)
        }
    }
}
