/// What a worker says.
public enum WorkerMessage: Sendable, Equatable {
    /// Begins a session.
    case hello(Hello)
    /// The model is loaded, `credit` tasks may be sent.
    case ready(credit: Int, model: ModelDigest)
    /// The answer of a task, its CRC-32C, `seconds` of computing, and what the user should know of it, if anything;
    /// gives one credit back. The sum is not checked here: who merges the answer does that, in the same pass in which
    /// its values are.
    case result(TaskID, seconds: Double, Frame, checksum: UInt32, note: String?)
    /// Gives one credit back too.
    case failure(TaskID, FailureKind)
    case heartbeat(Heartbeat)
    /// Asks for bytes of a model file; `length` is at most `WireLimits.chunkBytes`.
    case fetch(file: Int, offset: Int, length: Int)
    case leaving(reason: String)
}

public struct Hello: Sendable, Hashable {
    /// Random, new for every session. The same session twice is the same hello, said again.
    public var session: UInt64
    /// What the log calls the worker.
    public var name: String
    public var host: String
    /// Tiles computed at the same time.
    public var lanes: Int
    /// The kind of kernels, for example `avx512`: equal kinds give equal bytes.
    public var kernels: String
    /// Of the machine.
    public var memoryBytes: Int

    public init(session: UInt64, name: String, host: String, lanes: Int, kernels: String, memoryBytes: Int) {
        self.session = session
        self.name = name
        self.host = host
        self.lanes = lanes
        self.kernels = kernels
        self.memoryBytes = memoryBytes
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
                credit: try bounded(ready.credit, "ready.credit", in: 1...WireLimits.credit),
                model: try digest(ready.model, "ready.model"))
        case .result(let result):
            try expect(2, of: frames, "result")
            guard result.hasTask else { throw .missing(field: "result.task") }
            try expect(
                bytes: bounded(result.bytes, "result.bytes", in: 0...WireLimits.tensorBytes), of: frames[1],
                "the answer")
            guard result.seconds.isFinite, result.seconds >= 0 else { throw .notFinite(field: "result.seconds") }
            let note = try text(result.note, "result.note", limit: WireLimits.textBytes)
            self = .result(
                try TaskID(result.task), seconds: result.seconds, frames[1], checksum: result.crc32C,
                note: note.isEmpty ? nil : note)
        case .failure(let failure):
            try expect(1, of: frames, "failure")
            guard failure.hasTask else { throw .missing(field: "failure.task") }
            let task = try TaskID(failure.task)
            switch failure.kind {
            case .returned: self = .failure(task, .returned)
            case .error(let error):
                self = .failure(task, .error(try text(error, "failure.error", limit: WireLimits.textBytes)))
            case nil: throw .missing(field: "failure.kind")
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
                file: try bounded(fetch.file, "fetch.file", in: 0...WireLimits.modelFiles - 1),
                offset: try bounded(fetch.offset, "fetch.offset", in: 0...WireLimits.modelBytes),
                length: try bounded(fetch.length, "fetch.length", in: 1...WireLimits.chunkBytes))
        case .leaving(let leaving):
            try expect(1, of: frames, "leaving")
            self = .leaving(reason: try text(leaving.reason, "leaving.reason", limit: WireLimits.textBytes))
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
        case .ready(let credit, let model):
            header.ready.credit = try bounded32(credit, "ready.credit", in: 1...WireLimits.credit)
            header.ready.model = .init(model.bytes)
        case .result(let task, let seconds, let answer, let checksum, let note):
            header.result.task = try task.wire()
            header.result.seconds = try finite(seconds, "result.seconds")
            header.result.bytes = UInt64(try bounded(answer.byteCount, "result.bytes", in: 0...WireLimits.tensorBytes))
            header.result.crc32C = checksum
            header.result.note = cleaned(note ?? "")
            tensors = [answer]
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
        case .fetch(let file, let offset, let length):
            header.fetch.file = try bounded32(file, "fetch.file", in: 0...WireLimits.modelFiles - 1)
            header.fetch.offset = UInt64(try bounded(offset, "fetch.offset", in: 0...WireLimits.modelBytes))
            header.fetch.length = try bounded32(length, "fetch.length", in: 1...WireLimits.chunkBytes)
        case .leaving(let reason):
            header.leaving.reason = cleaned(reason)
        }
        return [try header.frame()] + tensors
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
            memoryBytes: try bounded(wire.memoryBytes, "hello.memory_bytes", in: 0...Int.max))
    }

    func wire() throws(WireError) -> Tilefarm_V1_Hello {
        var wire = Tilefarm_V1_Hello()
        wire.session = session
        wire.name = try text(name, "hello.name", limit: WireLimits.nameBytes)
        wire.host = cleaned(host, limit: WireLimits.nameBytes)
        wire.lanes = try bounded32(lanes, "hello.lanes", in: 1...WireLimits.lanes)
        wire.kernels = try text(kernels, "hello.kernels", limit: WireLimits.nameBytes)
        wire.memoryBytes = UInt64(try bounded(memoryBytes, "hello.memory_bytes", in: 0...Int.max))
        return wire
    }
}
