/// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011):
/// a block of four 32-bit words as a pure function of a 128-bit counter and a 64-bit key.
public enum Philox4x32 {
    @inline(__always)
    public static func block(counter: SIMD4<UInt32>, key: UInt64) -> SIMD4<UInt32> {
        var (c0, c1, c2, c3) = (counter.x, counter.y, counter.z, counter.w)
        var (k0, k1) = (UInt32(truncatingIfNeeded: key), UInt32(truncatingIfNeeded: key >> 32))
        for _ in 0..<10 {
            let a = UInt64(c0) &* 0xd251_1f53
            let b = UInt64(c2) &* 0xcd9e_8d57
            c0 = UInt32(truncatingIfNeeded: b >> 32) ^ c1 ^ k0
            c1 = UInt32(truncatingIfNeeded: b)
            c2 = UInt32(truncatingIfNeeded: a >> 32) ^ c3 ^ k1
            c3 = UInt32(truncatingIfNeeded: a)
            k0 &+= 0x9e37_79b9
            k1 &+= 0xbb67_ae85
        }
        return SIMD4(c0, c1, c2, c3)
    }
}

/// What a job's noise is used for: each use is another, independent field of normals over the canvas.
public struct NoiseField: Sendable, Hashable {
    public enum Purpose: UInt8, Sendable {
        /// x_T, where sampling starts.
        case initial = 1
        /// The noise that a stochastic sampler adds at a step.
        case sampler = 2
        /// Where the cut lines of a step lie.
        case offset = 3
        /// What the low-resolution pixels are noised with to their noise level, over the pixels of the input; step 0.
        case lowResolution = 4
        /// What is drawn from the distribution that an autoencoder's encoder answers, over the latents; step 0.
        case posterior = 5
    }

    public var purpose: Purpose
    public var stage: UInt8
    /// The index of the sampler's loop; 0 for the initial noise.
    public var step: UInt16

    public init(_ purpose: Purpose, stage: UInt8 = 0, step: UInt16 = 0) {
        self.purpose = purpose
        self.stage = stage
        self.step = step
    }

    var word: UInt32 { UInt32(purpose.rawValue) << 24 | UInt32(stage) << 16 | UInt32(step) }
}

/// Standard normal noise as a function of place: any window of a canvas, made by any worker in any order, holds the values that the whole
/// canvas has there.
///
/// The four normals of a Philox block stand side by side in a row: counter = (x / 4, y, channel, field), key = the job's seed, lane x mod 4.
/// So no number of channels wastes any, and a window at most six columns of a row. Only additions, multiplications, divisions by powers
/// of two and square roots are used, each rounded by itself: the bits are the same on every processor.
public enum Noise {
    /// Fills `values` with the noise of `window`: height x width x channels.
    public static func fill(_ values: inout MutableSpan<Float>, window: Rect, channels: Int, seed: UInt64, field: NoiseField) {
        precondition(
            window.height >= 0 && window.width >= 0 && channels >= 0 && values.count == window.height * window.width * channels,
            "noise of \(window.height) x \(window.width) x \(channels) does not fill \(values.count) values")
        guard !values.isEmpty else { return }
        let firstBlock = window.x >> 2
        let blocks = (window.x &+ window.width &+ 3) >> 2 &- firstBlock
        var words = Blocks<UInt32>(repeating: 0, count: blocks)  // of one row of one channel
        var normals = Blocks<Float>(repeating: 0, count: blocks)
        for y in 0..<window.height {
            for channel in 0..<channels {
                let counter = SIMD4(
                    UInt32(truncatingIfNeeded: firstBlock), UInt32(truncatingIfNeeded: window.y &+ y),
                    UInt32(truncatingIfNeeded: channel), field.word)
                fill(&words.a, &words.b, &words.c, &words.d, counter: counter, key: seed)
                fill(&normals.a, &normals.b, radii: words.a, angles: words.b)
                fill(&normals.c, &normals.d, radii: words.c, angles: words.d)
                var target = y * window.width * channels + channel
                for x in window.x & 3..<(window.x & 3) + window.width {
                    values[target] = normals[x]
                    target += channels
                }
            }
        }
    }

    /// What a row of Philox blocks holds, each of its four places in an array of its own, so that loops over blocks run in vector registers.
    private struct Blocks<Element> {
        var a, b, c, d: [Element]

        init(repeating element: Element, count: Int) {
            a = Array(repeating: element, count: count)
            (b, c, d) = (a, a, a)
        }

        subscript(x: Int) -> Element {
            switch x & 3 {
            case 0: a[x >> 2]
            case 1: b[x >> 2]
            case 2: c[x >> 2]
            default: d[x >> 2]
            }
        }
    }

    private static func fill(
        _ a: inout [UInt32], _ b: inout [UInt32], _ c: inout [UInt32], _ d: inout [UInt32], counter: SIMD4<UInt32>, key: UInt64
    ) {
        let count = a.count
        var a = a.mutableSpan, b = b.mutableSpan, c = c.mutableSpan, d = d.mutableSpan
        precondition(b.count == count && c.count == count && d.count == count)
        for block in 0..<count {
            var counter = counter
            counter.x &+= UInt32(truncatingIfNeeded: block)
            let four = Philox4x32.block(counter: counter, key: key)
            a[block] = four.x
            b[block] = four.y
            c[block] = four.z
            d[block] = four.w
        }
    }

    private static func fill(_ cosines: inout [Float], _ sines: inout [Float], radii: [UInt32], angles: [UInt32]) {
        let count = radii.count
        var cosines = cosines.mutableSpan
        var sines = sines.mutableSpan
        let (radii, angles) = (radii.span, angles.span)
        precondition(cosines.count == count && sines.count == count && angles.count == count)
        for block in 0..<count {
            let pair = pair(radii[block], angles[block])
            cosines[block] = pair.0
            sines[block] = pair.1
        }
    }

    /// Box and Muller (1958): two uniform words to two independent normals, sqrt(-2 ln u) (cos, sin)(angle). The first word's 32 bits reach out to
    /// 6.7 standard deviations.
    @inline(__always)
    package static func pair(_ radiusBits: UInt32, _ angleBits: UInt32) -> (Float, Float) {
        // Both halves are exact as floats; one rounding in the sum gives u in (0, 1].
        let uniform = float(radiusBits >> 16) * 0x1p-16 + (float(radiusBits & 0xffff) + 0.5) * 0x1p-32
        let radius = squareRoot(-2 * naturalLogarithm(uniform))
        let (sine, cosine) = sineAndCosine(angleBits)
        return (radius * cosine, radius * sine)
    }

    // The library's functions would stop the compiler from working on several elements at once; these are arithmetic without a branch.

    /// Integers below 2^23, exactly: they become the fraction of a float between 2^23 and 2^24.
    @inline(__always)
    private static func float(_ x: UInt32) -> Float {
        Float(bitPattern: x | 0x4b00_0000) - 0x1p23
    }

    /// sqrt x of a number in 0...100, to about 2e-7 relative: Newton's iteration for 1 / sqrt x.
    @inline(__always)
    package static func squareRoot(_ x: Float) -> Float {
        let half = 0.5 * x
        var y = Float(bitPattern: 0x5f37_59df &- (x.bitPattern & 0x7fff_ffff) &>> 1)
        y *= 1.5 - half * y * y
        y *= 1.5 - half * y * y
        y *= 1.5 - half * y * y
        return x * y
    }

    /// ln x of a positive normal number, to about 1e-7 relative. Polynomial of Cephes `logf` (Moshier 1989) on [sqrt(1/2), sqrt(2)).
    @inline(__always)
    package static func naturalLogarithm(_ x: Float) -> Float {
        let exponent = Int32(bitPattern: x.bitPattern &- 0x3f35_04f3) &>> 23
        let f = Float(bitPattern: x.bitPattern &- UInt32(bitPattern: exponent &<< 23)) - 1
        let e = float(UInt32(bitPattern: exponent &+ 64)) - 64
        let square = f * f
        var p = f * 7.037_683_629_2e-2 - 1.151_461_031_0e-1
        p = p * f + 1.167_699_874_0e-1
        p = p * f - 1.242_014_084_6e-1
        p = p * f + 1.424_932_278_7e-1
        p = p * f - 1.666_805_766_5e-1
        p = p * f + 2.000_071_476_5e-1
        p = p * f - 2.499_999_399_3e-1
        p = p * f + 3.333_333_117_4e-1
        // ln 2 in two parts, the first of few bits, so that e times it is exact.
        return f + (p * f * square - 0.5 * square + e * -2.121_944_4e-4) + e * 0.693_359_375
    }

    /// sin and cos of 2 pi bits / 2^32: two bits choose the quadrant, the next 23 the place within it, so no argument needs reducing. Polynomials of
    /// Cephes `sinf` and `cosf` on [-pi/4, pi/4].
    @inline(__always)
    package static func sineAndCosine(_ bits: UInt32) -> (sine: Float, cosine: Float) {
        let turned = bits &+ 0x2000_0000  // quadrants centred on the axes
        let quadrant = turned &>> 30
        let a = (float((turned & 0x3fff_ffff) &>> 7) + (0.5 - 0x1p22)) * (.pi * 0x1p-24)
        let square = a * a
        let s = ((square * -1.951_529_589_1e-4 + 8.332_160_873_6e-3) * square - 1.666_665_461_1e-1) * square * a + a
        let c = ((square * 2.443_315_711_809_948e-5 - 1.388_731_625_493_765e-3) * square + 4.166_664_568_298_827e-2) * square * square
            - 0.5 * square + 1
        let odd = quadrant & 1 == 1
        return (
            sine: Float(bitPattern: (odd ? c : s).bitPattern ^ (quadrant & 2) &<< 30),
            cosine: Float(bitPattern: (odd ? s : c).bitPattern ^ ((quadrant &+ 1) & 2) &<< 30)
        )
    }
}
