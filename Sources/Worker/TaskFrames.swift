import Engine
import Protocol

/// The inputs of a task as they came, and its outputs as they are going to be sent.
final class TaskFrames: TaskTensors {
    private let sources: [SlotSource]
    private let inputSlots: [Slot]
    private let slots: [Slot]
    /// The frames of the message, each at the input that it is of.
    private let frames: [Frame?]
    private let blobs: BlobStore
    private var outputs: [Frame?]

    /// - Parameter inputs: the frames that came with the task, in the order of the inputs that are frames
    init(_ task: TileTask, inputs: [Frame], blobs: BlobStore) {
        sources = task.sources
        inputSlots = task.operation.inputs
        slots = task.operation.outputs
        var rest = inputs[...]
        frames = task.sources.map { $0 == .frame ? rest.popFirst() : nil }
        outputs = slots.map { _ in nil }
        self.blobs = blobs
    }

    func source(_ input: Int) -> SlotSource { sources[input] }

    func tensor(_ input: Int) throws -> any TaskTensor {
        if let frame = frames[input] { return frame }
        if case .blob(let id) = sources[input] {
            guard let bytes = blobs.bytes(of: id) else { throw MissingInput(id) }
            let size = inputSlots[input].byteCount
            guard bytes.byteCount == size else {
                throw TaskFailure(reason: "blob \(id) has \(bytes.byteCount) bytes, the task's input \(size)")
            }
            return bytes
        }
        throw TaskError.otherNoise
    }

    func write(_ output: Int, _ fill: ((_ values: Span<Float>, _ start: Int) -> Void) throws -> Void) throws {
        let slot = slots[output]
        outputs[output] = try Frame(
            count: slot.count, of: slot.element == .float16 ? .float16 : .float32, filledBy: fill)
    }

    func write(_ output: Int, doubles: [Double]) { outputs[output] = Frame(doubles: doubles) }

    /// The outputs that were written, with the CRC-32C of each.
    /// - Throws: `TaskFailure` where an output lacks, or has values that are not finite.
    func answer() throws(TaskFailure) -> (outputs: [Frame], checksums: [UInt32]) {
        var answer: (outputs: [Frame], checksums: [UInt32]) = ([], [])
        for (frame, slot) in zip(outputs, slots) {
            guard let frame, frame.byteCount == slot.byteCount else {
                throw TaskFailure(reason: "the task came to no \(slot.role.rawValue)")
            }
            let sum = frame.checksum(of: slot.element.checksumElements)
            // The coordinator would take it for a lie.
            guard sum.isFinite else {
                throw TaskFailure(
                    reason: "the answer has values that are not finite, or too large for the canvas's storage")
            }
            answer.outputs.append(frame)
            answer.checksums.append(sum.crc32c)
        }
        return answer
    }
}

/// Why a task was not done, in one line.
struct TaskFailure: Error {
    var reason: String
}
