internal import CKernels

/// The result of one pass over the bytes of a tensor: whether they arrived as they were sent, and whether they are
/// numbers.
public struct Checksum: Sendable, Hashable {
    /// The type of the numbers that the bytes are.
    public enum Elements: Sendable {
        case bytes, floats, doubles, halves

        var kind: tf_elements {
            switch self {
            case .bytes: TF_BYTES
            case .floats: TF_FLOATS
            case .doubles: TF_DOUBLES
            case .halves: TF_HALVES
            }
        }
    }

    /// CRC-32C (RFC 3720), the same whatever the kernels.
    public let crc32c: UInt32
    /// Whether no element is infinite or not a number; bytes beyond a whole number of elements are not looked at, and
    /// `bytes` are always finite.
    public let isFinite: Bool

    /// - Parameter kernels: which to use; all give the same.
    public init(_ bytes: RawSpan, of elements: Elements, kernels: KernelSet = .best) {
        var finite: Int32 = 1
        crc32c = bytes.withUnsafeBytes { tf_checksum(kernels.isa, $0.baseAddress, $0.count, elements.kind, &finite) }
        isFinite = finite != 0
    }
}
