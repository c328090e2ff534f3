import Engine

/// Bytes of a pipeline's tiles.
package struct PipelineSizes: Sendable {
    /// For each pass, bytes of all that goes into its largest task and comes out of it.
    package private(set) var tileBytes: [Int] = []
    /// Bytes of the largest input and of the largest output of any task.
    package private(set) var largestInput = 0
    package private(set) var largestOutput = 0

    /// - Throws: `PipelineError.slotsDoNotFit` where an operation has other inputs or outputs than its pass reads and
    ///   writes, and what the passes' operations throw.
    init(_ pipeline: Pipeline) throws {
        for (index, pass) in pipeline.passes.enumerated() {
            guard case .task(let operation) = pass.work, pass.count > 0 else {
                tileBytes.append(0)
                continue
            }
            var most = 0
            // Windows have one size; what they need of the picture is less at its borders.
            for tile in Set([0, pass.count / 2]) {
                let operation = try operation(tile)
                let (inputs, outputs) = (operation.inputs, operation.outputs)
                guard inputs.count == pass.reads.count, outputs.count == pass.writes.count else {
                    throw PipelineError.slotsDoNotFit(
                        pass: index, slot: inputs.count, bytes: outputs.count, expected: pass.reads.count)
                }
                for (slot, (read, input)) in zip(pass.reads, inputs).enumerated() {
                    let count = try pipeline.count(read, of: pass, tile)
                    guard count == input.count else {
                        throw PipelineError.slotsDoNotFit(pass: index, slot: slot, bytes: input.count, expected: count)
                    }
                    largestInput = max(largestInput, input.byteCount)
                }
                var bytes = inputs.reduce(0) { $0 + $1.byteCount }
                for (slot, (write, output)) in zip(pass.writes, outputs).enumerated() {
                    if let count = pipeline.count(write, of: pass, tile), count != output.count {
                        throw PipelineError.slotsDoNotFit(
                            pass: index, slot: inputs.count + slot, bytes: output.count, expected: count)
                    }
                    var size = output.byteCount
                    // Cells differ in size; none is larger than its window.
                    if case .cells = write.merge, let window = pass.window(tile), let cell = pass.cell(tile) {
                        size = size / cell.area * window.area
                    }
                    largestOutput = max(largestOutput, size)
                    bytes += size
                }
                most = max(most, bytes)
            }
            tileBytes.append(most)
        }
    }

    /// Bytes of the largest part of a message, either way.
    package var largestFrame: Int { max(largestInput, largestOutput) }
}

extension Pipeline {
    /// Numbers that a tile reads.
    fileprivate func count(_ read: Read, of pass: Pass, _ tile: Int) throws -> Int {
        let plane = planes[read.plane]
        let channels: Int
        switch plane.content {
        case .text(let text): return text.utf8.count
        case .values(let count, _):
            if case .leading(let first) = read.region { return first }
            return count
        case .picture: channels = 3
        case .array(_, _, let count, _): channels = count
        }
        return try rect(read, of: pass, tile).area * channels
    }

    /// Numbers that a tile writes; nil for sums, which may be a part of their plane.
    fileprivate func count(_ write: Write, of pass: Pass, _ tile: Int) -> Int? {
        switch (planes[write.plane].content, write.merge) {
        case (.values(let count, _), .whole): count
        case (.array(let height, let width, let channels, _), .whole): height * width * channels
        case (.array(_, _, let channels, _), .cells(let scale)):
            pass.cell(tile).flatMap { scale.plane($0) }.map { $0.area * channels }
        case (.array(_, _, let channels, _), .blend): pass.window(tile).map { $0.area * channels }
        default: nil
        }
    }

    /// The part of an array or of the picture that a tile reads.
    func rect(_ read: Read, of pass: Pass, _ tile: Int) throws -> Rect {
        let plane = planes[read.plane]
        let rect: Rect? =
            switch read.region {
            case .window(let scale): pass.window(tile).flatMap { scale.plane($0) }
            case .cell(let scale): pass.cell(tile).flatMap { scale.plane($0) }
            case .part(let part): try part(tile)
            case .whole, .leading: plane.size.map { Rect(y: 0, x: 0, height: $0.height, width: $0.width) }
            }
        guard let rect else { throw PipelineError.impossibleRegion(plane: plane.name, pass: -1) }
        return rect
    }
}
