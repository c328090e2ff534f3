/// Writes or reads the fields of a value in the order in which they are named, each within its bounds.
///
/// The bytes are those of a protocol buffer whose fields are numbered 1, 2, ... in that order (`operations.proto` has
/// the messages): integers, flags and choices are varints, numbers fixed32, seeds fixed64, groups of fields embedded
/// messages. A field that is not there reads as 0, one that is not known is passed over, of one that is there twice the
/// last counts.
public struct FieldCoder {
    private enum Value {
        case integer(UInt64)
        case fixed32(UInt32)
        case fixed64(UInt64)
        case bytes(Range<Int>)
    }

    private let isReading: Bool
    private var bytes: [UInt8]
    private var values: [(number: Int, value: Value)] = []
    private var number = 0

    /// To write.
    public init() {
        isReading = false
        bytes = []
        bytes.reserveCapacity(256)
    }

    /// To read.
    /// - Throws: `FieldError.malformed`.
    public init(reading bytes: [UInt8]) throws(FieldError) {
        isReading = true
        self.bytes = bytes
        try scan()
    }

    /// The bytes that were written.
    public var written: [UInt8] { bytes }

    // MARK: Fields

    /// An integer of at least 0.
    public mutating func integer(_ value: inout Int, _ name: StaticString, in allowed: ClosedRange<Int>)
        throws(FieldError)
    {
        number += 1
        if isReading { value = Int(clamping: readInteger()) }
        guard allowed.contains(value) else {
            throw .outOfRange(
                field: "\(name)", value: "\(value)", allowed: "\(allowed.lowerBound) to \(allowed.upperBound)")
        }
        if !isReading, value != 0 { writeInteger(UInt64(value)) }
    }

    public mutating func flag(_ value: inout Bool) {
        number += 1
        if isReading { value = readInteger() != 0 } else if value { writeInteger(1) }
    }

    /// A case of an enum whose raw values are its numbers on the wire.
    public mutating func choice<Choice: RawRepresentable & CaseIterable>(
        _ value: inout Choice, _ name: StaticString
    ) throws(FieldError) where Choice.RawValue == Int {
        number += 1
        if isReading {
            let raw = Int(clamping: readInteger())
            guard let choice = Choice(rawValue: raw) else {
                throw .outOfRange(
                    field: "\(name)", value: "\(raw)",
                    allowed: Choice.allCases.map { "\($0.rawValue) (\($0))" }.joined(separator: ", "))
            }
            value = choice
        } else if value.rawValue != 0 {
            writeInteger(UInt64(value.rawValue))
        }
    }

    /// A finite number.
    public mutating func number(_ value: inout Float, _ name: StaticString) throws(FieldError) {
        number += 1
        if isReading { if case .fixed32(let bits) = field { value = Float(bitPattern: bits) } else { value = 0 } }
        guard value.isFinite else { throw .notFinite(field: "\(name)") }
        // Zero is what is not there; its sign counts.
        if !isReading, value.bitPattern != 0 {
            writeTag(5)
            for shift in stride(from: 0, to: 32, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: value.bitPattern >> shift))
            }
        }
    }

    /// Any 64 bits.
    public mutating func seed(_ value: inout UInt64) {
        number += 1
        if isReading { if case .fixed64(let bits) = field { value = bits } else { value = 0 } }
        if !isReading, value != 0 {
            writeTag(1)
            for shift in stride(from: 0, to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
        }
    }

    /// Fields that belong together.
    /// - Throws: `FieldError.missing` where they are not there.
    public mutating func group(
        _ name: StaticString, _ body: (inout FieldCoder) throws(FieldError) -> Void
    ) throws(FieldError) {
        number += 1
        guard isReading else { return try writeGroup(body) }
        guard case .bytes(let range) = field else { throw .missing(field: "\(name)") }
        var inner = try FieldCoder(reading: Array(bytes[range]))
        try body(&inner)
    }

    /// Fields that belong together, or none of them.
    public mutating func optional<Value>(
        _ value: inout Value?, blank: Value, _ body: (inout Value, inout FieldCoder) throws(FieldError) -> Void
    ) throws(FieldError) {
        number += 1
        if isReading {
            guard case .bytes(let range) = field else { return value = nil }
            var inner = try FieldCoder(reading: Array(bytes[range]))
            var read = blank
            try body(&read, &inner)
            value = read
        } else if var present = value {
            try writeGroup { inner throws(FieldError) in try body(&present, &inner) }
        }
    }

    // MARK: Bytes

    /// The last value that the present field has.
    private var field: Value? { values.last { $0.number == number }?.value }

    private func readInteger() -> UInt64 { if case .integer(let value) = field { value } else { 0 } }

    private mutating func writeTag(_ type: Int) { writeVarint(UInt64(number << 3 | type)) }

    private mutating func writeVarint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    private mutating func writeInteger(_ value: UInt64) {
        writeTag(0)
        writeVarint(value)
    }

    private mutating func writeGroup(_ body: (inout FieldCoder) throws(FieldError) -> Void) throws(FieldError) {
        var inner = FieldCoder()
        try body(&inner)
        writeTag(2)
        writeVarint(UInt64(inner.bytes.count))
        bytes.append(contentsOf: inner.bytes)
    }

    private mutating func scan() throws(FieldError) {
        var at = 0
        func varint() throws(FieldError) -> UInt64 {
            var value: UInt64 = 0
            for shift in stride(from: 0, to: 70, by: 7) {
                guard at < bytes.count else { throw .malformed }
                let byte = bytes[at]
                at += 1
                // Of the tenth byte one bit is left.
                guard shift < 63 || byte <= 1 else { throw .malformed }
                value |= UInt64(byte & 0x7f) << UInt64(shift)
                if byte < 0x80 { return value }
            }
            throw .malformed
        }
        func fixed(_ size: Int) throws(FieldError) -> UInt64 {
            guard bytes.count - at >= size else { throw .malformed }
            defer { at += size }
            return (0..<size).reduce(0) { $0 | UInt64(bytes[at + $1]) << UInt64(8 * $1) }
        }
        while at < bytes.count {
            let tag = try varint()
            guard let number = Int(exactly: tag >> 3), (1...1 << 29).contains(number) else { throw .malformed }
            switch tag & 7 {
            case 0: values.append((number, .integer(try varint())))
            case 1: values.append((number, .fixed64(try fixed(8))))
            case 5: values.append((number, .fixed32(UInt32(truncatingIfNeeded: try fixed(4)))))
            case 2:
                guard let count = Int(exactly: try varint()), count <= bytes.count - at else { throw .malformed }
                values.append((number, .bytes(at..<at + count)))
                at += count
            default: throw .malformed
            }
        }
    }
}

/// Why fields were not understood, or may not be sent.
public enum FieldError: Error, Hashable {
    case malformed
    case missing(field: String)
    case outOfRange(field: String, value: String, allowed: String)
    case notFinite(field: String)
}

// MARK: What tasks have in common

extension FieldCoder {
    public mutating func size(
        height: inout Int, width: inout Int, _ name: StaticString, most: Int = TaskLimits.imageSide
    ) throws(FieldError) {
        try group(name) { fields throws(FieldError) in
            try fields.integer(&height, name, in: 1...most)
            try fields.integer(&width, name, in: 1...most)
        }
    }

    /// A rectangle that is not empty, no larger than a window may be, and inside `outer`, which was checked.
    public mutating func rect(_ rect: inout Rect, _ name: StaticString, inside outer: Rect) throws(FieldError) {
        try group(name) { fields throws(FieldError) in
            try fields.integer(&rect.y, name, in: 0...TaskLimits.imageSide)
            try fields.integer(&rect.x, name, in: 0...TaskLimits.imageSide)
            try fields.integer(&rect.height, name, in: 1...TaskLimits.windowSide)
            try fields.integer(&rect.width, name, in: 1...TaskLimits.windowSide)
        }
        guard outer.contains(rect) else {
            throw .outOfRange(
                field: "\(name)", value: "\(rect.height)x\(rect.width) at (\(rect.y), \(rect.x))",
                allowed: "inside \(outer.height)x\(outer.width) at (\(outer.y), \(outer.x))")
        }
    }
}
