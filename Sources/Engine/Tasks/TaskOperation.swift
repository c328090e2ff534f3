/// A request to a worker for work on one tile: a value that says all but the bytes of its inputs.
///
/// An operation is one file: the value, its slots, and what is done. Sizes, checks, byte counts and the wire follow
/// from `code` and the slots. It becomes known by a line in `OperationTable.standard`.
public protocol TaskOperation: Sendable, Hashable {
    /// On the wire; lower case, with hyphens.
    static var name: String { get }
    /// A value to decode into.
    static var blank: Self { get }
    /// Names every field in the order of its number on the wire, with the values that it may have. It is called to
    /// write a value and to read one, so nothing can be sent that would not be received.
    mutating func code(_ fields: inout FieldCoder) throws(FieldError)
    /// The inputs; called for values whose fields are within their bounds alone.
    var inputs: [Slot] { get }
    /// The outputs, at least one.
    var outputs: [Slot] { get }
    /// Computes the outputs.
    /// - Returns: what the user should know of it, in one line; nil if nothing.
    /// - Throws: errors whose description is one line.
    func perform(on model: any TaskModel, _ tensors: any TaskTensors, workspace: Workspace) throws -> String?
}

/// A model that operations run on, shared by the lanes of a process: `TileDenoiser`, `StableDiffusion`.
public protocol TaskModel: AnyObject, Sendable {
    /// Lets go of what can be loaded again: another model is about to be used.
    func release()
}

extension TaskModel {
    public func release() {}
}

/// An input's bytes.
public protocol TaskTensor {
    var byteCount: Int { get }
    /// Fills `values` with those from `start` on, as numbers.
    /// - Parameter element: what the bytes are, float32 or float16.
    func read(_ element: CanvasElement, from start: Int, into values: inout MutableSpan<Float>)
    /// The float32 values.
    func withFloats<R>(_ body: (Span<Float>) throws -> R) throws -> R
    var floats: [Float] { get }
    var doubles: [Double] { get }
    /// The bytes as UTF-8.
    var text: String { get }
}

/// The inputs and outputs of a task that is being done.
public protocol TaskTensors {
    /// Where an input comes from.
    func source(_ input: Int) -> SlotSource
    /// The bytes of an input.
    /// - Throws: `MissingInput` for a blob that is not here: the task is done once it has come.
    func tensor(_ input: Int) throws -> any TaskTensor
    /// Writes an output: `fill` writes every value of it, part by part.
    func write(_ output: Int, _ fill: ((_ values: Span<Float>, _ start: Int) -> Void) throws -> Void) throws
    /// Writes an output of float64 values.
    func write(_ output: Int, doubles: [Double])
}

/// A blob that is not here.
public struct MissingInput: Error, Hashable {
    public var blob: BlobID

    public init(_ blob: BlobID) { self.blob = blob }
}

/// The operations that a program knows, by name.
public struct OperationTable: Sendable {
    private let operations: [String: any TaskOperation.Type]

    public init(_ operations: [any TaskOperation.Type]) {
        self.operations = Dictionary(operations.map { ($0.name, $0) }) { first, _ in first }
    }

    /// A table with one operation more.
    public func adding(_ operation: any TaskOperation.Type) -> OperationTable {
        OperationTable(operations.values + [operation])
    }

    public subscript(name: String) -> (any TaskOperation.Type)? { operations[name] }

    public var names: [String] { operations.keys.sorted() }
}

extension OperationTable {
    /// Everything that a worker of this version does.
    public static let standard = OperationTable([
        DenoisePixels.self, DenoiseLatents.self, EncodeText.self, Autoencode.self,
    ])
}

/// A task without the bytes of its inputs: an operation, and where it has each input from.
public struct TileTask: Sendable, Equatable {
    public var operation: any TaskOperation
    /// One for each of the operation's inputs.
    public var sources: [SlotSource]

    public init(_ operation: any TaskOperation, sources: [SlotSource]) {
        self.operation = operation
        self.sources = sources
    }

    /// Bytes of each frame that comes with the task.
    public var frameByteCounts: [Int] {
        zip(operation.inputs, sources).compactMap { slot, source in source == .frame ? slot.byteCount : nil }
    }

    public static func == (left: Self, right: Self) -> Bool {
        left.sources == right.sources && left.operation.isEqual(to: right.operation)
    }
}

extension TaskOperation {
    public func isEqual(to other: any TaskOperation) -> Bool { (other as? Self) == self }

    /// Bytes of each output.
    public var outputByteCounts: [Int] { outputs.map(\.byteCount) }

    /// The fields as they are sent.
    /// - Throws: for values that a receiver would refuse.
    public func encoded() throws(FieldError) -> [UInt8] {
        var fields = FieldCoder()
        var copy = self
        try copy.code(&fields)
        try copy.checkSlots()
        return fields.written
    }

    /// - Throws: for what is no such operation, or has values that are not allowed.
    public init(encoded bytes: [UInt8]) throws(FieldError) {
        var fields = try FieldCoder(reading: bytes)
        self = Self.blank
        try code(&fields)
        try checkSlots()
    }

    /// No slot is larger than a message's part may be, so that sizes are safe to compute with and to allocate by.
    private func checkSlots() throws(FieldError) {
        for slot in inputs + outputs {
            guard slot.byteCount(limit: TaskLimits.tensorBytes) != nil else {
                throw .outOfRange(
                    field: "\(Self.name).\(slot.role.rawValue)",
                    value: slot.shape.map { "\($0)" }.joined(separator: "x") + " of \(slot.element.rawValue)",
                    allowed: "up to \(TaskLimits.tensorBytes) bytes")
            }
        }
    }
}

/// Bounds on what a task may say. Nothing is allocated, and no arithmetic done, by a number that was not held against
/// these.
public enum TaskLimits {
    /// Bytes of one tensor: a window of 4096x4096x4 float32.
    public static let tensorBytes = 256 << 20
    /// Inputs, or outputs, of one task.
    public static let slots = 8
    /// Pixels along a side of a canvas or an image.
    public static let imageSide = 1 << 20
    /// Pixels along a side of a window, and of the low-resolution part sent with it.
    public static let windowSide = 4096
    public static let channels = 64
    /// Pixels per latent and axis.
    public static let autoencoderFactor = 64
    /// Channels within an autoencoder, and groups of its group norms.
    public static let featureChannels = 8192
    /// Group norms of one half of an autoencoder.
    public static let norms = 1024
    /// UTF-8 bytes of a prompt, positions of a text encoder, and its hidden size.
    public static let promptBytes = 16 << 10
    public static let tokens = 1024
    public static let embeddingWidth = 8192
    public static let noiseLevel = 999_999
    /// Steps: noise tells them apart by 16 bits.
    public static let steps = 65_535
    /// Stages of a job: noise tells them apart by 8 bits.
    public static let stages = 255
}
