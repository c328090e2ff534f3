internal import CZeroMQ
internal import Glibc

/// The half of a CURVE pair that may be known (Curve25519), as 40 characters of Z85 (rfc.zeromq.org/spec/32).
public struct PublicKey: Hashable, Sendable, CustomStringConvertible {
    public let description: String

    /// - Parameter text: nil when it is not 40 characters of Z85.
    public init?(_ text: some StringProtocol) {
        guard isZ85Key(text) else { return nil }
        description = String(text)
    }

    /// - Parameter bytes: 32 bytes, as they stand in a handshake.
    init?(bytes: UnsafeRawBufferPointer) {
        guard bytes.count == 32 else { return nil }
        var text = [CChar](repeating: 0, count: 41)
        guard zmq_z85_encode(&text, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), 32) != nil else {
            return nil
        }
        description = String(decoding: text.prefix(40).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A CURVE pair. Its description leaves the secret out, so that no log has it.
public struct KeyPair: Sendable, CustomStringConvertible {
    public let publicKey: PublicKey
    /// 40 characters of Z85.
    let secret: String

    public var description: String { "\(publicKey)" }

    /// A new pair, from the system's randomness.
    public static func make() throws(SocketError) -> KeyPair {
        var (open, secret) = ([CChar](repeating: 0, count: 41), [CChar](repeating: 0, count: 41))
        guard zmq_curve_keypair(&open, &secret) == 0 else { throw .last("zmq_curve_keypair") }
        guard
            let pair = KeyPair(secret: String(decoding: secret.prefix(40).map { UInt8(bitPattern: $0) }, as: UTF8.self))
        else {
            throw .failed(call: "zmq_curve_keypair", reason: "made a key that is none")
        }
        return pair
    }

    /// The pair that a secret belongs to, nil when it is not 40 characters of Z85.
    init?(secret: some StringProtocol) {
        guard isZ85Key(secret) else { return nil }
        var open = [CChar](repeating: 0, count: 41)
        guard zmq_curve_public(&open, String(secret)) == 0,
            let publicKey = PublicKey(String(decoding: open.prefix(40).map { UInt8(bitPattern: $0) }, as: UTF8.self))
        else { return nil }
        self.publicKey = publicKey
        self.secret = String(secret)
    }
}

/// Whether a text is 32 bytes in Z85.
private func isZ85Key(_ text: some StringProtocol) -> Bool {
    guard text.utf8.count == 40 else { return false }
    var bytes = [UInt8](repeating: 0, count: 32)
    return zmq_z85_decode(&bytes, String(text)) != nil
}
