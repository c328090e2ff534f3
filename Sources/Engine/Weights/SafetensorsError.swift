/// A fault of a safetensors file or of a request for its tensors. `file` is a path, ranges are in bytes from
/// the start of the data.
public enum SafetensorsError: Error, Equatable, Sendable {
    case unreadable(file: String, reason: String)
    case tooShort(file: String, size: Int)
    case headerTooLong(file: String, length: UInt64, limit: Int)
    case headerPastEnd(file: String, length: Int, fileSize: Int)
    case headerNotJSON(file: String, reason: String)
    case malformedEntry(file: String, tensor: String, reason: String)
    case unknownElementType(file: String, tensor: String, name: String)
    case impossibleShape(file: String, tensor: String, shape: [Int])
    case outsideFile(file: String, tensor: String, begin: Int, end: Int, dataSize: Int)
    case sizeMismatch(file: String, tensor: String, size: Int, expected: Int, shape: [Int], type: ElementType)
    case overlap(file: String, tensor: String, other: String)
    case hole(file: String, begin: Int, end: Int)
    case missingTensor(file: String, tensor: String)
    case wrongShape(file: String, tensor: String, shape: [Int], expected: [Int])
    case wrongElementType(file: String, tensor: String, type: ElementType, expected: String)
    case unwritable(file: String, reason: String)
}

extension SafetensorsError: CustomStringConvertible {
    public var description: String {
        let broken = "download or export it again"
        let line =
            switch self {
            case .unreadable(let file, let reason):
                "\(file): cannot be read: \(reason)"
            case .tooShort(let file, let size):
                """
                \(file): \(size) bytes are too few for a safetensors file, the download may have been cut short: \
                \(broken)
                """
            case .headerTooLong(let file, let length, let limit):
                """
                \(file): a header of \(length) bytes is above the format's limit of \(limit), so this is no \
                safetensors file: \(broken)
                """
            case .headerPastEnd(let file, let length, let fileSize):
                """
                \(file): the header's length, \(length) bytes, reaches past the file's \(fileSize) bytes, the download \
                may have been cut short: \(broken)
                """
            case .headerNotJSON(let file, let reason):
                "\(file): the header is not the JSON object of a safetensors file (\(reason)): \(broken)"
            case .malformedEntry(let file, let tensor, let reason):
                "\(file): tensor \(tensor): the header's entry is malformed (\(reason)): \(broken)"
            case .unknownElementType(let file, let tensor, let name):
                "\(file): tensor \(tensor): element type \(name) is not known, export it as F32, F16 or BF16"
            case .impossibleShape(let file, let tensor, let shape):
                "\(file): tensor \(tensor): shape \(shape) is negative or too large for any memory: \(broken)"
            case .outsideFile(let file, let tensor, let begin, let end, let dataSize):
                """
                \(file): tensor \(tensor): bytes \(begin)..<\(end) are not within the file's \(dataSize) bytes of \
                data, the download may have been cut short: \(broken)
                """
            case .sizeMismatch(let file, let tensor, let size, let expected, let shape, let type):
                """
                \(file): tensor \(tensor): has \(size) bytes, but shape \(shape) of \(type.rawValue) takes \
                \(expected): \(broken)
                """
            case .overlap(let file, let tensor, let other):
                "\(file): tensor \(tensor): overlaps tensor \(other): \(broken)"
            case .hole(let file, let begin, let end):
                "\(file): bytes \(begin)..<\(end) of the data belong to no tensor: \(broken)"
            case .missingTensor(let file, let tensor):
                "\(file): tensor \(tensor) is missing: check that the weights belong to the config.json beside them"
            case .wrongShape(let file, let tensor, let shape, let expected):
                """
                \(file): tensor \(tensor): has shape \(shape), not \(expected): check that the weights belong to the \
                config.json beside them
                """
            case .wrongElementType(let file, let tensor, let type, let expected):
                """
                \(file): tensor \(tensor): element type \(type.rawValue) is not \(expected): export it again with that \
                type
                """
            case .unwritable(let file, let reason):
                "\(file): cannot be written: \(reason)"
            }
        return line.replacing("\n", with: " ")  // names come from the file
    }
}
