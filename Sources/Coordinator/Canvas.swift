import Engine
import Protocol

/// The state of a stage, canvas height x width x channels: the only big mutable thing in the farm.
struct Canvas: ~Copyable {
    let height: Int
    let width: Int
    let channels: Int
    private var values: [Float]

    init(height: Int, width: Int, channels: Int) {
        self.height = height
        self.width = width
        self.channels = channels
        values = Array(repeating: 0, count: height * width * channels)
    }

    var bytes: Int { values.count * 4 }

    func withSpan<R>(_ body: (Span<Float>) throws -> R) rethrows -> R { try body(values.span) }

    /// A copy of `rect`, ready to be sent.
    func cut(_ rect: Rect) -> Frame {
        Frame(floatCount: rect.area * channels) { frame in
            RowCopy.copy(
                from: values.span, start: (rect.y * width + rect.x) * channels, stride: width * channels,
                to: &frame, start: 0, stride: rect.width * channels, rows: rect.height, count: rect.width * channels)
        }
    }

    /// Writes an answer that has exactly the size of `rect`.
    mutating func write(_ frame: Frame, at rect: Rect) {
        let (width, channels) = (width, channels)
        var target = values.mutableSpan
        frame.withFloats { source in
            RowCopy.copy(
                from: source, start: 0, stride: rect.width * channels,
                to: &target, start: (rect.y * width + rect.x) * channels, stride: width * channels,
                rows: rect.height, count: rect.width * channels)
        }
    }

    /// Calls `body` with every value of the first `width` pixels of `rows`, and its index among them.
    func withRows(_ rows: Range<Int>, width: Int, _ body: (Int, Float) -> Void) {
        for row in 0..<rows.count {
            let from = (rows.lowerBound + row) * self.width * channels
            let to = row * width * channels
            for x in 0..<width * channels { body(to + x, values[from + x]) }
        }
    }

    mutating func withValues<R>(_ body: (inout MutableSpan<Float>) -> R) -> R {
        var target = values.mutableSpan
        return body(&target)
    }
}
