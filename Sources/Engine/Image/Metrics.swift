import Glibc

/// How near two images are, and how sharp one is.
///
/// Each function needs images of one size (a precondition); alpha plays no part.
public enum ImageMetrics {
    /// Peak signal-to-noise ratio in dB over all RGB values, both images rounded to 8 bits as their files are:
    /// 10 log10(255^2 / mean squared difference). Infinite for equal images.
    public static func psnr(_ a: RGBImage, _ b: RGBImage) -> Double {
        checkSizes(a, b)
        var total = 0.0
        for i in 0..<a.pixels.count {
            let difference = quantized(a.pixels[i], steps: 255) - quantized(b.pixels[i], steps: 255)
            total += Double(difference * difference)
        }
        return 10 * log10(255 * 255 * Double(a.pixels.count) / total)
    }

    /// Structural similarity (Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
    /// 2004), the mean of the three channels, as scikit-image's `structural_similarity` with `gaussian_weights=True,
    /// sigma=1.5, use_sample_covariance=False, data_range=1`: an 11x11 Gaussian window, windows wholly inside the
    /// image, K1 = 0.01, K2 = 0.03. Nil for images smaller than the window.
    public static func ssim(_ a: RGBImage, _ b: RGBImage) -> Double? {
        checkSizes(a, b)
        let (width, height, radius) = (a.width, a.height, 5)
        guard width > 2 * radius, height > 2 * radius else { return nil }
        let bell = (-radius...radius).map { exp(-0.5 * Double($0 * $0) / (1.5 * 1.5)) }
        let weights = bell.map { $0 / bell.reduce(0, +) }
        let (c1, c2) = (0.01 * 0.01, 0.03 * 0.03)

        // One row of windows at a time: the moments summed down the window's eleven rows, then across its columns.
        var total = 0.0
        for channel in 0..<3 {
            for top in 0..<height - 2 * radius {
                var columns = [PairSums](repeating: PairSums(), count: width)
                for (k, weight) in weights.enumerated() {
                    for x in 0..<width {
                        let i = ((top + k) * width + x) * 3 + channel
                        columns[x].add(weight, a: Double(a.pixels[i]), b: Double(b.pixels[i]))
                    }
                }
                for left in 0..<width - 2 * radius {
                    var m = PairSums()
                    for (k, weight) in weights.enumerated() { m.add(weight, columns[left + k]) }
                    let (varianceA, varianceB) = (m.aa - m.a * m.a, m.bb - m.b * m.b)
                    let covariance = m.ab - m.a * m.b
                    total +=
                        (2 * m.a * m.b + c1) * (2 * covariance + c2)
                        / ((m.a * m.a + m.b * m.b + c1) * (varianceA + varianceB + c2))
                }
            }
        }
        return total / Double(3 * (width - 2 * radius) * (height - 2 * radius))
    }

    /// The mean square of that part of the luma (Rec. 601, in [0, 1]) whose spatial frequency is above half of Nyquist,
    /// that is, a quarter of a cycle per pixel in any direction, in the largest centred crop with power-of-two sides
    /// (at most 2048) under a Hann window.
    ///
    /// The ratio of two images of one subject says which has more fine detail (or noise).
    public static func powerAboveHalfNyquist(_ image: RGBImage) -> Double {
        let rows = powerOfTwo(notAbove: min(image.height, 2048))
        let columns = powerOfTwo(notAbove: min(image.width, 2048))
        guard rows >= 4, columns >= 4 else { return 0 }
        let (top, left) = ((image.height - rows) / 2, (image.width - columns) / 2)
        let (rowWindow, columnWindow) = (hann(rows), hann(columns))

        var plane = [Double](repeating: 0, count: rows * columns)
        for y in 0..<rows {
            for x in 0..<columns {
                let i = ((top + y) * image.width + left + x) * 3
                let (r, g, b) = (image.pixels[i], image.pixels[i + 1], image.pixels[i + 2])
                plane[y * columns + x] = 0.299 * Double(r) + 0.587 * Double(g) + 0.114 * Double(b)
            }
        }
        let mean = plane.reduce(0, +) / Double(plane.count)
        var windowPower = 0.0
        for y in 0..<rows {
            for x in 0..<columns {
                let weight = rowWindow[y] * columnWindow[x]
                windowPower += weight * weight
                plane[y * columns + x] = (plane[y * columns + x] - mean) * weight
            }
        }

        let spectrum = (0..<rows).map { y in
            let row = Array(plane[y * columns..<(y + 1) * columns])
            return fourier(Complex(real: row, imaginary: .init(repeating: 0, count: columns)))
        }
        var power = 0.0
        for x in 0..<columns {
            let column = fourier(
                Complex(real: spectrum.map { $0.real[x] }, imaginary: spectrum.map { $0.imaginary[x] }))
            let horizontal = Double(min(x, columns - x)) / Double(columns)
            for y in 0..<rows {
                let vertical = Double(min(y, rows - y)) / Double(rows)
                guard horizontal * horizontal + vertical * vertical > 0.25 * 0.25 else { continue }
                power += column.real[y] * column.real[y] + column.imaginary[y] * column.imaginary[y]
            }
        }
        return power / Double(rows * columns) / windowPower  // Parseval
    }

    private static func checkSizes(_ a: RGBImage, _ b: RGBImage) {
        precondition(a.width == b.width && a.height == b.height, "images of one size")
    }
}

/// Weighted sums of two signals, their squares and their product.
private struct PairSums {
    var a = 0.0, b = 0.0, aa = 0.0, bb = 0.0, ab = 0.0

    @inline(__always)
    mutating func add(_ weight: Double, a: Double, b: Double) {
        self.a += weight * a
        self.b += weight * b
        aa += weight * a * a
        bb += weight * b * b
        ab += weight * a * b
    }

    @inline(__always)
    mutating func add(_ weight: Double, _ other: PairSums) {
        a += weight * other.a
        b += weight * other.b
        aa += weight * other.aa
        bb += weight * other.bb
        ab += weight * other.ab
    }
}

private struct Complex {
    var real: [Double]
    var imaginary: [Double]
}

/// The discrete Fourier transform of a power-of-two length (Cooley and Tukey 1965, decimation in time).
private func fourier(_ input: Complex) -> Complex {
    let count = input.real.count
    var output = input
    guard count > 1 else { return output }
    let bits = count.trailingZeroBitCount
    for i in 0..<count {
        var reversed = 0
        for bit in 0..<bits where i & 1 << bit != 0 { reversed |= 1 << (bits - 1 - bit) }
        output.real[reversed] = input.real[i]
        output.imaginary[reversed] = input.imaginary[i]
    }
    let angles = (0..<count / 2).map { -2 * Double.pi * Double($0) / Double(count) }
    let (cosines, sines) = (angles.map { cos($0) }, angles.map { sin($0) })
    var half = 1
    while half < count {
        for start in stride(from: 0, to: count, by: 2 * half) {
            for k in 0..<half {
                let (low, high) = (start + k, start + k + half)
                let (c, s) = (cosines[k * (count / (2 * half))], sines[k * (count / (2 * half))])
                let real = output.real[high] * c - output.imaginary[high] * s
                let imaginary = output.real[high] * s + output.imaginary[high] * c
                output.real[high] = output.real[low] - real
                output.imaginary[high] = output.imaginary[low] - imaginary
                output.real[low] += real
                output.imaginary[low] += imaginary
            }
        }
        half *= 2
    }
    return output
}

private func powerOfTwo(notAbove limit: Int) -> Int {
    limit < 1 ? 0 : 1 << (Int.bitWidth - 1 - limit.leadingZeroBitCount)
}

private func hann(_ count: Int) -> [Double] {
    (0..<count).map { 0.5 - 0.5 * cos(2 * Double.pi * (Double($0) + 0.5) / Double(count)) }
}
