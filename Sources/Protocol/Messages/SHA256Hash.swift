internal import CCrypto

/// A SHA-256 digest in the making: takes bytes piece by piece.
///
/// libcrypto chooses the processor's instructions for it where there are some. Its calls fail for lack of memory alone,
/// as any allocation does.
struct SHA256Hash: ~Copyable {
    private let context: OpaquePointer

    init() {
        guard let context = EVP_MD_CTX_new(), EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else {
            preconditionFailure("no memory for a digest")
        }
        self.context = context
    }

    deinit { EVP_MD_CTX_free(context) }

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        // "EVP_DigestUpdate() ... Return 1 for success and 0 for failure."
        precondition(EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1, "no memory for a digest")
    }

    /// The digest of all bytes since the beginning or since the last digest.
    mutating func finish() -> ContentDigest {
        var bytes = [UInt8](repeating: 0, count: ContentDigest.byteCount)
        let isDone =
            EVP_DigestFinal_ex(context, &bytes, nil) == 1 && EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1
        precondition(isDone, "no memory for a digest")
        return ContentDigest(bytes)
    }
}
