import Engine
import Foundation

/// Samples of a picture, rows from the top.
struct PyramidSamples: Equatable {
    var width: Int
    var height: Int
    var format: PixelFormat
    var bytes: [UInt8]

    /// Smooth, with noise; some pixels are transparent.
    init(width: Int, height: Int, format: PixelFormat, seed: Int) {
        var cases = SplitMix64(seed: seed)
        self.width = width
        self.height = height
        self.format = format
        bytes = []
        for y in 0..<height {
            for x in 0..<width {
                for c in 0..<format.channels {
                    let isAlpha = format.hasAlpha && c == format.channels - 1
                    let value =
                        isAlpha
                        ? (x / 5 + y / 7) % 3 * 127
                        : 128 + Int(90 * sin(Double(x * (c + 1) + 2 * y) / 37)) + .random(in: 0...30, using: &cases)
                    bytes +=
                        format.bitDepth == 8 ? [UInt8(value)] : [UInt8(value), .random(in: 0...255, using: &cases)]
                }
            }
        }
    }

    init(png path: String) throws {
        let reader = try PNGReader(path: path)
        (width, height, format, bytes) = (reader.width, reader.height, reader.format, [])
        var row = [UInt8](repeating: 0, count: format.rowBytes(width: width))
        for _ in 0..<height {
            var span = row.mutableSpan
            try reader.readRow(samples: &span)
            bytes += row
        }
    }

    private init(width: Int, height: Int, format: PixelFormat) {
        (self.width, self.height, self.format, bytes) = (width, height, format, [])
    }

    func writeRows(to writer: DeepZoomWriter, count: Int? = nil) throws {
        let rowBytes = format.rowBytes(width: width)
        for y in 0..<(count ?? height) { try writer.writeRow(bytes.span.extracting(y * rowBytes..<(y + 1) * rowBytes)) }
    }

    func writePyramid(to directory: String) throws {
        let writer = try DeepZoomWriter(directory: directory, width: width, height: height, format: format)
        try writeRows(to: writer)
        try writer.finish()
    }

    subscript(x: Int, y: Int, c: Int) -> Int { Int(bytes[(y * width + x) * format.channels + c]) }

    /// 16 bits to the nearest of 8.
    var with8Bits: PyramidSamples {
        guard format.bitDepth == 16 else { return self }
        var result = PyramidSamples(width: width, height: height, format: format.with8Bits)
        result.bytes = stride(from: 0, to: bytes.count, by: 2).map {
            UInt8((Double(Int(bytes[$0]) << 8 | Int(bytes[$0 + 1])) / 257).rounded())
        }
        return result
    }

    /// Means over 2x2 pixels, or over those there are at an odd edge.
    var half: PyramidSamples {
        var result = PyramidSamples(width: (width + 1) / 2, height: (height + 1) / 2, format: format)
        for y in 0..<result.height {
            for x in 0..<result.width {
                let pixels = [0, 1].flatMap { dy in [0, 1].map { dx in (2 * x + dx, 2 * y + dy) } }.filter {
                    $0.0 < width && $0.1 < height
                }
                let alphas = pixels.map { format.hasAlpha ? self[$0.0, $0.1, format.channels - 1] : 1 }
                let isVisible = alphas.contains { $0 > 0 }
                for c in 0..<format.channels {
                    let isColour = !format.hasAlpha || c < format.channels - 1
                    let weights = isColour && isVisible ? alphas : pixels.map { _ in 1 }
                    let (sum, total) = (
                        zip(pixels, weights).reduce(0) { $0 + self[$1.0.0, $1.0.1, c] * $1.1 }, weights.reduce(0, +)
                    )
                    result.bytes.append(UInt8((2 * sum + total) / (2 * total)))
                }
            }
        }
        return result
    }

    func cropped(_ columns: Range<Int>, _ rows: Range<Int>) -> PyramidSamples {
        var result = PyramidSamples(width: columns.count, height: rows.count, format: format)
        for y in rows {
            result.bytes +=
                bytes[
                    (y * width + columns.lowerBound) * format.channels..<(y * width + columns.upperBound)
                        * format.channels]
        }
        return result
    }
}
