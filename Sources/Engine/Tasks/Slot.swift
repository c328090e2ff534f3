/// A tensor that goes into a task or comes out of it: what it is for, its shape, and how its numbers are sent.
public struct Slot: Sendable, Hashable {
    public enum Role: String, Sendable, CaseIterable {
        /// x_t or, as an output, x_{t-1}.
        case sample
        /// Pixels of the picture, in [0, 1].
        case picture
        /// Latents that are no sample of a step.
        case latents
        /// The model's output on a whole window.
        case prediction
        case prompt
        case embeddings, negativeEmbeddings
        /// Values between an autoencoder's layers at the latents' resolution and the others.
        case features
        /// Sums of group norms.
        case statistics
    }

    /// Little-endian.
    public enum Element: String, Sendable, CaseIterable {
        case float32, float16, float64, uint8

        /// Bytes of one.
        public var size: Int {
            switch self {
            case .float64: 8
            case .float32: 4
            case .float16: 2
            case .uint8: 1
            }
        }

        public init(_ element: CanvasElement) { self = element == .float32 ? .float32 : .float16 }

        /// The type of the numbers that a checksum looks at.
        public var checksumElements: Checksum.Elements {
            switch self {
            case .float64: .doubles
            case .float32: .floats
            case .float16: .halves
            case .uint8: .bytes
            }
        }
    }

    public var role: Role
    /// For images height x width x channels.
    public var shape: [Int]
    public var element: Element

    public init(_ role: Role, _ shape: [Int], _ element: Element = .float32) {
        self.role = role
        self.shape = shape
        self.element = element
    }

    /// An image of the size of `rect`.
    public init(_ role: Role, _ rect: Rect, channels: Int, _ element: Element = .float32) {
        self.init(role, [rect.height, rect.width, channels], element)
    }

    public var count: Int { shape.reduce(1, *) }
    public var byteCount: Int { count * element.size }

    /// The bytes; nil where they are more than `limit`, or a side is negative, computed without overflow.
    func byteCount(limit: Int) -> Int? {
        var bytes = element.size
        for side in shape {
            let (product, overflow) = bytes.multipliedReportingOverflow(by: side)
            guard side >= 0, !overflow, product <= limit else { return nil }
            bytes = product
        }
        return bytes
    }
}

/// Where a task has an input from.
public enum SlotSource: Sendable, Hashable {
    /// A frame of the message.
    case frame
    /// Bytes that were sent before, or are asked for.
    case blob(BlobID)
    /// Noise that the worker makes from the seed of the task.
    case noise(NoiseField)
}

/// The SHA-256 of an input that many tasks share.
public struct BlobID: Sendable, Hashable, CustomStringConvertible {
    /// 32 bytes, eight a word, the first in the lowest bits.
    private let words: SIMD4<UInt64>

    /// - Returns: nil for what is no digest.
    public init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 32 else { return nil }
        self.init(sha256: Array(bytes))
    }

    /// - Parameter bytes: 32 of them.
    public init(sha256 bytes: [UInt8]) {
        precondition(bytes.count == 32, "a SHA-256 has 32 bytes")
        var words = SIMD4<UInt64>()
        for (index, byte) in bytes.enumerated() { words[index / 8] |= UInt64(byte) << (index % 8 * 8) }
        self.words = words
    }

    public var bytes: [UInt8] { (0..<32).map { UInt8(truncatingIfNeeded: words[$0 / 8] >> ($0 % 8 * 8)) } }

    /// The first digits in hexadecimal.
    public var description: String {
        bytes.prefix(6).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
