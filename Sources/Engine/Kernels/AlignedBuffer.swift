#if canImport(Glibc)
    import Glibc
#endif

/// A fixed block of numbers, zero at first, aligned to cache lines (large ones to huge pages) and readable for 64 bytes
/// past its end, as the kernels want it.
package final class AlignedBuffer<Element: BitwiseCopyable> {
    package let count: Int
    package let pointer: UnsafeMutablePointer<Element>

    /// - Parameter count: not negative, and small enough that the size in bytes fits an `Int`; whoever takes it from
    ///   outside checks before.
    package init(count: Int) {
        let size = count * MemoryLayout<Element>.stride + 64
        let huge = 2 << 20
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: size >= huge ? huge : 64)
        if size >= huge { madvise(memory, size, MADV_HUGEPAGE) }  // only advice: without it there are more TLB misses
        memset(memory, 0, size)
        self.count = count
        pointer = memory.bindMemory(to: Element.self, capacity: count)
    }

    deinit { UnsafeMutableRawPointer(pointer).deallocate() }

    package var span: Span<Element> {
        @_lifetime(borrow self) get {
            let span = unsafe Span(_unsafeStart: pointer, count: count)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    package var mutableSpan: MutableSpan<Element> {
        @_lifetime(borrow self) get {
            let span = unsafe MutableSpan(_unsafeStart: pointer, count: count)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }
}

/// Weights packed for a kernel, in whatever form it reads: written once, while a model is loaded, and then only read.
package struct ConstantBytes: @unchecked Sendable {
    private let buffer: AlignedBuffer<UInt8>

    package init(_ buffer: consuming AlignedBuffer<UInt8>) { self.buffer = buffer }

    package var count: Int { buffer.count }
    package var pointer: UnsafeRawPointer { UnsafeRawPointer(buffer.pointer) }
}

/// Numbers that are written once, while a model is loaded, and then only read, so that every lane may share them.
package struct ConstantBuffer: @unchecked Sendable {
    private let buffer: AlignedBuffer<Float>

    package init(_ buffer: consuming AlignedBuffer<Float>) { self.buffer = buffer }

    package init(_ values: [Float], paddedTo count: Int = 0) {
        buffer = AlignedBuffer(count: max(values.count, count))
        var span = buffer.mutableSpan
        for i in values.indices { span[i] = values[i] }
    }

    package var count: Int { buffer.count }
    package var pointer: UnsafePointer<Float> { UnsafePointer(buffer.pointer) }
    package subscript(index: Int) -> Float { buffer.span[index] }
}
