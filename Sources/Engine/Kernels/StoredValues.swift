internal import CKernels
import Glibc
import Synchronization

/// Numbers that a job keeps between its tiles, in memory or in a file that is mapped: float32 and float16, read and written as float32
/// (float16 as it is stored, too), and bytes.
///
/// A file is given all its blocks before it is mapped, so that a full disk is an error of `init` and no SIGBUS (on file systems that copy on write,
/// as btrfs and ZFS do, that is no promise). Its pages count as the process's memory only while they are in use: after every so many bytes they are
/// given back to the system, which writes them out when it likes.
///
/// Sendable without the compiler's proof: whoever shares it sees to it that no part is written while another thread reads it.
package final class StoredValues: @unchecked Sendable {
    /// How a value is stored.
    package enum Element: String, Sendable, CaseIterable {
        case float32, float16, uint8

        package var size: Int {
            switch self {
            case .float32: 4
            case .float16: 2
            case .uint8: 1
            }
        }

        package init(_ element: CanvasElement) { self = element == .float32 ? .float32 : .float16 }
    }

    package let element: Element
    package let count: Int
    private let memory: UnsafeMutableRawPointer
    private let isFile: Bool
    /// Bytes read and written since pages were given back.
    private let touched = Atomic<Int>(0)
    /// Bytes of a file in memory, about.
    package static let mostResident = 192 << 20

    /// Zeros in memory.
    /// - Throws: `StorageError`.
    package convenience init(_ element: Element, count: Int) throws {
        try self.init(element, count: count, descriptor: -1, path: "memory")
    }

    /// Values in a file. One that is made anew is zero; one that is there has to have the size.
    /// - Throws: `StorageError`.
    package convenience init(_ element: Element, count: Int, path: String, existing: Bool = false) throws {
        let descriptor = open(path, O_RDWR | O_CLOEXEC | (existing ? 0 : O_CREAT | O_TRUNC), 0o600)
        guard descriptor >= 0 else { throw StorageError.failed(path: path, reason: String(cString: strerror(errno))) }
        defer { close(descriptor) }
        if existing {
            var status = stat()
            guard fstat(descriptor, &status) == 0, Int(status.st_size) == max(count * element.size, 1) else {
                throw StorageError.wrongSize(path: path, bytes: Int(status.st_size), expected: count * element.size)
            }
        }
        do { try self.init(element, count: count, descriptor: descriptor, path: path) } catch {
            if !existing { ftruncate(descriptor, 0) }  // the blocks that it got are of no use to anybody
            throw error
        }
    }

    /// Values in a file without a name, which is gone with the process.
    /// - Parameter folder: where the file's blocks come from.
    /// - Throws: `StorageError`.
    package convenience init(_ element: Element, count: Int, unnamedIn folder: String) throws {
        let name = "\(folder)/.tilefarm-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let descriptor = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw StorageError.failed(path: folder, reason: String(cString: strerror(errno))) }
        unlink(name)
        defer { close(descriptor) }
        try self.init(element, count: count, descriptor: descriptor, path: folder)
    }

    private init(_ element: Element, count: Int, descriptor: Int32, path: String) throws {
        let (bytes, overflow) = count.multipliedReportingOverflow(by: element.size)
        guard count >= 0, !overflow, bytes < 1 << 46 else { throw StorageError.tooLarge(path: path) }
        isFile = descriptor >= 0
        if isFile {
            var code: Int32
            repeat { code = posix_fallocate(descriptor, 0, max(bytes, 1)) } while code == EINTR
            guard code == 0 else {
                throw code == ENOSPC || code == EDQUOT
                    ? StorageError.noSpace(path: path, needed: bytes) : .failed(path: path, reason: String(cString: strerror(code)))
            }
        }
        let flags = isFile ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard let memory = mmap(nil, max(bytes, 1), PROT_READ | PROT_WRITE, flags, descriptor, 0), memory != MAP_FAILED else {
            throw StorageError.failed(path: path, reason: String(cString: strerror(errno)))
        }
        if !isFile { madvise(memory, max(bytes, 1), MADV_HUGEPAGE) }  // only advice: without it there are more TLB misses
        self.element = element
        self.count = count
        self.memory = memory
    }

    deinit { munmap(memory, max(count * element.size, 1)) }

    /// Reads rows of `length` numbers, `stride` numbers apart in the store and densely packed in `target`.
    package func load(start: Int, stride: Int, rows: Int, length: Int, into target: inout MutableSpan<Float>, at first: Int = 0) {
        precondition(element != .uint8)
        guard check(start, stride, rows, length, other: target.count, first) else { return }
        target.withUnsafeMutableBufferPointer { target in
            guard let to = target.baseAddress?.advanced(by: first) else { return }
            if element == .float32 {
                tf_copy_rows(memory + 4 * start, 4 * stride, to, 4 * length, rows, 4 * length)
            } else {
                tf_rows_from_half(memory.assumingMemoryBound(to: UInt16.self) + start, stride, to, length, rows, length)
            }
        }
        touch(rows * length)
    }

    /// Writes rows that are densely packed in `source`; see `load`. float16 rounds to nearest.
    package func store(_ source: Span<Float>, at first: Int = 0, start: Int, stride: Int, rows: Int, length: Int) {
        precondition(element != .uint8)
        guard check(start, stride, rows, length, other: source.count, first) else { return }
        source.withUnsafeBufferPointer { source in
            guard let from = source.baseAddress?.advanced(by: first) else { return }
            if element == .float32 {
                tf_copy_rows(from, 4 * length, memory + 4 * start, 4 * stride, rows, 4 * length)
            } else {
                tf_rows_to_half(from, length, memory.assumingMemoryBound(to: UInt16.self) + start, stride, rows, length)
            }
        }
        touch(rows * length)
    }

    /// Reads float16 values as they are stored; see the other `load`.
    package func load(start: Int, stride: Int, rows: Int, length: Int, into target: inout MutableSpan<UInt16>) {
        precondition(element == .float16)
        guard check(start, stride, rows, length, other: target.count, 0) else { return }
        target.withUnsafeMutableBufferPointer { target in
            guard let to = target.baseAddress else { return }
            tf_copy_rows(memory + 2 * start, 2 * stride, to, 2 * length, rows, 2 * length)
        }
        touch(rows * length)
    }

    /// Writes float16 values as they are; see `load`.
    package func store(_ source: Span<UInt16>, start: Int, stride: Int, rows: Int, length: Int) {
        precondition(element == .float16)
        guard check(start, stride, rows, length, other: source.count, 0) else { return }
        source.withUnsafeBufferPointer { source in
            guard let from = source.baseAddress else { return }
            tf_copy_rows(from, 2 * length, memory + 2 * start, 2 * stride, rows, 2 * length)
        }
        touch(rows * length)
    }

    /// Reads bytes.
    package func load(start: Int, count length: Int, into target: inout MutableSpan<UInt8>, at first: Int = 0) {
        precondition(element == .uint8)
        guard check(start, 0, 1, length, other: target.count, first) else { return }
        target.withUnsafeMutableBufferPointer { if let to = $0.baseAddress { memcpy(to + first, memory + start, length) } }
        touch(length)
    }

    package func store(_ source: Span<UInt8>, start: Int) {
        precondition(element == .uint8)
        guard check(start, 0, 1, source.count, other: source.count, 0) else { return }
        source.withUnsafeBufferPointer { if let from = $0.baseAddress { memcpy(memory + start, from, $0.count) } }
        touch(source.count)
    }

    private func check(_ start: Int, _ stride: Int, _ rows: Int, _ length: Int, other: Int, _ first: Int) -> Bool {
        guard rows > 0, length > 0 else { return false }
        precondition(start >= 0 && stride >= 0 && start + (rows - 1) * stride + length <= count)
        precondition(first >= 0 && first + rows * length <= other)
        return true
    }

    /// Rows are scattered over pages, so more than the bytes in question becomes resident; the kernel's read-ahead brings its own.
    private func touch(_ values: Int) {
        guard isFile else { return }
        let bytes = values * element.size * 2
        if touched.add(bytes, ordering: .relaxed).newValue > Self.mostResident {
            touched.store(0, ordering: .relaxed)
            release()
        }
    }

    /// Lets go of the pages of a file; what they hold stays, and comes back when it is asked for.
    package func release() {
        if isFile { madvise(memory, max(count * element.size, 1), MADV_DONTNEED) }
    }
}

/// Why a job's values cannot be kept.
package enum StorageError: Error, Equatable, CustomStringConvertible {
    case noSpace(path: String, needed: Int)
    case tooLarge(path: String)
    case wrongSize(path: String, bytes: Int, expected: Int)
    case failed(path: String, reason: String)

    package var description: String {
        switch self {
        case .noSpace(let path, let needed):
            "\(path): the disk has no room for \(needed) bytes of the job's canvas: free some, or have the job on another disk"
        case .tooLarge(let path):
            "\(path): the job's canvas is larger than any disk: choose a smaller --scale"
        case .wrongSize(let path, let bytes, let expected):
            "\(path): has \(bytes) bytes instead of \(expected): it is damaged or of another job"
        case .failed(let path, let reason):
            "\(path): cannot be used for the job's canvas: \(reason)"
        }
    }
}
