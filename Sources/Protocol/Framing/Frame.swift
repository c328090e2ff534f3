internal import CZeroMQ
internal import Glibc
public import Engine
import Synchronization

/// One part of a message, in memory that ZeroMQ owns: sent, kept for a second sending, and received without copying its
/// bytes.
///
/// The bytes are written once, by the closure of an initialiser, and never change after that.
///
/// Sendable without the compiler's proof: the bytes are immutable once `init` has returned; ZeroMQ's own book-keeping
/// in the message (`zmq_msg_copy` marks its source as shared) is changed under `sharing` alone; and the destructor runs
/// when nobody else has the frame.
public final class Frame: @unchecked Sendable {
    private let message: UnsafeMutablePointer<zmq_msg_t>
    private let sharing = Mutex<Void>(())

    /// Bytes in the frame.
    public let byteCount: Int

    private init(allocating byteCount: Int) {
        precondition(byteCount >= 0)
        message = .allocate(capacity: 1)
        self.byteCount = byteCount
        // "zmq_msg_init_size() ... ENOMEM: Insufficient storage space is available": out of memory, as for any Swift
        // allocation.
        precondition(zmq_msg_init_size(message, byteCount) == 0, "no memory for a frame of \(byteCount) bytes")
    }

    /// Takes a message that was received. Small ones lie anywhere in ZeroMQ's receive buffer; those are moved to where
    /// floats may lie.
    init(taking received: inout zmq_msg_t) {
        let size = zmq_msg_size(&received)
        byteCount = size
        message = .allocate(capacity: 1)
        if Int(bitPattern: zmq_msg_data(&received)) % MemoryLayout<Float>.alignment == 0 {
            zmq_msg_init(message)
            zmq_msg_move(message, &received)
        } else {
            precondition(zmq_msg_init_size(message, size) == 0, "no memory for a frame of \(size) bytes")
            memcpy(zmq_msg_data(message), zmq_msg_data(&received), size)
        }
        zmq_msg_close(&received)
    }

    deinit {
        zmq_msg_close(message)
        message.deallocate()
    }

    /// A frame of `byteCount` bytes that `fill` writes. They are not cleared before: `fill` must write every one.
    public convenience init<E: Error>(
        byteCount: Int, filledBy fill: (_ bytes: UnsafeMutableRawBufferPointer) throws(E) -> Void
    ) throws(E) {
        self.init(allocating: byteCount)
        try fill(UnsafeMutableRawBufferPointer(start: zmq_msg_data(message), count: byteCount))
    }

    /// A tensor of `count` values that `fill` writes, float16 as its bits. They are not cleared before: `fill` must
    /// write every one.
    public convenience init<Value: BitwiseCopyable, E: Error>(
        of type: Value.Type, count: Int, filledBy fill: (_ values: inout MutableSpan<Value>) throws(E) -> Void
    ) throws(E) {
        let (bytes, overflow) = count.multipliedReportingOverflow(by: MemoryLayout<Value>.size)
        precondition(count >= 0 && !overflow)
        self.init(allocating: bytes)
        let memory = UnsafeMutableBufferPointer<Value>(
            start: zmq_msg_data(message)?.assumingMemoryBound(to: Value.self), count: count)
        var values = MutableSpan(_unsafeElements: memory)
        try fill(&values)
    }

    /// A tensor of `count` values that `fill` writes, every one, each part where it begins.
    /// - Parameter element: what they are sent as
    public convenience init<E: Error>(
        count: Int, of element: CanvasElement,
        filledBy fill: (_ write: (_ values: Span<Float>, _ start: Int) -> Void) throws(E) -> Void
    ) throws(E) {
        switch element {
        case .float32:
            try self.init(of: Float.self, count: count) { target throws(E) in
                try fill { values, start in RowCopy.copy(from: values, to: &target, at: start, count: values.count) }
            }
        case .float16:
            try self.init(of: UInt16.self, count: count) { target throws(E) in
                try fill { values, start in HalfPrecision.narrow(values, into: &target, at: start) }
            }
        }
    }

    /// Bytes that are zero.
    public convenience init(zeroBytes byteCount: Int) {
        self.init(byteCount: byteCount) { $0.initializeMemory(as: UInt8.self, repeating: 0) }
    }

    /// A tensor of zeros.
    public convenience init(zeros floatCount: Int) { self.init(zeroBytes: 4 * floatCount) }

    public convenience init(copying bytes: some Collection<UInt8>) {
        self.init(byteCount: bytes.count) { $0.copyBytes(from: bytes) }
    }

    public convenience init(floats values: some Collection<Float>) {
        self.init(of: Float.self, count: values.count) { span in
            for (i, value) in values.enumerated() { span[i] = value }
        }
    }

    /// - Parameter element: what the values are sent as
    public convenience init(_ values: [Float], as element: CanvasElement) {
        switch element {
        case .float32: self.init(floats: values)
        case .float16: self.init(of: UInt16.self, count: values.count) { HalfPrecision.narrow(values.span, into: &$0) }
        }
    }

    /// The bytes of `frames`, one after another.
    public convenience init(joining frames: [Frame]) {
        self.init(byteCount: frames.reduce(0) { $0 + $1.byteCount }) { bytes in
            var at = 0
            for frame in frames {
                frame.withBytes {
                    UnsafeMutableRawBufferPointer(rebasing: bytes[at..<at + $0.count]).copyMemory(from: $0)
                }
                at += frame.byteCount
            }
        }
    }

    /// Float64 values, as group-norm statistics are sent.
    public convenience init(doubles values: [Double]) {
        self.init(byteCount: 8 * values.count) { bytes in values.withUnsafeBytes { bytes.copyMemory(from: $0) } }
    }

    /// A copy of the float32 values.
    public var floats: [Float] { values(of: .float32) }

    /// A copy of the values as numbers.
    /// - Parameter element: what they were sent as
    public func values(of element: CanvasElement) -> [Float] {
        var values = [Float](repeating: 0, count: byteCount / element.size)
        var span = values.mutableSpan
        read(element, into: &span)
        return values
    }

    /// A copy of the float64 values; bytes beyond a multiple of eight are not counted.
    public var doubles: [Double] {
        withBytes { bytes in (0..<bytes.count / 8).map { bytes.loadUnaligned(fromByteOffset: 8 * $0, as: Double.self) }
        }
    }

    /// The result of a pass over the bytes.
    public func checksum(of elements: Checksum.Elements) -> Checksum {
        withBytes { bytes in Checksum(RawSpan(_unsafeBytes: bytes), of: elements) }
    }

    /// The bytes, for as long as `body` runs.
    public func withBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        try body(UnsafeRawBufferPointer(start: zmq_msg_data(message), count: byteCount))
    }

    /// The values, for as long as `body` runs, float16 as its bits; bytes beyond the last whole one are not counted.
    public func withValues<Value: BitwiseCopyable, R, E: Error>(
        of type: Value.Type, _ body: (Span<Value>) throws(E) -> R
    ) throws(E) -> R {
        // Frames that are received lie where floats may, and no better.
        precondition(MemoryLayout<Value>.alignment <= MemoryLayout<Float>.alignment)
        let memory = UnsafeBufferPointer<Value>(
            start: zmq_msg_data(message)?.assumingMemoryBound(to: Value.self),
            count: byteCount / MemoryLayout<Value>.size)
        return try body(Span(_unsafeElements: memory))
    }

    /// Fills `values` with those that begin at `start`.
    /// - Parameter element: what they were sent as
    public func read(_ element: CanvasElement, from start: Int = 0, into values: inout MutableSpan<Float>) {
        switch element {
        case .float32:
            let count = values.count
            withValues(of: Float.self) { RowCopy.copy(from: $0, start: start, to: &values, count: count) }
        case .float16: withValues(of: UInt16.self) { HalfPrecision.widen($0, from: start, into: &values) }
        }
    }

    /// A message that shares the bytes; the receiver closes it or has it sent.
    func share() -> zmq_msg_t {
        sharing.withLock { _ in
            var copy = zmq_msg_t()
            zmq_msg_init(&copy)
            zmq_msg_copy(&copy, message)
            return copy
        }
    }
}

extension Frame: Equatable {
    public static func == (a: Frame, b: Frame) -> Bool {
        a === b || a.withBytes { a in b.withBytes { b in a.elementsEqual(b) } }
    }
}
