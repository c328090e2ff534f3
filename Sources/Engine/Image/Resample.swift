/// A fault of a request to resample; sizes may come from another machine.
public enum ResampleError: Error, Equatable, CustomStringConvertible {
    case invalidSizes(input: [Int], output: [Int])
    /// The window lies too far outside the image.
    case invalidWindow(Rect)
    case cropTooSmall(crop: Rect, needed: Rect)
    case wrongCount(what: String, got: Int, expected: Int)

    public var description: String {
        switch self {
        case .invalidSizes(let input, let output):
            "cannot enlarge \(input) to \(output): each side must have 1 to 2^30 pixels and must not shrink"
        case .invalidWindow(let window):
            "cannot enlarge window \(window): its sides must be positive and its position within 2^30 of the image"
        case .cropTooSmall(let crop, let needed):
            "cannot enlarge from crop \(crop): \(needed) is needed"
        case .wrongCount(let what, let got, let expected):
            "cannot enlarge: \(what) has \(got) values instead of \(expected)"
        }
    }
}

/// Cubic convolution with a = -1/2 (R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981,
/// equation 15), the kernel of Pillow's BICUBIC.
private func cubic(_ distance: Double) -> Double {
    let a = -0.5
    let x = abs(distance)
    if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
    if x < 2 { return (((x - 5) * x + 8) * x - 4) * a }
    return 0
}

/// Upsamples parts of an image bicubically, each part with the bits that the whole would give it.
///
/// Pixel centres lie at half integers: output pixel o stands at (o + 1/2) * input / output - 1/2 of the input. The
/// input goes on beyond its edges as its mirror image with the edge pixel repeated (d c b a | a b c d), and so does the
/// output: a window may lie partly or wholly outside, and a pixel outside has the bits of its mirror image inside.
///
/// Away from the edges (two input pixels) the values are Pillow's `resize(..., BICUBIC)`, which cuts its kernel off at
/// the edges instead.
public struct BicubicUpsampler: Sendable, Hashable {
    public let inputHeight, inputWidth: Int
    public let outputHeight, outputWidth: Int

    /// - Throws: `ResampleError` when a side is not in 1...2^30 or the output is smaller than the input.
    public init(inputHeight: Int, inputWidth: Int, outputHeight: Int, outputWidth: Int) throws {
        let side = 1...(1 << 30)
        guard side.contains(inputHeight), side.contains(inputWidth), side.contains(outputHeight),
            side.contains(outputWidth), outputHeight >= inputHeight, outputWidth >= inputWidth
        else {
            throw ResampleError.invalidSizes(input: [inputHeight, inputWidth], output: [outputHeight, outputWidth])
        }
        self.inputHeight = inputHeight
        self.inputWidth = inputWidth
        self.outputHeight = outputHeight
        self.outputWidth = outputWidth
    }

    /// - Throws: as above.
    public init(_ enlargement: Enlargement) throws {
        try self.init(
            inputHeight: enlargement.inputHeight, inputWidth: enlargement.inputWidth,
            outputHeight: enlargement.outputHeight,
            outputWidth: enlargement.outputWidth)
    }

    /// The input pixels that `window` of the output depends on: a rectangle inside the input.
    ///
    /// - Throws: `ResampleError.invalidWindow`.
    public func sourceRect(for window: Rect) throws -> Rect {
        try check(window)
        let rows = rowAxis.sources(of: window.y..<window.maxY)
        let columns = columnAxis.sources(of: window.x..<window.maxX)
        return Rect(y: rows.lowerBound, x: columns.lowerBound, height: rows.count, width: columns.count)
    }

    /// Computes `window` of the upsampled image.
    ///
    /// Rows are upsampled first, then columns; each value is a sum of four products in the order of the taps, without
    /// fused multiply-add, so that its bits depend on nothing but the image and its place.
    ///
    /// - Parameters:
    ///   - crop: `cropRect.height` x `cropRect.width` x `channels` values of the input, covering `sourceRect(for:
    ///     window)`.
    ///   - into: receives `window.height` x `window.width` x `channels` values. They may exceed the input's range.
    ///   - kernels: which to use; all give the same.
    /// - Throws: `ResampleError`.
    public func upsample(
        crop: Span<Float>, cropRect: Rect, channels: Int, window: Rect, into output: inout MutableSpan<Float>,
        kernels: KernelSet = .best
    ) throws {
        let needed = try sourceRect(for: window)
        guard (0...needed.y).contains(cropRect.y), (0...needed.x).contains(cropRect.x),
            (1...inputHeight).contains(cropRect.height), (1...inputWidth).contains(cropRect.width),
            cropRect.contains(needed)
        else { throw ResampleError.cropTooSmall(crop: cropRect, needed: needed) }
        try check(crop.count, is: cropRect, channels: channels, what: "the crop")
        try check(output.count, is: window, channels: channels, what: "the output")

        let rows = (window.y..<window.maxY).map(rowAxis.tap)
        for first in stride(from: window.x, to: window.maxX, by: Self.strip) {
            let columns = columnAxis.taps(at: first..<min(first + Self.strip, window.maxX))
            let inside = columns.sources.clamped(to: 0..<inputWidth)
            let outside = columns.sources.filter { !inside.contains($0) }
            let count = columns.count * channels, step = count + RowTaps.overhang
            var row = [Float](repeating: 0, count: columns.sources.count * channels + RowTaps.overhang)
            // The last input rows, upsampled sideways, row y in place y mod 4: the four of a tap are neighbours or the
            // same.
            var wide = [Float](repeating: 0, count: 4 * step)
            var held = SIMD4(repeating: -1)
            for (y, tap) in rows.enumerated() {
                for k in 0..<4 {
                    let source = tap.indices[k], place = source & 3
                    guard held[place] != source else { continue }
                    held[place] = source
                    do {
                        var row = row.mutableSpan
                        RowCopy.copy(
                            from: crop,
                            start: ((source - cropRect.y) * cropRect.width + inside.lowerBound - cropRect.x) * channels,
                            to: &row, at: (inside.lowerBound - columns.sources.lowerBound) * channels,
                            count: inside.count * channels)
                    }
                    for x in outside {
                        let from = (mirrored(x, count: inputWidth) - columns.sources.lowerBound) * channels
                        for c in 0..<channels { row[(x - columns.sources.lowerBound) * channels + c] = row[from + c] }
                    }
                    var wide = wide.mutableSpan
                    columns.widen(row.span, channels: channels, into: &wide, at: place * step)
                }
                WeightedRows.sum(
                    wide.span, from: (tap.indices & 3) &* step, weights: tap.weights, count: count, into: &output,
                    at: (y * window.width + first - window.x) * channels, kernels: kernels)
            }
        }
    }

    /// Columns that are upsampled at a time: so few that their taps and four rows of them stay in the first-level
    /// cache.
    private static let strip = 512

    private var rowAxis: Axis { Axis(input: inputHeight, output: outputHeight) }
    private var columnAxis: Axis { Axis(input: inputWidth, output: outputWidth) }

    private func check(_ window: Rect) throws {
        let place = -(1 << 30)...(1 << 31)
        guard place.contains(window.y), place.contains(window.x), (1...1 << 31).contains(window.height),
            (1...1 << 31).contains(window.width), place.contains(window.maxY), place.contains(window.maxX)
        else { throw ResampleError.invalidWindow(window) }
    }

    private func check(_ count: Int, is rect: Rect, channels: Int, what: String) throws {
        let (area, overflow) = rect.height.multipliedReportingOverflow(by: rect.width)
        let (expected, overflows) = area.multipliedReportingOverflow(by: channels)
        guard channels > 0, !overflow, !overflows, count == expected else {
            throw ResampleError.wrongCount(what: what, got: count, expected: overflow || overflows ? .max : expected)
        }
    }
}

/// The four input pixels that an output pixel depends on, and their weights.
private struct Tap {
    var indices: SIMD4<Int>
    var weights: SIMD4<Float>
}

/// One axis of an enlargement.
private struct Axis {
    let input: Int
    let output: Int

    /// The position of an output pixel inside the image, in input pixels: whole part and remainder over `2 * output`.
    /// In integers, so that equal phases have equal weights.
    @inline(__always)
    private func position(of place: Int) -> (whole: Int, remainder: Int) {
        let (quotient, remainder) = ((2 * place + 1) * input - output).quotientAndRemainder(dividingBy: 2 * output)
        return remainder < 0 ? (quotient - 1, remainder + 2 * output) : (quotient, remainder)
    }

    func tap(at place: Int) -> Tap {
        let (whole, remainder) = position(of: mirrored(place, count: output))
        let indices = SIMD4(
            mirrored(whole - 1, count: input), mirrored(whole, count: input), mirrored(whole + 1, count: input),
            mirrored(whole + 2, count: input))
        return Tap(indices: indices, weights: weights(remainder))
    }

    private func weights(_ remainder: Int) -> SIMD4<Float> {
        let phase = Double(remainder) / Double(2 * output)
        return SIMD4(Float(cubic(phase + 1)), Float(cubic(phase)), Float(cubic(phase - 1)), Float(cubic(phase - 2)))
    }

    /// The taps of neighbours, whose input pixels are not mirrored at the edges. Inside the image each is like the one
    /// a period before it.
    func taps(at places: Range<Int>) -> RowTaps {
        let divisor = greatestCommonDivisor(input, output)
        let (period, shift) = (output / divisor, input / divisor)
        var (starts, weights): ([Int], [SIMD4<Float>]) = ([], [])
        starts.reserveCapacity(places.count)
        weights.reserveCapacity(places.count)
        for place in places {
            if starts.count >= period, place >= period, place < output {
                starts.append(starts[starts.count - period] + shift)
                weights.append(weights[weights.count - period])
            } else {
                let (whole, remainder) = position(of: mirrored(place, count: output))
                starts.append(whole - 1)
                weights.append(self.weights(remainder))
            }
        }
        return RowTaps(starts: starts, weights: weights)
    }

    /// The input pixels that the taps of `places` touch.
    func sources(of places: Range<Int>) -> Range<Int> {
        // The mirror image runs up and down between 0 and output - 1, one leg for each `output` places.
        let (first, last) = (mirrored(places.lowerBound, count: output), mirrored(places.upperBound - 1, count: output))
        var (low, high) = (min(first, last), max(first, last))
        let firstLeg = floorDivide(places.lowerBound, output)
        let lastLeg = floorDivide(places.upperBound - 1, output)
        if lastLeg > firstLeg {
            if lastLeg > firstLeg + 1 || firstLeg % 2 != 0 { low = 0 }
            if lastLeg > firstLeg + 1 || firstLeg % 2 == 0 { high = output - 1 }
        }
        // A tap beyond an edge mirrors to one inside the same four.
        return max(0, position(of: low).whole - 1)..<min(input, position(of: high).whole + 3)
    }
}

private func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : greatestCommonDivisor(b, a % b) }

private func floorDivide(_ value: Int, _ divisor: Int) -> Int {
    value >= 0 ? value / divisor : (value + 1) / divisor - 1
}

/// The place in 0..<count that the mirror images on both sides show at `place`, edge pixels repeated.
@inline(__always)
private func mirrored(_ place: Int, count: Int) -> Int {
    if place >= 0, place < count { return place }
    let phase = place - floorDivide(place, 2 * count) * 2 * count
    return phase < count ? phase : 2 * count - 1 - phase
}

extension RGBImage {
    /// The whole image at another size, as Pillow's `resize((width, height), BICUBIC)` makes it in floating point: the
    /// kernel is widened by the factor of a reduction, so that a reduction is antialiased; it is cut off at the edges
    /// and its weights add up to 1. Alpha is resampled alike and apart. Values may exceed the input's range.
    public func resizedBicubic(width: Int, height: Int) -> RGBImage {
        precondition(width > 0 && height > 0 && self.width > 0 && self.height > 0, "sizes must be positive")
        let colours = resized(pixels, channels: 3, width: width, height: height)
        var result = RGBImage(width: width, height: height, pixels: colours)
        if !alpha.isEmpty { result.alpha = resized(alpha, channels: 1, width: width, height: height) }
        return result
    }

    private func resized(_ values: [Float], channels: Int, width: Int, height: Int) -> [Float] {
        let columns = PillowAxis(input: self.width, output: width)
        let rows = PillowAxis(input: self.height, output: height)
        var wide = [Float](repeating: 0, count: self.height * width * channels)
        for y in 0..<self.height {
            for x in 0..<width {
                for c in 0..<channels {
                    wide[(y * width + x) * channels + c] = columns.sum(at: x) {
                        values[(y * self.width + $0) * channels + c]
                    }
                }
            }
        }
        var result = [Float](repeating: 0, count: height * width * channels)
        for y in 0..<height {
            for x in 0..<width * channels {
                result[y * width * channels + x] = rows.sum(at: y) { wide[$0 * width * channels + x] }
            }
        }
        return result
    }
}

/// Pillow's coefficients (`precompute_coeffs` in its `Resample.c`).
private struct PillowAxis {
    private var starts: [Int] = []
    private var weights: [[Double]] = []

    init(input: Int, output: Int) {
        let scale = Double(input) / Double(output)
        let filterScale = max(scale, 1)
        let support = 2 * filterScale
        for place in 0..<output {
            let center = (Double(place) + 0.5) * scale
            let start = max(0, Int(center - support + 0.5))
            let end = min(input, Int(center + support + 0.5))
            let taps = (start..<end).map { cubic((Double($0) - center + 0.5) / filterScale) }
            let total = taps.reduce(0, +)
            starts.append(start)
            weights.append(taps.map { $0 / total })
        }
    }

    @inline(__always)
    func sum(at place: Int, _ value: (Int) -> Float) -> Float {
        var sum = 0.0
        for (k, weight) in weights[place].enumerated() { sum += Double(value(starts[place] + k)) * weight }
        return Float(sum)
    }
}
