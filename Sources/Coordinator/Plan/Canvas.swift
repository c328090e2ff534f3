import Engine
import Protocol

/// One buffer of a plane that tiles are cut out of and written into: height x width x channels, in memory or in a file.
package final class Canvas {
    package let height: Int
    package let width: Int
    package let channels: Int
    private let values: StoredValues

    /// - Parameter values: height x width x channels of them.
    package init(height: Int, width: Int, channels: Int, values: StoredValues) {
        precondition(values.count == height * width * channels)
        self.height = height
        self.width = width
        self.channels = channels
        self.values = values
    }

    /// A copy of `rect`, ready to be sent.
    /// - Parameter element: float32, or what the canvas is stored as.
    package func cut(_ rect: Rect, as element: CanvasElement = .float32) -> Frame {
        switch element {
        case .float32: Frame(of: Float.self, count: rect.area * channels) { load(rect, into: &$0) }
        case .float16:
            Frame(of: UInt16.self, count: rect.area * channels) {
                values.loadStored(
                    start: start(of: rect), stride: width * channels, rows: rect.height, length: rect.width * channels,
                    into: &$0)
            }
        }
    }

    /// Writes an answer that has exactly the size of `rect`.
    /// - Parameter element: as for `cut`
    func write(_ frame: Frame, at rect: Rect, as element: CanvasElement = .float32) {
        switch element {
        case .float32: frame.withValues(of: Float.self) { store($0, at: rect) }
        case .float16:
            frame.withValues(of: UInt16.self) {
                values.storeAsIs(
                    $0, start: start(of: rect), stride: width * channels, rows: rect.height,
                    length: rect.width * channels)
            }
        }
    }

    private func start(of rect: Rect) -> Int { (rect.y * width + rect.x) * channels }

    /// Reads `rect` into the first values of `target`.
    package func load(_ rect: Rect, into target: inout MutableSpan<Float>) {
        values.load(
            start: start(of: rect), stride: width * channels, rows: rect.height, length: rect.width * channels,
            into: &target)
    }

    package func store(_ source: Span<Float>, at rect: Rect) {
        values.store(
            source, start: start(of: rect), stride: width * channels, rows: rect.height, length: rect.width * channels)
    }

    /// The whole width of some rows.
    package func rows(_ rows: Range<Int>) -> Rect { Rect(y: rows.lowerBound, x: 0, height: rows.count, width: width) }

    /// All of it.
    package var whole: Rect { Rect(y: 0, x: 0, height: height, width: width) }

    /// Makes every value zero.
    func clear() {
        let zeros = [Float](repeating: 0, count: width * channels)
        for y in 0..<height { store(zeros.span, at: rows(y..<y + 1)) }
    }

    /// Adds a window to what is there, each position times its weight.
    func add(_ frame: Frame, window: Rect, weights: BlendWeights) {
        let rows = weights.weights(count: window.height)
        let columns = weights.weights(count: window.width)
        var values = [Float](repeating: 0, count: window.width * channels)
        frame.withValues(of: Float.self) { frame in
            for y in 0..<window.height {
                let row = Rect(y: window.y + y, x: window.x, height: 1, width: window.width)
                var span = values.mutableSpan
                load(row, into: &span)
                for x in 0..<window.width {
                    let weight = rows[y] * columns[x]
                    for c in x * channels..<(x + 1) * channels {
                        span[c] += weight * frame[y * window.width * channels + c]
                    }
                }
                store(values.span, at: row)
            }
        }
    }
}
