import Engine
import Logging
import Protocol

/// The picture to enlarge, as its file has it: 1, 2, 3 or 4 channels of 8 or 16 bits.
package final class InputImage: Sendable {
    package let height, width: Int
    let bitDepth: Int
    let isGrey: Bool
    let hasAlpha: Bool
    private let values: StoredValues
    private var channels: Int { (isGrey ? 1 : 3) + (hasAlpha ? 1 : 0) }

    /// Bytes that a picture takes.
    static func bytes(of reader: PNGReader) -> Int {
        reader.height * reader.width * ((reader.isGrey ? 1 : 3) + (reader.hasAlpha ? 1 : 0)) * reader.bitDepth / 8
    }

    /// A picture without alpha, its values as they are.
    package init(_ image: RGBImage) throws {
        (height, width, bitDepth, isGrey, hasAlpha) = (image.height, image.width, 8, false, false)
        values = try StoredValues(.float32, count: image.pixels.count)
        values.store(image.pixels.span, start: 0, stride: 0, rows: 1, length: image.pixels.count)
    }

    /// - Throws: `PNGError`, `StorageError`.
    package convenience init(path: String) throws { try self.init(reading: Self.reader(path), storage: .memory) }

    /// Of any number of pixels: the reader compares them with the size of the file.
    static func reader(_ path: String) throws -> PNGReader { try PNGReader(path: path, pixelLimit: .max) }

    /// - Throws: `PNGError`, `StorageError`.
    init(reading reader: PNGReader, storage: CanvasStorage) throws {
        (height, width, bitDepth, isGrey, hasAlpha) = (reader.height, reader.width, reader.bitDepth, reader.isGrey, reader.hasAlpha)
        let channels = (reader.isGrey ? 1 : 3) + (reader.hasAlpha ? 1 : 0)
        values = try storage.values("input", bitDepth == 16 ? .unorm16 : .unorm8, count: height * width * channels)
        var rgb = [Float](repeating: 0, count: width * 3)
        var alpha = [Float](repeating: 1, count: hasAlpha ? width : 0)
        var row = [Float](repeating: 0, count: width * channels)
        for y in 0..<height {
            var rgbSpan = rgb.mutableSpan
            var alphaSpan = alpha.mutableSpan
            try reader.readRow(rgb: &rgbSpan, alpha: &alphaSpan)
            for x in 0..<width {
                for c in 0..<channels { row[x * channels + c] = hasAlpha && c == channels - 1 ? alpha[x] : rgb[3 * x + c] }
            }
            values.store(row.span, start: y * width * channels, stride: 0, rows: 1, length: row.count)
        }
    }

    /// A part of the picture, height x width x 3 in [0, 1]; where it reaches beyond (a canvas is padded), the nearest pixels.
    func cut(_ rect: Rect) -> Frame {
        Frame(floatCount: rect.area * 3) { rgb(rect, into: &$0) }
    }

    func rgb(_ rect: Rect, into target: inout MutableSpan<Float>) {
        if channels == 3, Rect(y: 0, x: 0, height: height, width: width).contains(rect) {
            values.load(start: (rect.y * width + rect.x) * 3, stride: width * 3, rows: rect.height, length: rect.width * 3, into: &target)
        } else {
            let channels = channels
            pixels(rect) { at, pixel, row in
                for c in 0..<3 { target[at * 3 + c] = row[pixel * channels + (isGrey ? 0 : c)] }
            }
        }
    }

    func alpha(_ rect: Rect, into target: inout MutableSpan<Float>) {
        let channels = channels
        pixels(rect) { at, pixel, row in target[at] = row[pixel * channels + channels - 1] }
    }

    /// Calls `body` with the number of each pixel of `rect`, and the nearest one's place in a row of the picture.
    private func pixels(_ rect: Rect, _ body: (_ at: Int, _ pixel: Int, _ row: [Float]) -> Void) {
        let columns = min(max(rect.x, 0), width - 1)..<min(max(rect.maxX, 1), width)
        var row = [Float](repeating: 0, count: columns.count * channels)
        var at = 0
        for y in rect.y..<rect.maxY {
            let y = min(max(y, 0), height - 1)
            do {
                var span = row.mutableSpan
                values.load(start: (y * width + columns.lowerBound) * channels, stride: 0, rows: 1, length: span.count, into: &span)
            }
            for x in rect.x..<rect.maxX {
                body(at, min(max(x, columns.lowerBound), columns.upperBound - 1) - columns.lowerBound, row)
                at += 1
            }
        }
    }
}

/// The finished picture, of the input's kind: depth, grey and alpha.
enum OutputImage {
    /// Rows enlarged and written at a time.
    private static let band = 32

    /// Looks, before hours of rendering, whether the output can be written, and warns where the disk may be too small for it.
    static func check(path: String, plan: RenderPlan, like input: InputImage, logger: Logger) throws {
        try PNGWriter.probe(path)
        let largest = PNGWriter.largestSize(
            width: plan.outputWidth, height: plan.outputHeight, bitDepth: input.bitDepth, grey: input.isGrey, alpha: input.hasAlpha)
        if let free = PNGWriter.freeBytes(for: path), free < largest {
            logger.warning(
                "the output may not fit on its disk", metadata: ["free": "\(PlanCommand.size(free))", "needed": "up to \(PlanCommand.size(largest))"])
        }
    }

    /// - Parameter rows: finished rows in [0, 1], RGB.
    /// - Throws: `PNGError`, or `CommandError.cancelledWriting`; then there is no output.
    static func write(
        path: String, plan: RenderPlan, like input: InputImage, stop: StopRequest, rows: (Range<Int>) throws -> [Float]
    ) throws {
        let writer = try PNGWriter(
            path: path, width: plan.outputWidth, height: plan.outputHeight, bitDepth: input.bitDepth, grey: input.isGrey,
            alpha: input.hasAlpha)
        defer { writer.cancel() }
        for first in stride(from: 0, to: plan.outputHeight, by: band) {
            if stop.reason != nil { throw CommandError.cancelledWriting }
            let range = first..<min(first + band, plan.outputHeight)
            let rgb = try rows(range)
            let alpha = input.hasAlpha ? try plan.finishedAlpha(range, input: input) : []
            for row in 0..<range.count {
                try writer.writeRow(
                    rgb: rgb.span.extracting(row * plan.outputWidth * 3..<(row + 1) * plan.outputWidth * 3),
                    alpha: input.hasAlpha ? alpha.span.extracting(row * plan.outputWidth..<(row + 1) * plan.outputWidth) : alpha.span)
            }
        }
        try writer.finish()
    }
}
