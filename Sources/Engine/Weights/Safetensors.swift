import Foundation

/// A safetensors file, of which tensors are read one by one. Everything in the header is checked before the first
/// tensor is read, by the rules of the reference implementation (huggingface/safetensors, `Metadata::validate`): the
/// data is covered exactly once, without overlap, hole or remainder. Tensors may stand at any alignment, as in the
/// reference.
public final class Safetensors: Sendable {
    /// The reference implementation's limit on the header, in bytes.
    public static let headerLimit = 100_000_000

    public let url: URL
    private let file: RandomAccessFile
    private let entries: [String: Entry]
    private let dataStart: Int

    private struct Entry {
        var type: ElementType
        var shape: [Int]
        var range: Range<Int>  // in bytes from dataStart
    }

    /// Opens a file and checks its header.
    /// - Throws: `SafetensorsError`.
    public init(url: URL) throws {
        let path = url.path
        do {
            file = try RandomAccessFile(url: url)
            guard file.count >= 8 else { throw SafetensorsError.tooShort(file: path, size: file.count) }
            let length = UInt64(littleEndian: try file.elements(UInt64.self, in: 0..<8)[0])
            guard length <= Self.headerLimit else {
                throw SafetensorsError.headerTooLong(file: path, length: length, limit: Self.headerLimit)
            }
            dataStart = 8 + Int(length)
            guard dataStart <= file.count else {
                throw SafetensorsError.headerPastEnd(file: path, length: Int(length), fileSize: file.count)
            }
            let json = try file.elements(UInt8.self, in: 8..<dataStart)
            entries = try Self.entries(json, dataSize: file.count - dataStart, path: path)
        } catch let error as FileAccessError {
            throw SafetensorsError.unreadable(file: path, reason: error.reason)
        }
        self.url = url
    }

    /// The tensors' names, sorted.
    public var names: [String] { entries.keys.sorted() }

    /// - Throws: `SafetensorsError.missingTensor`.
    public func shape(of name: String) throws -> [Int] { try entry(name).shape }

    /// - Throws: `SafetensorsError.missingTensor`.
    public func elementType(of name: String) throws -> ElementType { try entry(name).type }

    /// The bytes of data that the tensors of each type take.
    public var sizes: [ElementType: Int] {
        entries.values.reduce(into: [:]) { $0[$1.type, default: 0] += $1.range.count }
    }

    /// The values of a tensor of F32, F16 or BF16, row-major, as single precision.
    /// - Throws: `SafetensorsError` if there is no such tensor, or its shape is not `shape`, or its elements are of
    ///   another type.
    public func tensor(_ name: String, shape: [Int]) throws -> [Float] {
        try floats(name, try entry(name, shape: shape))
    }

    /// Whether `tensor` could give this one, as far as the header tells; no data is read.
    /// - Throws: as `tensor`.
    func check(_ name: String, shape: [Int]) throws { try checkType(name, try entry(name, shape: shape)) }

    /// One of the rows (the first dimension) of a tensor of F32, F16 or BF16, as single precision; no other is read.
    /// - Throws: as `tensor`.
    /// - Precondition: the row is one of `shape`, which has at least one dimension.
    func row(_ index: Int, of name: String, shape: [Int]) throws -> [Float] {
        var entry = try entry(name, shape: shape)
        precondition(index >= 0 && index < shape[0])
        let size = entry.range.count / shape[0]
        entry.range = entry.range.lowerBound + index * size..<entry.range.lowerBound + (index + 1) * size
        return try floats(name, entry)
    }

    /// A tensor of F32, F16 or BF16 with the shape it has in the file.
    /// - Throws: `SafetensorsError` if there is no such tensor or its elements are of another type.
    public func tensor(_ name: String) throws -> Tensor {
        let entry = try entry(name)
        return Tensor(shape: entry.shape, values: try floats(name, entry))
    }

    /// The values of a tensor of any integer type (BOOL as 0 and 1), row-major.
    /// - Throws: `SafetensorsError` if there is no such tensor, its elements are of another type, or one does not fit
    ///   an `Int`.
    public func integers(_ name: String) throws -> [Int] {
        let entry = try entry(name)
        func read<Value: FixedWidthInteger & BitwiseCopyable>(_: Value.Type) throws -> [Int] {
            try elements(Value.self, entry).map { value in
                guard let integer = Int(exactly: value) else {
                    throw SafetensorsError.malformedEntry(
                        file: url.path, tensor: name, reason: "\(value) is above \(Int.max)")
                }
                return integer
            }
        }
        return switch entry.type {
        case .int64: try read(Int64.self)
        case .int32: try read(Int32.self)
        case .int16: try read(Int16.self)
        case .int8: try read(Int8.self)
        case .uint64: try read(UInt64.self)
        case .uint32: try read(UInt32.self)
        case .uint16: try read(UInt16.self)
        case .uint8, .bool: try read(UInt8.self)
        case .float64, .float32, .float16, .bfloat16, .float8E4M3, .float8E5M2:
            throw SafetensorsError.wrongElementType(
                file: url.path, tensor: name, type: entry.type, expected: "an integer type")
        }
    }

    // MARK: reading

    private func entry(_ name: String) throws -> Entry {
        guard let entry = entries[name] else { throw SafetensorsError.missingTensor(file: url.path, tensor: name) }
        return entry
    }

    private func entry(_ name: String, shape: [Int]) throws -> Entry {
        let entry = try entry(name)
        guard entry.shape == shape else {
            throw SafetensorsError.wrongShape(file: url.path, tensor: name, shape: entry.shape, expected: shape)
        }
        return entry
    }

    private func checkType(_ name: String, _ entry: Entry) throws {
        guard [.float32, .float16, .bfloat16].contains(entry.type) else {
            throw SafetensorsError.wrongElementType(
                file: url.path, tensor: name, type: entry.type, expected: "F32, F16 or BF16")
        }
    }

    private func floats(_ name: String, _ entry: Entry) throws -> [Float] {
        ComputeProgress.advance()
        try checkType(name, entry)
        switch entry.type {
        case .float16: return try elements(UInt16.self, entry).map(float(fromHalf:))
        case .bfloat16: return try elements(UInt16.self, entry).map(float(fromBFloat16:))
        default: return try elements(Float.self, entry)
        }
    }

    private func elements<Element: BitwiseCopyable>(_: Element.Type, _ entry: Entry) throws -> [Element] {
        do {
            return try file.elements(
                Element.self, in: dataStart + entry.range.lowerBound..<dataStart + entry.range.upperBound)
        } catch let error as FileAccessError {
            throw SafetensorsError.unreadable(file: url.path, reason: error.reason)
        }
    }

    // MARK: the header

    private static func entries(_ json: [UInt8], dataSize: Int, path: String) throws -> [String: Entry] {
        guard json.first == UInt8(ascii: "{") else {
            throw SafetensorsError.headerNotJSON(file: path, reason: "it does not begin with {")
        }
        let header: [String: JSON]
        do {
            header = try JSON(json).object ?? [:]
        } catch {
            throw SafetensorsError.headerNotJSON(file: path, reason: error.description)
        }

        var entries: [String: Entry] = [:]
        for (name, value) in header where name != "__metadata__" {  // free text for people
            func malformed(_ reason: String) -> SafetensorsError {
                .malformedEntry(file: path, tensor: name, reason: reason)
            }
            guard let fields = value.object else { throw malformed("not an object") }
            guard let dtype = fields["dtype"]?.string else { throw malformed("dtype is not a string") }
            guard let shape = fields["shape"]?.integers else { throw malformed("shape is not an array of integers") }
            guard let offsets = fields["data_offsets"]?.integers, offsets.count == 2 else {
                throw malformed("data_offsets is not two integers")
            }
            guard let type = ElementType(rawValue: dtype) else {
                throw SafetensorsError.unknownElementType(file: path, tensor: name, name: dtype)
            }
            let (begin, end) = (offsets[0], offsets[1])
            guard 0 <= begin, begin <= end, end <= dataSize else {
                throw SafetensorsError.outsideFile(file: path, tensor: name, begin: begin, end: end, dataSize: dataSize)
            }
            guard let expected = elementCount(shape + [type.size]) else {
                throw SafetensorsError.impossibleShape(file: path, tensor: name, shape: shape)
            }
            guard end - begin == expected else {
                throw SafetensorsError.sizeMismatch(
                    file: path, tensor: name, size: end - begin, expected: expected, shape: shape, type: type)
            }
            entries[name] = Entry(type: type, shape: shape, range: begin..<end)
        }

        // In the order of their places, each tensor must begin where the one before ended, and the last must end the
        // file.
        var previous = (name: "", end: 0)
        for (name, entry) in entries.sorted(by: {
            ($0.value.range.lowerBound, $0.value.range.upperBound, $0.key)
                < ($1.value.range.lowerBound, $1.value.range.upperBound, $1.key)
        }) {
            if entry.range.lowerBound < previous.end {
                throw SafetensorsError.overlap(file: path, tensor: name, other: previous.name)
            }
            if entry.range.lowerBound > previous.end {
                throw SafetensorsError.hole(file: path, begin: previous.end, end: entry.range.lowerBound)
            }
            previous = (name, entry.range.upperBound)
        }
        if previous.end < dataSize { throw SafetensorsError.hole(file: path, begin: previous.end, end: dataSize) }
        return entries
    }
}

extension Safetensors {
    /// Writes `tensors` as a safetensors file, in the order of their names.
    /// - Parameter type: `.float32`, or `.float16` (rounded to nearest, ties to even).
    /// - Throws: `SafetensorsError.unwritable`, `.wrongElementType` for any other type.
    public static func write(_ tensors: [String: Tensor], as type: ElementType = .float32, to url: URL) throws {
        var header: [String: Any] = [:]
        var data = Data()
        for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) {
            let begin = data.count
            switch type {
            case .float32: tensor.values.withUnsafeBytes { data.append(contentsOf: $0) }
            case .float16: tensor.values.map { Float16($0).bitPattern }.withUnsafeBytes { data.append(contentsOf: $0) }
            default:
                throw SafetensorsError.wrongElementType(
                    file: url.path, tensor: name, type: type, expected: "F32 or F16, which can be written")
            }
            header[name] =
                ["dtype": type.rawValue, "shape": tensor.shape, "data_offsets": [begin, data.count]] as [String: Any]
        }
        do {
            var json = try JSONSerialization.data(withJSONObject: header, options: [.sortedKeys])
            // the data begins at a multiple of eight
            json.append(contentsOf: repeatElement(UInt8(ascii: " "), count: -json.count & 7))
            let length = withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) }
            try (length + json + data).write(to: url)
        } catch {
            throw SafetensorsError.unwritable(file: url.path, reason: (error as NSError).localizedDescription)
        }
    }
}
