import Engine

/// The picture that a job ends with, of the input's kind: depth, grey and alpha.
///
/// It is made in pieces whose numbers stay in the second-level cache, in buffers that are there once: arrays of whole
/// rows would go through main memory several times, and be new pages every time.
package struct FinishedPicture {
    package let height, width: Int
    package let format: PixelFormat
    private let input: InputImage
    private let upsampler: BicubicUpsampler
    private let canvas: Canvas
    private let gain: Float?

    /// A piece: its values in [0, 1], its samples, and what the canvas has of it where that is no picture.
    private var rgb: [Float] = []
    private var alpha: [Float] = []
    private var packed: [UInt8] = []
    private var residual: [Float] = []
    /// The part of the input that it depends on, and its alpha.
    private var crop: [Float] = []
    private var cropAlpha: [Float] = []

    /// The largest piece. It has so many rows that the input's, of which a tap has four, are not widened much oftener
    /// than once.
    static let piece = (rows: 32, columns: 1024)
    /// Memory that making it takes, at most: of a pixel 36 bytes, and 20 of one of the input, with those around them.
    static let bytes = piece.rows * piece.columns * 80

    /// - Parameter canvas: the output plane: as large as the picture or larger, three channels
    package init(_ geometry: PictureGeometry, input: InputImage, canvas: Canvas) {
        (height, width, format) = (geometry.outputHeight, geometry.outputWidth, input.format)
        (self.input, upsampler, self.canvas, gain) = (input, geometry.upsampler, canvas, geometry.residualGain)
    }

    /// Makes rows of samples.
    /// - Parameter band: becomes the rows; its memory is used again unless somebody else holds it
    package mutating func samples(_ rows: Range<Int>, into band: inout [UInt8]) throws {
        let size = format.pixelBytes
        band.resize(to: rows.count * width * size)
        for part in parts(of: rows) {
            try make(part)
            packed.fill(part.area * size) { [format, rgb, alpha] in
                format.pack(rgb: rgb.span, alpha: alpha.span, into: &$0)
            }
            put(packed.span, part, of: rows, into: &band)
        }
    }

    /// Rows of numbers, three a pixel: what tests compare.
    package mutating func numbers(_ rows: Range<Int>) throws -> [Float] {
        var result = [Float](repeating: 0, count: rows.count * width * 3)
        for part in parts(of: rows) {
            try make(part)
            put(rgb.span, part, of: rows, into: &result)
        }
        return result
    }

    /// Copies a piece to its place in whole rows.
    private func put<Value: BitwiseCopyable>(
        _ piece: Span<Value>, _ part: Rect, of rows: Range<Int>, into whole: inout [Value]
    ) {
        let size = piece.count / part.area
        var target = whole.mutableSpan
        RowCopy.copy(
            from: piece, start: 0, stride: part.width * size, to: &target,
            start: ((part.y - rows.lowerBound) * width + part.x) * size,
            stride: width * size, rows: part.height, count: part.width * size)
    }

    private func parts(of rows: Range<Int>) -> [Rect] {
        stride(from: rows.lowerBound, to: rows.upperBound, by: Self.piece.rows).flatMap { y in
            stride(from: 0, to: width, by: Self.piece.columns).map { x in
                Rect(
                    y: y, x: x, height: min(Self.piece.rows, rows.upperBound - y),
                    width: min(Self.piece.columns, width - x))
            }
        }
    }

    /// Computes a piece: `rgb` and, if the format has it, `alpha`.
    private mutating func make(_ part: Rect) throws {
        let source = try upsampler.sourceRect(for: part)
        if gain != nil || format.hasAlpha {
            crop.fill(gain == nil ? 0 : source.area * 3) { [input, format] rgb in
                cropAlpha.fill(format.hasAlpha ? source.area : 0) { input.read(source, rgb: &rgb, alpha: &$0) }
            }
        }
        if format.hasAlpha {
            try alpha.fill(part.area) { [upsampler, cropAlpha] in
                try upsampler.upsample(crop: cropAlpha.span, cropRect: source, channels: 1, window: part, into: &$0)
            }
        }
        guard let gain else { return rgb.fill(part.area * 3) { [canvas] in canvas.load(part, into: &$0) } }
        try rgb.fill(part.area * 3) { [upsampler, crop] in
            try upsampler.upsample(crop: crop.span, cropRect: source, channels: 3, window: part, into: &$0)
        }
        residual.fill(part.area * 3) { [canvas] in canvas.load(part, into: &$0) }
        rgb.fill(part.area * 3) { [residual] in Elementwise.add(residual.span, times: gain, to: &$0) }
    }
}

extension Array where Element: Numeric {
    /// Has `body` write `count` values, in the memory that is there if it is enough. If there are so many already, it
    /// finds them as they are.
    fileprivate mutating func fill(_ count: Int, _ body: (inout MutableSpan<Element>) throws -> Void) rethrows {
        resize(to: count)
        var values = mutableSpan
        try body(&values)
    }

    /// To values that are about to be written.
    fileprivate mutating func resize(to count: Int) {
        if count > capacity {
            self = Array(repeating: 0, count: count)
        } else if count > self.count {
            append(contentsOf: repeatElement(0, count: count - self.count))
        } else if count < self.count {
            removeLast(self.count - count)
        }
    }
}
