import Engine
import Protocol

/// A message as an input: a byte that says from whom it is (bit 0), whether frames get the sizes that the header
/// promises and it our version (bit 1) and how many frames follow the header (bits 2 to 4), three bytes with the size
/// of each, the header. What stands in those frames no decoder looks at.
/// - Returns: whether it is a message.
@discardableResult
func readMessage(_ input: [UInt8]) throws -> Bool {
    var input = input[...]
    guard let flags = input.popFirst() else { return false }
    var sizes: [Int] = []
    for _ in 0..<flags >> 2 & 7 {
        guard input.count >= 3 else { return false }
        sizes.append(input.prefix(3).reversed().reduce(0) { $0 << 8 | Int($1) } & 0x1F_FFFF)
        input = input.dropFirst(3)
    }
    let header = Frame(copying: input)
    let repairs = flags & 2 != 0
    if flags & 1 == 0 {
        guard let message = try decode(header, sizes, repairs, WorkerMessage.init(frames:)) else { return false }
        try expect(
            try WorkerMessage(frames: message.frames()) == message, "\(message) is not what it is when said again")
    } else {
        let read = { (frames: [Frame]) throws(WireError) in try CoordinatorMessage(frames: frames) }
        guard let message = try decode(header, sizes, repairs, read) else { return false }
        try expect(
            try CoordinatorMessage(frames: message.frames()) == message, "\(message) is not what it is when said again")
        switch message {
        case .task(let task, let inputs):
            let operation = task.task.operation
            let sizes = (operation.inputs + operation.outputs).map(\.byteCount)
            try expect(
                sizes.allSatisfy { (0...TaskLimits.tensorBytes).contains($0) }, "\(task) takes \(sizes) bytes")
            try expect(
                inputs.map(\.byteCount) == task.task.frameByteCounts,
                "\(task) has inputs of other sizes than its slots")
            try expect(
                task.task.sources.count == operation.inputs.count, "\(task) has not one source for each input")
        case .prepare(let preparation):
            try expect(
                (0...WireLimits.modelBytes).contains(preparation.manifest.totalBytes),
                "\(preparation) has impossible files")
        default: break
        }
    }
    return true
}

/// The message, nil where it is refused. With `repairs`, it is changed as the refusals ask for, so that the fuzzer need
/// not guess sizes.
private func decode<Message>(
    _ header: Frame, _ sizes: [Int], _ repairs: Bool, _ decode: ([Frame]) throws(WireError) -> Message
) throws -> Message? {
    var header = header
    var frames = sizes.map { Frame(zeroBytes: $0) }
    for _ in 0..<8 {
        do throws(WireError) {
            return try decode([header] + frames)
        } catch {
            try expect(!error.description.contains("\n"), "\(error) is not one line")
            guard repairs else { return nil }
            // Whose it is does not matter here.
            let cause =
                switch error {
                case .unreadableTask(_, let cause), .unreadableAnswer(_, let cause): cause
                default: error
                }
            switch cause {
            case .version(_, let ours):
                // So that inputs outlive their version: of a field that is there twice the last value counts.
                header = Frame(copying: header.withBytes { Array($0) } + [0x08, UInt8(ours)])
            case .partCount(_, let expected, _)
            where expected >= 1 && expected <= WireLimits.parts && expected != frames.count + 1:
                frames = (0..<expected - 1).map { $0 < frames.count ? frames[$0] : Frame(zeroBytes: 0) }
            case .frameSize(_, let expected, let found) where expected <= 1 << 20:
                guard let wrong = frames.firstIndex(where: { $0.byteCount == found }) else { return nil }
                frames[wrong] = Frame(zeroBytes: expected)
            default: return nil
            }
        }
    }
    return nil
}
