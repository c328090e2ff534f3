import Engine
import Foundation
import Protocol

/// Everything that a job's planes hold: cut out of for tasks, written into by answers. It knows nothing of workers.
package final class PlaneStore {
    package let pipeline: Pipeline
    private let input: InputImage?
    /// By plane; nil for what is no array, and for arrays that nobody needs any more.
    private var arrays: [PlaneBuffers?]
    /// For each plane of values what each pass has written of it.
    private var values: [[Int: [UInt8]]]
    /// Sums that a pass is still adding up, by pass and plane.
    private var sums: [Int: [Plane.ID: [Double]]] = [:]
    /// For each pass the planes that it has begun to blend into: they are emptied once.
    private var begunBlends: [Int: Set<Plane.ID>] = [:]
    /// For each plane the last pass that reads or writes it.
    private let lastUses: [Int]

    /// - Parameters:
    ///   - input: the picture; nil where no pass reads one
    ///   - checkpoint: what the passes before it have left in the storage
    /// - Throws: `StorageError`, `JobFolderError.damaged` where the checkpoint lacks something.
    package init(
        _ pipeline: Pipeline, input: InputImage?, storage: PlaneStorage = .memory,
        checkpoint: JobFolder.Checkpoint? = nil
    ) throws {
        self.pipeline = pipeline
        self.input = input
        let planes = pipeline.planes
        arrays = try planes.indices.map { plane in
            guard case .array(let height, let width, let channels, let element) = planes[plane].content else {
                return nil
            }
            let count = storage.folder != nil && pipeline.isRewritten(plane) ? Pipeline.buffersOfRewrittenPlane : 1
            return PlaneBuffers(
                try (0..<count).map {
                    try storage.canvas(
                        Self.fileName(planes[plane], buffer: $0), .init(element), height: height, width: width,
                        channels: channels)
                })
        }
        values = planes.map { _ in [:] }
        lastUses = planes.indices.map { plane in
            pipeline.passes.lastIndex {
                $0.reads.contains { $0.plane == plane } || $0.writes.contains { $0.plane == plane }
            } ?? -1
        }
        guard let checkpoint else { return }
        for plane in pipeline.livePlanes(at: checkpoint.pass) {
            guard let writer = pipeline.lastWriter(of: plane, before: checkpoint.pass) else { continue }
            if planes[plane].arrayBytes > 0 {
                arrays[plane]?.resume(at: checkpoint.pass, buffer: checkpoint.buffers[planes[plane].name] ?? 0)
            } else {
                values[plane][writer] = checkpoint.values[planes[plane].name].map { Array($0) }
            }
        }
    }

    /// The name of a plane's file in a job folder.
    static func fileName(_ plane: Plane, buffer: Int) -> String { "plane-\(plane.name).\(buffer)" }

    // MARK: Reading

    /// The bytes of a task's input.
    /// - Throws: `PlaneError` where the pipeline's operation asks for another size, or the plane is gone.
    package func frame(_ index: Int, of tile: Scheduler.Tile, slot: Slot) throws -> Frame {
        let pass = pipeline.passes[tile.pass], read = pass.reads[index], plane = pipeline.planes[read.plane]
        let frame = try cut(read, index, of: pass, tile, slot, plane)
        guard frame.byteCount == slot.byteCount else {
            throw PlaneError.otherSize(plane: plane.name, bytes: frame.byteCount, expected: slot.byteCount)
        }
        return frame
    }

    private func cut(
        _ read: Read, _ index: Int, of pass: Pass, _ tile: Scheduler.Tile, _ slot: Slot, _ plane: Plane
    ) throws -> Frame {
        switch plane.content {
        case .text(let text): return Frame(copying: Array(text.utf8))
        case .picture:
            guard let input else { throw PlaneError.gone(plane: plane.name) }
            return input.cut(try pipeline.rect(read, of: pass, tile.index))
        case .values(_, let element):
            guard let writer = pipeline.writers[tile.pass][index], let bytes = values[read.plane][writer] else {
                throw PlaneError.gone(plane: plane.name)
            }
            if case .leading(let count) = read.region { return Frame(copying: bytes.prefix(count * element.size)) }
            return Frame(copying: bytes)
        case .array:
            guard let buffers = arrays[read.plane], let writer = pipeline.writers[tile.pass][index] else {
                throw PlaneError.gone(plane: plane.name)
            }
            let rect = try pipeline.rect(read, of: pass, tile.index)
            return buffers.written(by: writer).cut(rect, as: slot.element == .float16 ? .float16 : .float32)
        }
    }

    /// The key of an input's bytes as long as a plane is not written anew: the same key, the same bytes.
    func blobKey(_ index: Int, of tile: Scheduler.Tile) throws -> BlobKey {
        let pass = pipeline.passes[tile.pass], read = pass.reads[index]
        var key = BlobKey(plane: read.plane, writer: pipeline.writers[tile.pass][index] ?? -1)
        switch read.region {
        case .whole: break
        case .leading(let count): key.count = count
        case .window, .cell, .part: key.rect = try pipeline.rect(read, of: pass, tile.index)
        }
        return key
    }

    // MARK: Writing

    /// Takes the outputs of a tile, each of its slot's size.
    package func merge(_ outputs: [Frame], slots: [Slot], of tile: Scheduler.Tile) {
        let pass = pipeline.passes[tile.pass]
        for (write, (frame, slot)) in zip(pass.writes, zip(outputs, slots)) {
            switch write.merge {
            case .cells(let scale):
                guard let cell = pass.cell(tile.index).flatMap({ scale.plane($0) }) else { continue }
                arrays[write.plane]?.written(by: tile.pass).write(
                    frame, at: cell, as: slot.element == .float16 ? .float16 : .float32)
            case .whole:
                if let canvas = arrays[write.plane]?.written(by: tile.pass) {
                    canvas.write(frame, at: canvas.whole, as: slot.element == .float16 ? .float16 : .float32)
                } else {
                    values[write.plane][tile.pass] = frame.withBytes { Array($0) }
                }
            case .sum:
                let answer = frame.doubles
                let sum = sums[tile.pass]?[write.plane] ?? []
                sums[tile.pass, default: [:]][write.plane] =
                    sum.isEmpty ? answer : zip(sum, answer).map { $0 + $1 }
            case .blend(let weights):
                guard let canvas = arrays[write.plane]?.written(by: tile.pass), let window = pass.window(tile.index)
                else { continue }
                if begunBlends[tile.pass, default: []].insert(write.plane).inserted { canvas.clear() }
                canvas.add(frame, window: window, weights: weights)
            }
        }
    }

    /// Does the coordinator's own work.
    /// - Parameter beat: called again and again where that takes long
    package func compute(_ tile: Scheduler.Tile, beat: () -> Void = {}) {
        let pass = pipeline.passes[tile.pass]
        guard case .local(let work) = pass.work else { return }
        let reads = pass.reads.indices.compactMap { index -> Canvas? in
            guard let writer = pipeline.writers[tile.pass][index] else { return nil }
            return arrays[pass.reads[index].plane]?.written(by: writer)
        }
        let writes = pass.writes.compactMap { arrays[$0.plane]?.written(by: tile.pass) }
        guard reads.count == pass.reads.count, writes.count == pass.writes.count else { return }
        work.run(reads: reads, writes: writes, beat: beat)
    }

    /// Every tile of the pass is merged.
    /// - Parameter current: the lowest pass that is not finished: planes that are not used from there on are let go of
    package func finish(pass index: Int, current: Int) {
        for write in pipeline.passes[index].writes {
            guard case .sum(let at) = write.merge,
                case .values(let count, _) = pipeline.planes[write.plane].content
            else { continue }
            // What lies before stays as it is.
            var all = [Double](repeating: 0, count: count)
            if at > 0, let former = pipeline.lastWriter(of: write.plane, before: index),
                let bytes = values[write.plane][former]
            {
                let numbers = Frame(copying: bytes).doubles
                for i in 0..<min(at, numbers.count) { all[i] = numbers[i] }
            }
            // A pass without tiles has added nothing up.
            for (i, value) in (sums[index]?[write.plane] ?? []).enumerated() where at + i < count {
                all[at + i] = value
            }
            values[write.plane][index] = Frame(doubles: all).withBytes { Array($0) }
        }
        sums[index] = nil
        begunBlends[index] = nil
        for plane in arrays.indices where plane != pipeline.output && lastUses[plane] < current { arrays[plane] = nil }
    }

    // MARK: Checkpoints

    /// Makes a checkpoint of what the passes before `boundary` write; it and those after it have written nothing yet.
    /// - Parameter safe: the checkpoint that there is.
    package func prepareCheckpoint(at boundary: Int, keeping safe: JobFolder.Checkpoint?) {
        for plane in pipeline.livePlanes(at: boundary) {
            guard let buffers = arrays[plane], let writer = pipeline.lastWriter(of: plane, before: boundary) else {
                continue
            }
            arrays[plane]?.turn(
                at: boundary, holding: buffers.number(writtenBy: writer),
                keeping: safe?.buffers[pipeline.planes[plane].name])
        }
    }

    /// The state between the passes before `boundary`, which are done, and the others, and the files that hold what is
    /// too big for the checkpoint.
    package func checkpoint(at boundary: Int, job: UInt64) -> (JobFolder.Checkpoint, files: [String]) {
        var checkpoint = JobFolder.Checkpoint(job: job, pass: boundary), files: [String] = []
        for plane in pipeline.livePlanes(at: boundary) {
            let description = pipeline.planes[plane]
            guard let writer = pipeline.lastWriter(of: plane, before: boundary) else { continue }
            if let buffers = arrays[plane] {
                let number = buffers.number(writtenBy: writer)
                checkpoint.buffers[description.name] = number
                files.append(Self.fileName(description, buffer: number))
            } else if let bytes = values[plane][writer] {
                checkpoint.values[description.name] = Data(bytes)
            }
        }
        return (checkpoint, files)
    }

    /// Whether a checkpoint can be one of this pipeline's.
    package static func accepts(_ checkpoint: JobFolder.Checkpoint, of pipeline: Pipeline) -> Bool {
        guard (1...pipeline.passes.count).contains(checkpoint.pass), pipeline.canCheckpoint(at: checkpoint.pass) else {
            return false
        }
        var (buffers, files, values): (Set<String>, Set<String>, Set<String>) = ([], [], [])
        for plane in pipeline.livePlanes(at: checkpoint.pass) {
            let description = pipeline.planes[plane]
            if case .values(let count, let element) = description.content {
                values.insert(description.name)
                guard checkpoint.values[description.name]?.count == count * element.size else { return false }
            } else {
                guard let buffer = checkpoint.buffers[description.name],
                    (0..<(pipeline.isRewritten(plane) ? Pipeline.buffersOfRewrittenPlane : 1)).contains(buffer)
                else { return false }
                buffers.insert(description.name)
                files.insert(fileName(description, buffer: buffer))
            }
        }
        return Set(checkpoint.buffers.keys) == buffers && Set(checkpoint.files.keys) == files
            && Set(checkpoint.values.keys) == values
    }

    /// The buffer of an array as the passes before `boundary` have left it; nil where nobody needs it any more.
    package func canvas(_ plane: Plane.ID, before boundary: Int) -> Canvas? {
        pipeline.lastWriter(of: plane, before: boundary).flatMap { arrays[plane]?.written(by: $0) }
    }
}

/// Names the bytes of an input: a plane as one pass has written it, or a part of it.
struct BlobKey: Hashable {
    var plane: Plane.ID
    var writer: Int
    var rect: Rect?
    var count: Int?
}

/// Why an input cannot be cut: a pipeline and its operations contradict each other.
enum PlaneError: Error, Equatable {
    case gone(plane: String)
    case otherSize(plane: String, bytes: Int, expected: Int)
}
