internal import Engine
internal import SwiftProtobuf

/// The checks that every field passes, in both directions: what may not be received is not sent either.
func bounded(_ value: some BinaryInteger, _ field: String, in allowed: ClosedRange<Int>) throws(WireError) -> Int {
    guard let value = Int(exactly: value), allowed.contains(value) else {
        throw .outOfRange(field: field, value: "\(value)", allowed: "\(allowed.lowerBound) to \(allowed.upperBound)")
    }
    return value
}

/// As `bounded`, for a field of 32 bits.
func bounded32(_ value: Int, _ field: String, in allowed: ClosedRange<Int>) throws(WireError) -> UInt32 {
    guard let narrow = UInt32(exactly: try bounded(value, field, in: allowed)) else {
        throw .outOfRange(field: field, value: "\(value)", allowed: "0 to \(UInt32.max)")
    }
    return narrow
}

func finite<F: BinaryFloatingPoint>(_ value: F, _ field: String) throws(WireError) -> F {
    guard value.isFinite else { throw .notFinite(field: field) }
    return value
}

/// Texts of peers end up in the log: one line, no control characters.
func text(_ value: String, _ field: String, limit: Int) throws(WireError) -> String {
    guard value.utf8.count <= limit, !value.unicodeScalars.contains(where: isControl) else {
        throw .text(field: field, bytes: value.utf8.count)
    }
    return value
}

/// A text of our own (an error's description, a reason) made fit for the wire.
func cleaned(_ value: String, limit: Int = WireLimits.textBytes) -> String {
    var clean = ""
    var bytes = 0
    for scalar in value.unicodeScalars {
        let scalar = isControl(scalar) ? " " : scalar
        bytes += String(scalar).utf8.count
        if bytes > limit { break }
        clean.unicodeScalars.append(scalar)
    }
    return clean
}

private func isControl(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .lineSeparator, .paragraphSeparator: true
    default: false
    }
}

func digest(_ bytes: some Collection<UInt8>, _ field: String) throws(WireError) -> ContentDigest {
    guard bytes.count == 32, let digest = ContentDigest(bytes: Array(bytes)) else {
        throw .digest(field: field, bytes: bytes.count)
    }
    return digest
}

/// The header of a message; its version is checked before anything else of it is looked at.
protocol Header: Message {
    var protocolVersion: UInt32 { get set }
}

extension Tilefarm_V1_WorkerHeader: Header {}
extension Tilefarm_V1_CoordinatorHeader: Header {}

extension Header {
    /// - Throws: also for headers of another version that this version cannot even parse.
    init(checking frames: [Frame]) throws(WireError) {
        guard let frame = frames.first else { throw .empty }
        guard (1...WireLimits.headerBytes).contains(frame.byteCount) else { throw .headerSize(bytes: frame.byteCount) }
        guard frames.count <= WireLimits.parts else {
            throw .partCount(message: "message", expected: WireLimits.parts, found: frames.count)
        }
        do {
            var options = BinaryDecodingOptions()
            options.discardUnknownFields = true
            self = try frame.withBytes { try Self(serializedBytes: [UInt8]($0), options: options) }
        } catch {
            throw .malformedHeader
        }
    }

    func frame() throws(WireError) -> Frame {
        guard let bytes: [UInt8] = try? serializedBytes() else { throw .malformedHeader }
        guard bytes.count <= WireLimits.headerBytes else { throw .headerSize(bytes: bytes.count) }
        return Frame(copying: bytes)
    }
}

func expect(_ count: Int, of frames: [Frame], _ message: String) throws(WireError) {
    guard frames.count == count else { throw .partCount(message: message, expected: count, found: frames.count) }
}

func expect(bytes: Int, of frame: Frame, _ name: String) throws(WireError) {
    guard frame.byteCount == bytes else { throw .frameSize(frame: name, expected: bytes, found: frame.byteCount) }
}
