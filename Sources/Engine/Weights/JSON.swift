/// A JSON document (RFC 8259), read strictly: files that people download say where they are broken, integers stay
/// exact, and a name that stands twice in an object is an error, which Foundation's reader would drop in silence.
enum JSON: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSON])
    case object([String: JSON])

    /// - Parameter allowsInfinity: whether infinities and NaN are numbers too, as Python writes them into the settings
    ///   of some schedulers.
    /// - Throws: `JSONError`.
    init(_ bytes: [UInt8], allowsInfinity: Bool = false) throws(JSONError) {
        var reader = Reader(bytes: bytes, allowsInfinity: allowsInfinity)
        self = try reader.value(depth: 0)
        reader.skipSpace()
        guard reader.next == nil else { throw reader.error("something follows the document's end") }
    }
}

/// A fault of a JSON document, and its byte.
struct JSONError: Error, CustomStringConvertible {
    var reason: String
    var offset: Int
    var description: String { "\(reason) at byte \(offset)" }
}

extension JSON {
    var object: [String: JSON]? { if case .object(let value) = self { value } else { nil } }
    var array: [JSON]? { if case .array(let value) = self { value } else { nil } }
    var string: String? { if case .string(let value) = self { value } else { nil } }
    var integer: Int? { if case .integer(let value) = self { value } else { nil } }
    var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    /// An integer or a fraction.
    var number: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }
    /// An array of nothing but integers.
    var integers: [Int]? {
        guard let array else { return nil }
        let integers = array.compactMap(\.integer)
        return integers.count == array.count ? integers : nil
    }
}

extension JSON {
    private struct Reader {
        static let depthLimit = 64
        static let valueLimit = 4_000_000
        var values = 0
        var bytes: [UInt8]
        var allowsInfinity: Bool
        var offset = 0

        var next: UInt8? { offset < bytes.count ? bytes[offset] : nil }

        func error(_ reason: String) -> JSONError { JSONError(reason: reason, offset: offset) }

        mutating func skipSpace() {
            while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d { offset += 1 }
        }

        mutating func skip(_ character: Character) -> Bool {
            guard let next, next == character.asciiValue else { return false }
            offset += 1
            return true
        }

        mutating func value(depth: Int) throws(JSONError) -> JSON {
            guard depth < Self.depthLimit else { throw error("more than \(Self.depthLimit) levels") }
            // A value takes more memory than the digit it may have been.
            values += 1
            guard values <= Self.valueLimit else { throw error("more than \(Self.valueLimit) values") }
            skipSpace()
            switch next {
            case UInt8(ascii: "{"): return .object(try object(depth: depth))
            case UInt8(ascii: "["): return .array(try array(depth: depth))
            case UInt8(ascii: "\""): return .string(try string())
            case UInt8(ascii: "t"): return try word("true", .bool(true))
            case UInt8(ascii: "f"): return try word("false", .bool(false))
            case UInt8(ascii: "n"): return try word("null", .null)
            case .some: return try number()
            case nil: throw error("the document ends too early")
            }
        }

        mutating func object(depth: Int) throws(JSONError) -> [String: JSON] {
            var members: [String: JSON] = [:]
            offset += 1
            skipSpace()
            if skip("}") { return members }
            repeat {
                skipSpace()
                guard next == UInt8(ascii: "\"") else { throw error("a name is missing") }
                let name = try string()
                skipSpace()
                guard skip(":") else { throw error("a colon is missing") }
                guard members.updateValue(try value(depth: depth + 1), forKey: name) == nil else {
                    throw error("the name \(name) stands twice")
                }
                skipSpace()
            } while skip(",")
            guard skip("}") else { throw error("a comma or } is missing") }
            return members
        }

        mutating func array(depth: Int) throws(JSONError) -> [JSON] {
            var elements: [JSON] = []
            offset += 1
            skipSpace()
            if skip("]") { return elements }
            repeat {
                elements.append(try value(depth: depth + 1))
                skipSpace()
            } while skip(",")
            guard skip("]") else { throw error("a comma or ] is missing") }
            return elements
        }

        mutating func word(_ word: String, _ value: JSON) throws(JSONError) -> JSON {
            guard bytes[offset...].starts(with: word.utf8) else { throw error("not a value") }
            offset += word.utf8.count
            return value
        }

        mutating func number() throws(JSONError) -> JSON {
            if allowsInfinity {
                for (text, value) in [("Infinity", Double.infinity), ("-Infinity", -.infinity), ("NaN", .nan)]
                where bytes[offset...].starts(with: text.utf8) { return try word(text, .number(value)) }
            }
            let rest = bytes[offset...].prefix {
                $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") || "+-.eE".utf8.contains($0)
            }
            let text = String(decoding: rest, as: UTF8.self)
            // A vocabulary has fifty thousand integers, and the expression below takes its time.
            if let integer = Int(text), integer > 0, rest.first != UInt8(ascii: "0"), rest.first != UInt8(ascii: "+") {
                offset += rest.count
                return .integer(integer)
            }
            guard text.wholeMatch(of: /-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/) != nil,
                let fraction = Double(text), fraction.isFinite
            else {
                throw error("not a value")
            }
            offset += rest.count
            return Int(text).map { .integer($0) } ?? .number(fraction)
        }

        mutating func string() throws(JSONError) -> String {
            var text: [UInt8] = []
            offset += 1
            while let byte = next, byte != UInt8(ascii: "\"") {
                guard byte >= 0x20 else { throw error("a control character in a string") }
                offset += 1
                if byte == UInt8(ascii: "\\") {
                    text.append(contentsOf: try escape().utf8)
                } else {
                    text.append(byte)
                }
            }
            guard skip("\"") else { throw error("a string does not end") }
            guard let string = String(validating: text, as: UTF8.self) else { throw error("not UTF-8") }
            return string
        }

        mutating func escape() throws(JSONError) -> String {
            guard let byte = next else { throw error("a string does not end") }
            offset += 1
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return String(UnicodeScalar(byte))
            case UInt8(ascii: "b"): return "\u{8}"
            case UInt8(ascii: "f"): return "\u{c}"
            case UInt8(ascii: "n"): return "\n"
            case UInt8(ascii: "r"): return "\r"
            case UInt8(ascii: "t"): return "\t"
            case UInt8(ascii: "u"):
                var units = [try codeUnit()]
                if UTF16.isLeadSurrogate(units[0]), skip("\\"), skip("u") { units.append(try codeUnit()) }
                guard let string = String(validating: units, as: UTF16.self) else {
                    throw error("half a surrogate pair")
                }
                return string
            default: throw error("an unknown escape")
            }
        }

        mutating func codeUnit() throws(JSONError) -> UInt16 {
            let digits = bytes[offset...].prefix(4)
            guard digits.count == 4, digits.allSatisfy({ UnicodeScalar($0).properties.isASCIIHexDigit }),
                let unit = UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
            else { throw error("not four hexadecimal digits") }
            offset += 4
            return unit
        }
    }
}

extension JSON {
    /// For messages.
    var text: String {
        switch self {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .string(let value): "\"\(value)\""
        case .array: "[...]"
        case .object: "{...}"
        }
    }
}

// What the engine's sources compare documents with.
extension JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral {
    init(stringLiteral value: String) { self = .string(value) }
    init(integerLiteral value: Int) { self = .integer(value) }
    init(booleanLiteral value: Bool) { self = .bool(value) }
}
