public import Engine

/// Why a message was not understood, or may not be sent.
public enum WireError: Error, Hashable, CustomStringConvertible {
    /// A message without a header.
    case empty
    case headerSize(bytes: Int)
    /// Not a message of this protocol.
    case malformedHeader
    case version(theirs: UInt32, ours: UInt32)
    /// A message that this version does not have.
    case unknownMessage
    case missing(field: String)
    case outOfRange(field: String, value: String, allowed: String)
    case notFinite(field: String)
    /// Too long, or with control characters.
    case text(field: String, bytes: Int)
    case digest(field: String, bytes: Int)
    case partCount(message: String, expected: Int, found: Int)
    case frameSize(frame: String, expected: Int, found: Int)
    case model(ManifestError)
    /// A task of an operation that this version does not have.
    case unknownOperation(name: String, known: [String])
    /// Fields of an operation that are not as they have to be.
    case fields(String, FieldError)
    /// The answer to a task, or its failure, of which no more can be read than whose it is: the task has failed.
    indirect case unreadableAnswer(TaskID, WireError)
    /// A task of which no more can be read than its name: whoever sent it waits for an answer.
    indirect case unreadableTask(TaskID, WireError)

    public var description: String {
        switch self {
        case .unknownOperation(let name, let known):
            "a task of the operation \(name.debugDescription), which this version does not have (it has "
                + "\(known.joined(separator: ", "))): use the same version of tilefarm on every machine"
        case .fields(let operation, .malformed):
            "the parameters of \(operation) are not a message of this protocol"
        case .fields(let operation, .missing(let field)):
            "\(operation).\(field) is missing"
        case .fields(let operation, .outOfRange(let field, let value, let allowed)):
            "\(operation).\(field) is \(value), allowed is \(allowed)"
        case .fields(let operation, .notFinite(let field)):
            "\(operation).\(field) is not finite"
        case .unreadableAnswer(let task, let error):
            "the answer to task \(task) cannot be read: \(error)"
        case .unreadableTask(let task, let error):
            "task \(task) cannot be read: \(error)"
        case .empty:
            "message without a header"
        case .headerSize(let bytes):
            "header of \(bytes) bytes, the limit is \(WireLimits.headerBytes)"
        case .malformedHeader:
            "header is not a message of this protocol; is the peer a tilefarm program?"
        case .version(let theirs, let ours):
            "the peer speaks protocol version \(theirs), this program speaks \(ours); "
                + "install the same version on both sides"
        case .unknownMessage:
            "message of an unknown kind"
        case .missing(let field):
            "\(field) is missing"
        case .outOfRange(let field, let value, let allowed):
            "\(field) is \(value), allowed is \(allowed)"
        case .notFinite(let field):
            "\(field) is not a finite number"
        case .text(let field, let bytes):
            "\(field) (\(bytes) bytes) is too long or holds control characters"
        case .digest(let field, let bytes):
            "\(field) has \(bytes) bytes, a SHA-256 digest has 32"
        case .partCount(let message, let expected, let found):
            "\(message) came with \(found) parts, expected are \(expected)"
        case .frameSize(let frame, let expected, let found):
            "\(frame) has \(found) bytes, its header promises \(expected)"
        case .model(let error):
            error.description
        }
    }
}
