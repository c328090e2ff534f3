public import Engine

/// One try at one tile's task, without the bytes.
public struct FarmTask: Sendable, Equatable {
    public var id: TaskID
    /// The model that the operation runs on.
    public var model: ModelDigest
    public var task: TileTask

    public init(id: TaskID, model: ModelDigest, task: TileTask) {
        self.id = id
        self.model = model
        self.task = task
    }
}

extension FarmTask {
    /// Checks everything; afterwards the slots' sizes are safe to compute and to allocate by.
    init(_ wire: Tilefarm_V1_Task, id: TaskID, _ operations: OperationTable) throws(WireError) {
        self.id = id
        model = try digest(wire.model, "task.model")
        let name = try text(wire.operation, "task.operation", limit: WireLimits.nameBytes)
        guard let type = operations[name] else {
            throw .unknownOperation(name: name, known: operations.names)
        }
        _ = try bounded(wire.sources.count, "task.sources", in: 0...TaskLimits.slots)
        let operation: any TaskOperation
        do { operation = try type.init(encoded: [UInt8](wire.parameters)) } catch { throw .fields(name, error) }
        let inputs = operation.inputs
        guard inputs.count == wire.sources.count else {
            throw .outOfRange(
                field: "task.sources", value: "\(wire.sources.count)", allowed: "\(inputs.count), those of \(name)")
        }
        var sources: [SlotSource] = []
        for source in wire.sources { sources.append(try SlotSource(source)) }
        task = TileTask(operation, sources: sources)
    }

    func wire() throws(WireError) -> Tilefarm_V1_Task {
        var wire = Tilefarm_V1_Task()
        wire.id = try id.wire()
        wire.model = .init(model.bytes)
        let name = type(of: task.operation).name
        wire.operation = name
        do { wire.parameters = .init(try task.operation.encoded()) } catch { throw .fields(name, error) }
        guard task.sources.count == task.operation.inputs.count, task.sources.count <= TaskLimits.slots else {
            throw .outOfRange(
                field: "task.sources", value: "\(task.sources.count)",
                allowed: "\(task.operation.inputs.count), those of \(name)")
        }
        wire.sources = task.sources.map { $0.wire() }
        return wire
    }

    func expectInputs(_ frames: ArraySlice<Frame>) throws(WireError) {
        let counts = task.frameByteCounts
        guard frames.count == counts.count else {
            throw .partCount(message: "task", expected: counts.count + 1, found: frames.count + 1)
        }
        for (frame, count) in zip(frames, counts) { try expect(bytes: count, of: frame, "an input of the task") }
    }
}

extension SlotSource {
    init(_ wire: Tilefarm_V1_Source) throws(WireError) {
        switch wire.source {
        case .frame: self = .frame
        case .blob(let bytes): self = .blob(try blobID(bytes, "task.sources.blob"))
        case .noise(let word):
            guard let field = NoiseField(word: word) else {
                throw .outOfRange(field: "task.sources.noise", value: "\(word)", allowed: "a purpose of noise")
            }
            self = .noise(field)
        case nil: throw .missing(field: "task.sources.source")
        }
    }

    func wire() -> Tilefarm_V1_Source {
        var wire = Tilefarm_V1_Source()
        switch self {
        case .frame: wire.frame = .init()
        case .blob(let id): wire.blob = .init(id.bytes)
        case .noise(let field): wire.noise = field.word
        }
        return wire
    }
}

func blobID(_ bytes: some Collection<UInt8>, _ field: String) throws(WireError) -> BlobID {
    guard let id = BlobID(bytes: bytes) else { throw .digest(field: field, bytes: bytes.count) }
    return id
}

extension TileTask {
    /// The inputs that are blobs, and their bytes.
    public var blobs: [(id: BlobID, bytes: Int)] {
        zip(sources, operation.inputs).compactMap { source, slot in
            if case .blob(let id) = source { (id, slot.byteCount) } else { nil }
        }
    }
}

extension Frame {
    /// The name of these bytes: their SHA-256.
    public var blobID: BlobID { BlobID(sha256: withBytes { ContentDigest(of: $0) }.bytes) }
}
