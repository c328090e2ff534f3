internal import Crypto
public import Foundation

/// A SHA-256 digest: names a model, or the content of one of its files.
public struct ContentDigest: Hashable, Sendable, CustomStringConvertible {
    /// 32 bytes.
    public let bytes: [UInt8]

    public init?(bytes: [UInt8]) {
        guard bytes.count == 32 else { return nil }
        self.bytes = bytes
    }

    init(_ digest: Crypto.SHA256Digest) {
        bytes = Array(digest)
    }

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
        self.init(SHA256.hash(data: bytes))
    }

    /// Of a whole file.
    /// - Throws: `ModelFileError`
    public init(file path: String) throws {
        self = try ModelFile(path: path).sha256()
    }
}
