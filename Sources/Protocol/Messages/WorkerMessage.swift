public import Engine

/// A message of a worker.
public enum WorkerMessage: Sendable, Equatable {
    /// Begins a session.
    case hello(Hello)
    /// A model that was to be prepared is here: tasks may name it.
    case ready(model: ModelDigest, Precision)
    /// A model that was to be prepared cannot be served by this worker, and why.
    case unfit(model: ModelDigest, reason: String)
    case result(TaskResult)
    /// Gives one credit back, as a result does.
    case failure(TaskID, FailureKind)
    /// The task waits for blobs that are not here; it keeps its credit.
    case missing(TaskID, blobs: [BlobID])
    case heartbeat(Heartbeat)
    /// Asks for bytes of a model's file; `length` is at most `WireLimits.chunkBytes`.
    case fetch(ModelDigest, file: Int, offset: Int, length: Int)
    case leaving(reason: String)
}

/// The answer of a task; gives one credit back.
public struct TaskResult: Sendable, Equatable {
    public var task: TaskID
    /// Seconds of computing.
    public var seconds: Double
    /// The bytes of each output.
    public var outputs: [Frame]
    /// CRC-32C of each output. Not checked here: who merges the answer does that, in the pass over the values that
    /// looks whether they are numbers.
    public var checksums: [UInt32]
    /// A remark for the user, if there is one; one line.
    public var note: String?

    public init(task: TaskID, seconds: Double, outputs: [Frame], checksums: [UInt32], note: String? = nil) {
        self.task = task
        self.seconds = seconds
        self.outputs = outputs
        self.checksums = checksums
        self.note = note
    }
}

public struct Hello: Sendable, Hashable {
    /// Random, new for every session. The same session twice is the same hello, said again.
    public var session: UInt64
    /// The worker's name in the log.
    public var name: String
    public var host: String
    /// Tiles computed at the same time.
    public var lanes: Int
    /// The kind of kernels, for example `avx512`: equal kinds give equal bytes.
    public var kernels: String
    /// Bytes of memory of the machine.
    public var memoryBytes: Int
    /// Tasks that it may have unanswered.
    public var credit: Int
    /// Bytes that it keeps blobs in.
    public var blobBytes: Int

    public init(
        session: UInt64, name: String, host: String, lanes: Int, kernels: String, memoryBytes: Int, credit: Int,
        blobBytes: Int
    ) {
        self.session = session
        self.name = name
        self.host = host
        self.lanes = lanes
        self.kernels = kernels
        self.memoryBytes = memoryBytes
        self.credit = credit
        self.blobBytes = blobBytes
    }

    /// Whether a worker can be called so: in the log, on an allow-list and on the wire.
    public static func isName(_ text: some StringProtocol) -> Bool {
        (1...WireLimits.nameBytes).contains(text.utf8.count)
            && text.unicodeScalars.allSatisfy {
                $0.value > 0x20 && !(0x7F...0x9F).contains($0.value) && !$0.properties.isWhitespace
            }
    }
}

public enum FailureKind: Sendable, Hashable {
    /// Not started; given back because the worker leaves.
    case returned
    case error(String)
}

public struct Heartbeat: Sendable, Hashable {
    /// Grows while lanes compute, also within a task: that of a hung worker stands still.
    public var progress: UInt64
    public var running: [TaskID]

    public init(progress: UInt64, running: [TaskID]) {
        self.progress = progress
        self.running = running
    }
}

extension WorkerMessage {
    public init(frames: [Frame]) throws(WireError) {
        let header = try Tilefarm_V1_WorkerHeader(checking: frames)
        guard header.protocolVersion == WireLimits.protocolVersion else {
            throw .version(theirs: header.protocolVersion, ours: WireLimits.protocolVersion)
        }
        switch header.body {
        case .hello(let hello):
            try expect(1, of: frames, "hello")
            self = .hello(try Hello(hello))
        case .ready(let ready):
            try expect(1, of: frames, "ready")
            self = .ready(
                model: try digest(ready.model, "ready.model"),
                try Precision(wire: ready.precision, "ready.precision"))
        case .unfit(let unfit):
            try expect(1, of: frames, "unfit")
            self = .unfit(model: try digest(unfit.model, "unfit.model"), reason: cleaned(unfit.reason))
        case .result(let result):
            guard result.hasTask else { throw .missing(field: "result.task") }
            let task = try TaskID(result.task)
            // Whoever waits for this answer has to know that it will not come.
            do throws(WireError) { self = .result(try TaskResult(result, task, frames.dropFirst())) } catch {
                throw .unreadableAnswer(task, error)
            }
        case .missing(let missing):
            try expect(1, of: frames, "missing")
            guard missing.hasTask else { throw .missing(field: "missing.task") }
            _ = try bounded(missing.blobs.count, "missing.blobs", in: 1...TaskLimits.slots)
            var blobs: [BlobID] = []
            for blob in missing.blobs { blobs.append(try blobID(blob, "missing.blobs")) }
            self = .missing(try TaskID(missing.task), blobs: blobs)
        case .failure(let failure):
            guard failure.hasTask else { throw .missing(field: "failure.task") }
            let task = try TaskID(failure.task)
            do throws(WireError) {
                try expect(1, of: frames, "failure")
                self = .failure(task, try FailureKind(failure.kind))
            } catch {
                throw .unreadableAnswer(task, error)
            }
        case .heartbeat(let heartbeat):
            try expect(1, of: frames, "heartbeat")
            _ = try bounded(heartbeat.running.count, "heartbeat.running", in: 0...WireLimits.lanes)
            var running: [TaskID] = []
            running.reserveCapacity(heartbeat.running.count)
            for task in heartbeat.running { running.append(try TaskID(task)) }
            self = .heartbeat(Heartbeat(progress: heartbeat.progress, running: running))
        case .fetch(let fetch):
            try expect(1, of: frames, "fetch")
            self = .fetch(
                try digest(fetch.model, "fetch.model"),
                file: try bounded(fetch.file, "fetch.file", in: 0...WireLimits.modelFiles - 1),
                offset: try bounded(fetch.offset, "fetch.offset", in: 0...WireLimits.modelBytes),
                length: try bounded(fetch.length, "fetch.length", in: 1...WireLimits.chunkBytes))
        case .leaving(let leaving):
            try expect(1, of: frames, "leaving")
            self = .leaving(reason: cleaned(leaving.reason))
        case nil:
            throw .unknownMessage
        }
    }

    /// - Throws: for values that the receiver would refuse.
    public func frames() throws(WireError) -> [Frame] {
        var header = Tilefarm_V1_WorkerHeader()
        header.protocolVersion = WireLimits.protocolVersion
        var tensors: [Frame] = []
        switch self {
        case .hello(let hello):
            header.hello = try hello.wire()
        case .ready(let model, let precision):
            header.ready.model = .init(model.bytes)
            header.ready.precision = precision.rawValue
        case .unfit(let model, let reason):
            header.unfit.model = .init(model.bytes)
            header.unfit.reason = cleaned(reason)
        case .result(let result):
            header.result = try result.wire()
            tensors = result.outputs
        case .missing(let task, let blobs):
            header.missing.task = try task.wire()
            _ = try bounded(blobs.count, "missing.blobs", in: 1...TaskLimits.slots)
            header.missing.blobs = blobs.map { .init($0.bytes) }
        case .failure(let task, let kind):
            header.failure.task = try task.wire()
            switch kind {
            case .returned: header.failure.returned = .init()
            case .error(let error): header.failure.error = cleaned(error)
            }
        case .heartbeat(let heartbeat):
            header.heartbeat.progress = heartbeat.progress
            _ = try bounded(heartbeat.running.count, "heartbeat.running", in: 0...WireLimits.lanes)
            for task in heartbeat.running { header.heartbeat.running.append(try task.wire()) }
        case .fetch(let model, let file, let offset, let length):
            header.fetch.model = .init(model.bytes)
            header.fetch.file = try bounded32(file, "fetch.file", in: 0...WireLimits.modelFiles - 1)
            header.fetch.offset = UInt64(try bounded(offset, "fetch.offset", in: 0...WireLimits.modelBytes))
            header.fetch.length = try bounded32(length, "fetch.length", in: 1...WireLimits.chunkBytes)
        case .leaving(let reason):
            header.leaving.reason = cleaned(reason)
        }
        return [try header.frame()] + tensors
    }
}

extension FailureKind {
    init(_ wire: Tilefarm_V1_Failure.OneOf_Kind?) throws(WireError) {
        switch wire {
        case .returned: self = .returned
        case .error(let error): self = .error(cleaned(error))
        case nil: throw .missing(field: "failure.kind")
        }
    }
}

extension Hello {
    init(_ wire: Tilefarm_V1_Hello) throws(WireError) {
        self.init(
            session: wire.session,
            name: try text(wire.name, "hello.name", limit: WireLimits.nameBytes),
            host: try text(wire.host, "hello.host", limit: WireLimits.nameBytes),
            lanes: try bounded(wire.lanes, "hello.lanes", in: 1...WireLimits.lanes),
            kernels: try text(wire.kernels, "hello.kernels", limit: WireLimits.nameBytes),
            memoryBytes: try bounded(wire.memoryBytes, "hello.memory_bytes", in: 0...Int.max),
            credit: try bounded(wire.credit, "hello.credit", in: 1...WireLimits.credit),
            blobBytes: try bounded(wire.blobBytes, "hello.blob_bytes", in: 0...Int.max))
    }

    func wire() throws(WireError) -> Tilefarm_V1_Hello {
        var wire = Tilefarm_V1_Hello()
        wire.session = session
        wire.name = try text(name, "hello.name", limit: WireLimits.nameBytes)
        wire.host = cleaned(host, limit: WireLimits.nameBytes)
        wire.lanes = try bounded32(lanes, "hello.lanes", in: 1...WireLimits.lanes)
        wire.kernels = try text(kernels, "hello.kernels", limit: WireLimits.nameBytes)
        wire.memoryBytes = UInt64(try bounded(memoryBytes, "hello.memory_bytes", in: 0...Int.max))
        wire.credit = try bounded32(credit, "hello.credit", in: 1...WireLimits.credit)
        wire.blobBytes = UInt64(try bounded(blobBytes, "hello.blob_bytes", in: 0...Int.max))
        return wire
    }
}

extension TaskResult {
    private static func duration(_ seconds: Double) throws(WireError) -> Double {
        guard try finite(seconds, "result.seconds") >= 0 else {
            throw .outOfRange(field: "result.seconds", value: "\(seconds)", allowed: "0 and above")
        }
        return seconds
    }

    init(_ wire: Tilefarm_V1_Result, _ task: TaskID, _ frames: ArraySlice<Frame>) throws(WireError) {
        let seconds = try Self.duration(wire.seconds)
        _ = try bounded(wire.outputs.count, "result.outputs", in: 1...TaskLimits.slots)
        guard frames.count == wire.outputs.count else {
            throw .partCount(message: "result", expected: wire.outputs.count + 1, found: frames.count + 1)
        }
        for (frame, output) in zip(frames, wire.outputs) {
            let bytes = try bounded(output.bytes, "result.outputs.bytes", in: 0...TaskLimits.tensorBytes)
            try expect(bytes: bytes, of: frame, "an output")
        }
        let note = cleaned(wire.note)
        self.init(
            task: task, seconds: seconds, outputs: Array(frames), checksums: wire.outputs.map(\.crc32C),
            note: note.isEmpty ? nil : note)
    }

    func wire() throws(WireError) -> Tilefarm_V1_Result {
        var wire = Tilefarm_V1_Result()
        wire.task = try task.wire()
        wire.seconds = try Self.duration(seconds)
        wire.note = cleaned(note ?? "")
        _ = try bounded(outputs.count, "result.outputs", in: 1...TaskLimits.slots)
        guard checksums.count == outputs.count else {
            throw .partCount(message: "checksums", expected: outputs.count, found: checksums.count)
        }
        for (frame, checksum) in zip(outputs, checksums) {
            var output = Tilefarm_V1_Output()
            output.bytes = UInt64(try bounded(frame.byteCount, "result.outputs.bytes", in: 0...TaskLimits.tensorBytes))
            output.crc32C = checksum
            wire.outputs.append(output)
        }
        return wire
    }
}
