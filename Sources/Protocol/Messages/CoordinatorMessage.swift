public import Engine

/// A message of a coordinator.
public enum CoordinatorMessage: Sendable, Equatable {
    /// Answers a hello: the session has begun.
    case welcome(Welcome)
    /// Answers a hello too: this worker cannot serve here, and why.
    case refused(String)
    /// Tasks are going to name this model.
    case prepare(Preparation)
    /// No task names this model any more.
    case release(ModelDigest)
    /// The inputs have the sizes that `TileTask.frameByteCounts` says.
    case task(FarmTask, inputs: [Frame])
    /// Bytes that tasks name; not checked here: whoever keeps them compares their SHA-256.
    case blob(BlobID, Frame)
    /// Bytes of a model's file, from `offset`.
    case chunk(ModelDigest, file: Int, offset: Int, Frame)
    /// Answers a heartbeat.
    case heartbeat
    /// Answers whatever an unknown peer says: begin a new session with a hello.
    case introduceYourself
    /// The farm is over.
    case stop(reason: String)
}

public struct Welcome: Sendable, Hashable {
    /// The session of the hello that this answers.
    public var session: UInt64
    /// The only kind of kernels that is taken; nil: any.
    public var requiredKernels: String?
    /// How often the worker says that it lives, `WireLimits.heartbeatMilliseconds`.
    public var heartbeatMilliseconds: Int
    /// Milliseconds without a word after which either side counts as gone: more than heartbeats tell where large frames
    /// hold them up.
    public var silenceMilliseconds: Int

    public init(session: UInt64, requiredKernels: String?, heartbeatMilliseconds: Int, silenceMilliseconds: Int) {
        self.session = session
        self.requiredKernels = requiredKernels
        self.heartbeatMilliseconds = heartbeatMilliseconds
        self.silenceMilliseconds = silenceMilliseconds
    }
}

/// A model that tasks are going to name by its digest.
public struct Preparation: Sendable, Hashable {
    public var manifest: ModelManifest
    /// How its weights stand in memory, and its products.
    public var precision: Precision

    public init(manifest: ModelManifest, precision: Precision) {
        self.manifest = manifest
        self.precision = precision
    }
}

extension CoordinatorMessage {
    /// - Parameter operations: those that this program knows
    public init(frames: [Frame], operations: OperationTable = .standard) throws(WireError) {
        let header = try Tilefarm_V1_CoordinatorHeader(checking: frames)
        // A refusal is understood in every version: it may be the answer to another one.
        if case .refused(let refused) = header.body {
            self = .refused(cleaned(refused.reason))
            return
        }
        guard header.protocolVersion == WireLimits.protocolVersion else {
            throw .version(theirs: header.protocolVersion, ours: WireLimits.protocolVersion)
        }
        switch header.body {
        case .welcome(let welcome):
            try expect(1, of: frames, "welcome")
            self = .welcome(try Welcome(welcome))
        case .prepare(let prepare):
            try expect(1, of: frames, "prepare")
            self = .prepare(try Preparation(prepare))
        case .release(let release):
            try expect(1, of: frames, "release")
            self = .release(try digest(release.model, "release.model"))
        case .task(let wire):
            guard wire.hasID else { throw .missing(field: "task.id") }
            let id = try TaskID(wire.id)
            do throws(WireError) {
                let task = try FarmTask(wire, id: id, operations)
                try task.expectInputs(frames.dropFirst())
                self = .task(task, inputs: Array(frames.dropFirst()))
            } catch {
                throw .unreadableTask(id, error)
            }
        case .blob(let blob):
            try expect(2, of: frames, "blob")
            let length = try bounded(blob.length, "blob.length", in: 0...TaskLimits.tensorBytes)
            try expect(bytes: length, of: frames[1], "the blob")
            self = .blob(try blobID(blob.sha256, "blob.sha256"), frames[1])
        case .chunk(let chunk):
            try expect(2, of: frames, "chunk")
            try expect(
                bytes: bounded(chunk.length, "chunk.length", in: 1...WireLimits.chunkBytes), of: frames[1], "the chunk")
            self = .chunk(
                try digest(chunk.model, "chunk.model"),
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
            self = .stop(reason: cleaned(stop.reason))
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
        case .prepare(let preparation):
            header.prepare = try preparation.wire()
        case .release(let model):
            header.release.model = .init(model.bytes)
        case .task(let task, let inputs):
            header.task = try task.wire()
            try task.expectInputs(inputs[...])
            tensors = inputs
        case .blob(let id, let bytes):
            header.blob.sha256 = .init(id.bytes)
            header.blob.length = UInt64(try bounded(bytes.byteCount, "blob.length", in: 0...TaskLimits.tensorBytes))
            tensors = [bytes]
        case .chunk(let model, let file, let offset, let bytes):
            header.chunk.model = .init(model.bytes)
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
        let kernels = try text(wire.requiredKernels, "welcome.required_kernels", limit: WireLimits.nameBytes)
        self.init(
            session: wire.session, requiredKernels: kernels.isEmpty ? nil : kernels,
            heartbeatMilliseconds: try bounded(
                wire.heartbeatMilliseconds, "welcome.heartbeat_milliseconds", in: WireLimits.heartbeatMilliseconds),
            silenceMilliseconds: try bounded(
                wire.silenceMilliseconds, "welcome.silence_milliseconds", in: WireLimits.silenceMilliseconds))
    }

    func wire() throws(WireError) -> Tilefarm_V1_Welcome {
        var wire = Tilefarm_V1_Welcome()
        wire.session = session
        wire.requiredKernels = try text(
            requiredKernels ?? "", "welcome.required_kernels", limit: WireLimits.nameBytes)
        wire.heartbeatMilliseconds = try bounded32(
            heartbeatMilliseconds, "welcome.heartbeat_milliseconds", in: WireLimits.heartbeatMilliseconds)
        wire.silenceMilliseconds = try bounded32(
            silenceMilliseconds, "welcome.silence_milliseconds", in: WireLimits.silenceMilliseconds)
        return wire
    }
}

extension Preparation {
    init(_ wire: Tilefarm_V1_Prepare) throws(WireError) {
        _ = try bounded(wire.files.count, "prepare.files", in: 1...WireLimits.modelFiles)
        var files: [ModelManifest.File] = []
        for file in wire.files {
            files.append(
                ModelManifest.File(
                    name: file.name,
                    size: try bounded(file.size, "prepare.files.size", in: 0...WireLimits.modelBytes),
                    sha256: try digest(file.sha256, "prepare.files.sha256")))
        }
        let manifest: ModelManifest
        do { manifest = try ModelManifest(files: files) } catch { throw .model(error) }
        // The indices of fetch messages count in this order.
        guard manifest.files == files else {
            throw .outOfRange(field: "prepare.files", value: "out of order", allowed: "the order of the names' bytes")
        }
        guard manifest.digest == (try digest(wire.model, "prepare.model")) else {
            throw .outOfRange(field: "prepare.model", value: "another digest", allowed: "that of the files listed")
        }
        self.init(manifest: manifest, precision: try Precision(wire: wire.precision, "prepare.precision"))
    }

    func wire() throws(WireError) -> Tilefarm_V1_Prepare {
        var wire = Tilefarm_V1_Prepare()
        wire.model = .init(manifest.digest.bytes)
        wire.files = manifest.files.map { file in
            var wire = Tilefarm_V1_ModelFile()
            wire.name = file.name
            wire.size = UInt64(file.size)
            wire.sha256 = .init(file.sha256.bytes)
            return wire
        }
        wire.precision = precision.rawValue
        return wire
    }
}

extension Precision {
    init(wire: String, _ field: String) throws(WireError) {
        guard let precision = Precision(rawValue: wire) else {
            throw .outOfRange(
                field: field, value: cleaned(wire, limit: WireLimits.nameBytes),
                allowed: Precision.allCases.map(\.rawValue).joined(separator: ", "))
        }
        self = precision
    }
}
