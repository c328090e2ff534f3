public import Engine

/// What a coordinator says.
public enum CoordinatorMessage: Sendable, Equatable {
    /// Answers a hello: the job and its model.
    case welcome(Welcome)
    /// Answers a hello too: this worker cannot serve this job, and why.
    case refused(String)
    /// The inputs have the sizes that `Work.inputByteCounts` says.
    case task(FarmTask, inputs: [Frame])
    /// Bytes of a model file, from `offset`.
    case chunk(file: Int, offset: Int, Frame)
    /// Answers a heartbeat.
    case heartbeat
    /// Answers whatever an unknown peer says: begin a new session with a hello.
    case introduceYourself
    /// The job is over.
    case stop(reason: String)
}

public struct Welcome: Sendable, Hashable {
    /// Of the hello that this answers.
    public var session: UInt64
    public var job: UInt64
    public var manifest: ModelManifest
    /// The only kind of kernels that this job takes; nil: any.
    public var requiredKernels: String?
    /// How often the worker says that it lives, `WireLimits.heartbeatMilliseconds`.
    public var heartbeatMilliseconds: Int
    /// Without a word, after which either side counts as gone: more than heartbeats tell where large frames hold them
    /// up.
    public var silenceMilliseconds: Int
    /// Of the model's weights and products.
    public var precision: Precision

    public init(
        session: UInt64, job: UInt64, manifest: ModelManifest, requiredKernels: String?, heartbeatMilliseconds: Int,
        silenceMilliseconds: Int,
        precision: Precision = .float32
    ) {
        self.session = session
        self.job = job
        self.manifest = manifest
        self.requiredKernels = requiredKernels
        self.heartbeatMilliseconds = heartbeatMilliseconds
        self.silenceMilliseconds = silenceMilliseconds
        self.precision = precision
    }
}

/// One try at one piece of work, without the bytes.
public struct FarmTask: Sendable, Hashable {
    public var id: TaskID
    public var model: ModelDigest
    public var work: Work

    public init(id: TaskID, model: ModelDigest, work: Work) {
        self.id = id
        self.model = model
        self.work = work
    }
}

extension CoordinatorMessage {
    public init(frames: [Frame]) throws(WireError) {
        let header = try Tilefarm_V1_CoordinatorHeader(checking: frames)
        // A refusal is understood in every version: it may be the answer to another one.
        if case .refused(let refused) = header.body {
            self = .refused(try text(refused.reason, "refused.reason", limit: WireLimits.textBytes))
            return
        }
        guard header.protocolVersion == WireLimits.protocolVersion else {
            throw .version(theirs: header.protocolVersion, ours: WireLimits.protocolVersion)
        }
        switch header.body {
        case .welcome(let welcome):
            try expect(1, of: frames, "welcome")
            self = .welcome(try Welcome(welcome))
        case .task(let task):
            guard task.hasID else { throw .missing(field: "task.id") }
            let id = try TaskID(task.id)
            let model = try digest(task.model, "task.model")
            let work = try Work(task)
            try work.expectInputs(Array(frames.dropFirst()))
            self = .task(FarmTask(id: id, model: model, work: work), inputs: Array(frames.dropFirst()))
        case .chunk(let chunk):
            try expect(2, of: frames, "chunk")
            try expect(
                bytes: bounded(chunk.length, "chunk.length", in: 1...WireLimits.chunkBytes), of: frames[1], "the chunk")
            self = .chunk(
                file: try bounded(chunk.file, "chunk.file", in: 0...WireLimits.modelFiles - 1),
                offset: try bounded(chunk.offset, "chunk.offset", in: 0...WireLimits.modelBytes), frames[1])
        case .heartbeat:
            try expect(1, of: frames, "heartbeat")
            self = .heartbeat
        case .introduceYourself:
            try expect(1, of: frames, "introduce_yourself")
            self = .introduceYourself
        case .stop(let stop):
            try expect(1, of: frames, "stop")
            self = .stop(reason: try text(stop.reason, "stop.reason", limit: WireLimits.textBytes))
        case .refused, nil:
            throw .unknownMessage
        }
    }

    /// - Throws: for values that the receiver would refuse.
    public func frames() throws(WireError) -> [Frame] {
        var header = Tilefarm_V1_CoordinatorHeader()
        header.protocolVersion = WireLimits.protocolVersion
        var tensors: [Frame] = []
        switch self {
        case .welcome(let welcome):
            header.welcome = try welcome.wire()
        case .refused(let reason):
            header.refused.reason = cleaned(reason)
        case .task(let task, let inputs):
            header.task.id = try task.id.wire()
            header.task.model = .init(task.model.bytes)
            header.task.work = try task.work.wire()
            try task.work.expectInputs(inputs)
            tensors = inputs
        case .chunk(let file, let offset, let bytes):
            header.chunk.file = try bounded32(file, "chunk.file", in: 0...WireLimits.modelFiles - 1)
            header.chunk.offset = UInt64(try bounded(offset, "chunk.offset", in: 0...WireLimits.modelBytes))
            header.chunk.length = try bounded32(bytes.byteCount, "chunk.length", in: 1...WireLimits.chunkBytes)
            tensors = [bytes]
        case .heartbeat:
            header.heartbeat = .init()
        case .introduceYourself:
            header.introduceYourself = .init()
        case .stop(let reason):
            header.stop.reason = cleaned(reason)
        }
        return [try header.frame()] + tensors
    }
}

extension Welcome {
    init(_ wire: Tilefarm_V1_Welcome) throws(WireError) {
        _ = try bounded(wire.files.count, "welcome.files", in: 1...WireLimits.modelFiles)
        var files: [ModelManifest.File] = []
        for file in wire.files {
            files.append(
                ModelManifest.File(
                    name: file.name,
                    size: try bounded(file.size, "welcome.files.size", in: 0...WireLimits.modelBytes),
                    sha256: try digest(file.sha256, "welcome.files.sha256")))
        }
        let manifest: ModelManifest
        do { manifest = try ModelManifest(files: files) } catch { throw .model(error) }
        // The indices of fetch messages count in this order.
        guard manifest.files == files else {
            throw .outOfRange(field: "welcome.files", value: "out of order", allowed: "the order of the names' bytes")
        }
        guard manifest.digest == (try digest(wire.model, "welcome.model")) else {
            throw .outOfRange(field: "welcome.model", value: "another digest", allowed: "that of the files listed")
        }
        let kernels = try text(wire.requiredKernels, "welcome.required_kernels", limit: WireLimits.nameBytes)
        guard let precision = Precision(rawValue: wire.precision) else {
            throw .outOfRange(
                field: "welcome.precision", value: cleaned(wire.precision, limit: WireLimits.nameBytes),
                allowed: Precision.allCases.map(\.rawValue).joined(separator: ", "))
        }
        self.init(
            session: wire.session, job: wire.job, manifest: manifest, requiredKernels: kernels.isEmpty ? nil : kernels,
            heartbeatMilliseconds: try bounded(
                wire.heartbeatMilliseconds, "welcome.heartbeat_milliseconds", in: WireLimits.heartbeatMilliseconds),
            silenceMilliseconds: try bounded(
                wire.silenceMilliseconds, "welcome.silence_milliseconds", in: WireLimits.silenceMilliseconds),
            precision: precision)
    }

    func wire() throws(WireError) -> Tilefarm_V1_Welcome {
        var wire = Tilefarm_V1_Welcome()
        wire.session = session
        wire.job = job
        wire.model = .init(manifest.digest.bytes)
        wire.files = manifest.files.map { file in
            var wire = Tilefarm_V1_ModelFile()
            wire.name = file.name
            wire.size = UInt64(file.size)
            wire.sha256 = .init(file.sha256.bytes)
            return wire
        }
        wire.requiredKernels = try text(requiredKernels ?? "", "welcome.required_kernels", limit: WireLimits.nameBytes)
        wire.heartbeatMilliseconds = try bounded32(
            heartbeatMilliseconds, "welcome.heartbeat_milliseconds", in: WireLimits.heartbeatMilliseconds)
        wire.silenceMilliseconds = try bounded32(
            silenceMilliseconds, "welcome.silence_milliseconds", in: WireLimits.silenceMilliseconds)
        wire.precision = precision.rawValue
        return wire
    }
}
