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

    public var description: String {
        switch self {
        case .empty:
            "message without a header"
        case .headerSize(let bytes):
            "header of \(bytes) bytes, the limit is \(WireLimits.headerBytes)"
        case .malformedHeader:
            "header is not a message of this protocol; is the peer a tilefarm program?"
        case .version(let theirs, let ours):
            "the peer speaks protocol version \(theirs), this program speaks \(ours); install the same version on both sides"
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
