public import Foundation

/// A SHA-256 digest: names a model, or the content of one of its files.
public struct ContentDigest: Hashable, Sendable, CustomStringConvertible {
    /// 32 bytes.
    public let bytes: [UInt8]

    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        self.bytes = bytes
    }

    /// - Parameter bytes: `byteCount` of them.
    init(_ bytes: [UInt8]) {
        precondition(bytes.count == Self.byteCount)
        self.bytes = bytes
    }

    static let byteCount = 32

    /// 64 lower-case hexadecimal digits.
    public var hex: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }

    /// The first digits, for the log.
    public var short: String { String(hex.prefix(12)) }

    public var description: String { hex }
}

/// The digest of a model's manifest: equal digests, equal files.
public typealias ModelDigest = ContentDigest

extension ContentDigest {
    public init(of bytes: some DataProtocol) {
        var hash = SHA256Hash()
        for region in bytes.regions { region.withUnsafeBytes { hash.update($0) } }
        self = hash.finish()
    }
}
