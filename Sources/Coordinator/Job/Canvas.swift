import Engine
import Protocol

/// Something of a job that tiles are cut out of and written into: height x width x channels, in memory or in a file.
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
    func cut(_ rect: Rect, as element: CanvasElement = .float32) -> Frame {
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
    func load(_ rect: Rect, into target: inout MutableSpan<Float>) {
        values.load(
            start: start(of: rect), stride: width * channels, rows: rect.height, length: rect.width * channels,
            into: &target)
    }

    func store(_ source: Span<Float>, at rect: Rect) {
        values.store(
            source, start: start(of: rect), stride: width * channels, rows: rect.height, length: rect.width * channels)
    }

    /// The whole width of some rows.
    func rows(_ rows: Range<Int>) -> Rect { Rect(y: rows.lowerBound, x: 0, height: rows.count, width: width) }
}

/// The states of a canvas from phase to phase. Without checkpoints there is one, changed in place. A checkpoint freezes
/// the one that the phases before it have written: those after it write another.
package struct CanvasHistory {
    /// One, or three where there are checkpoints: one is the last checkpoint, one on its way to be the next, one
    /// written by what comes after that.
    package let canvases: [Canvas]
    /// From which phase on which canvas is written.
    private var turns: [(from: Int, canvas: Int)] = [(0, 0)]

    package init(_ canvases: [Canvas]) { self.canvases = canvases }

    /// Goes on from a checkpoint: `canvas` holds what the phases before `phase` have written, and stays as it is.
    /// - Parameter isWritten: whether that phase writes a canvas.
    mutating func resume(at phase: Int, canvas: Int, isWritten: Bool) {
        turns = [(0, canvas)] + (isWritten ? [(phase, (canvas + 1) % canvases.count)] : [])
    }

    /// The number of the canvas that a phase writes.
    package func number(writtenBy phase: Int) -> Int { turns.last { $0.from <= phase }?.canvas ?? 0 }

    func written(by phase: Int) -> Canvas { canvases[number(writtenBy: phase)] }
    /// What the phases before have written.
    func read(by phase: Int) -> Canvas { written(by: phase - 1) }

    /// From `phase` on, which nobody has written in yet, another canvas is written than `kept` and the present one. It
    /// may be that way already: a checkpoint there was tried before and came to nothing.
    package mutating func turn(at phase: Int, keeping kept: Int?) {
        guard let present = turns.last, present.from < phase,
            let free = canvases.indices.first(where: { $0 != present.canvas && $0 != kept })
        else { return }
        // Tiles of the present turn's first phase may still be to cut, out of what the turn before has written.
        turns = turns.suffix(2) + [(phase, free)]
    }
}
