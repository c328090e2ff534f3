import Engine
import Logging

/// The picture to enlarge, as it was read, and what kind of PNG it was.
struct InputImage: Sendable {
    let image: RGBImage
    let bitDepth: Int
    let isGrey: Bool
    var hasAlpha: Bool { !image.alpha.isEmpty }

    /// The low-resolution image is held whole, at 12 bytes a pixel.
    static let pixelLimit = 1 << 28

    /// - Throws: `PNGError`.
    init(path: String) throws {
        let reader = try PNGReader(path: path, pixelLimit: Self.pixelLimit)
        (bitDepth, isGrey) = (reader.bitDepth, reader.isGrey)
        image = try RGBImage(reading: reader)
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
    /// - Throws: `PNGError`, or `CommandError.cancelled`; then there is no output.
    static func write(
        path: String, plan: RenderPlan, like input: InputImage, stop: StopRequest, rows: (Range<Int>) throws -> [Float]
    ) throws {
        let writer = try PNGWriter(
            path: path, width: plan.outputWidth, height: plan.outputHeight, bitDepth: input.bitDepth, grey: input.isGrey,
            alpha: input.hasAlpha)
        defer { writer.cancel() }
        for first in stride(from: 0, to: plan.outputHeight, by: band) {
            if stop.reason != nil { throw CommandError.cancelled(done: first, of: plan.outputHeight) }
            let range = first..<min(first + band, plan.outputHeight)
            let rgb = try rows(range)
            let alpha = input.hasAlpha ? try plan.finishedAlpha(range, input: input.image) : []
            for row in 0..<range.count {
                try writer.writeRow(
                    rgb: rgb.span.extracting(row * plan.outputWidth * 3..<(row + 1) * plan.outputWidth * 3),
                    alpha: input.hasAlpha ? alpha.span.extracting(row * plan.outputWidth..<(row + 1) * plan.outputWidth) : alpha.span)
            }
        }
        try writer.finish()
    }
}
