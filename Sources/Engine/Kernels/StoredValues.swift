internal import CKernels
import Glibc
import Synchronization

/// Numbers that a job keeps between its tiles, in memory or in a file that is mapped: float32 and float16, read and
/// written as float32 (float16 as it is stored, too), and bytes.
///
/// A file is given all its blocks before it is mapped, so that a full disk is an error of `init` and no SIGBUS (on file
/// systems that copy on write, as btrfs and ZFS do, that is no promise). Its pages count as the process's memory, so no
/// more than `mostResident` of them stay: the oldest are given back to the system, which writes them out when it likes.
///
/// Sendable without the compiler's proof: whoever shares it sees to it that no part is written while another thread
/// reads it.
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
    /// nil in memory.
    private let residency: Mutex<Residency>?
    /// Bytes of a file in memory.
    package static let mostResident = 96 << 20

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
        let isFile = descriptor >= 0
        if isFile {
            var code: Int32
            repeat { code = posix_fallocate(descriptor, 0, max(bytes, 1)) } while code == EINTR
            guard code == 0 else {
                throw code == ENOSPC || code == EDQUOT
                    ? StorageError.noSpace(path: path, needed: bytes)
                    : .failed(path: path, reason: String(cString: strerror(code)))
            }
        }
        let flags = isFile ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard let memory = mmap(nil, max(bytes, 1), PROT_READ | PROT_WRITE, flags, descriptor, 0), memory != MAP_FAILED
        else {
            throw StorageError.failed(path: path, reason: String(cString: strerror(errno)))
        }
        // only advice: without it there are more TLB misses
        if !isFile { madvise(memory, max(bytes, 1), MADV_HUGEPAGE) }
        self.element = element
        self.count = count
        self.memory = memory
        residency = isFile ? Mutex(Residency(bytes: bytes)) : nil
    }

    deinit { munmap(memory, max(count * element.size, 1)) }

    /// Reads rows of `length` numbers, `stride` numbers apart in the store and densely packed in `target`.
    package func load(
        start: Int, stride: Int, rows: Int, length: Int, into target: inout MutableSpan<Float>, at first: Int = 0
    ) {
        guard element == .float16 else {
            return loadStored(start: start, stride: stride, rows: rows, length: length, into: &target, at: first)
        }
        guard let from = place(start, stride, rows, length, isWritten: false, other: target.count, first) else {
            return
        }
        target.withUnsafeMutableBufferPointer { target in
            guard let to = target.baseAddress else { return }
            tf_rows_from_half(from.assumingMemoryBound(to: UInt16.self), stride, to + first, length, rows, length)
        }
    }

    /// Writes rows that are densely packed in `source`; see `load`. float16 rounds to nearest.
    package func store(_ source: Span<Float>, at first: Int = 0, start: Int, stride: Int, rows: Int, length: Int) {
        guard element == .float16 else {
            return storeAsIs(source, at: first, start: start, stride: stride, rows: rows, length: length)
        }
        guard let to = place(start, stride, rows, length, isWritten: true, other: source.count, first) else { return }
        source.withUnsafeBufferPointer { source in
            guard let from = source.baseAddress else { return }
            tf_rows_to_half(from + first, length, to.assumingMemoryBound(to: UInt16.self), stride, rows, length)
        }
    }

    /// Reads values as they are stored, float16 as its bits; see `load`.
    package func loadStored<Value: BitwiseCopyable>(
        start: Int, stride: Int = 0, rows: Int = 1, length: Int, into target: inout MutableSpan<Value>,
        at first: Int = 0
    ) {
        precondition(MemoryLayout<Value>.size == element.size)
        guard let from = place(start, stride, rows, length, isWritten: false, other: target.count, first) else {
            return
        }
        target.withUnsafeMutableBufferPointer { target in
            guard let to = target.baseAddress else { return }
            tf_copy_rows(from, element.size * stride, to + first, element.size * length, rows, element.size * length)
        }
    }

    /// Writes values as they are to be stored; see `loadStored`.
    package func storeAsIs<Value: BitwiseCopyable>(
        _ source: Span<Value>, at first: Int = 0, start: Int, stride: Int = 0, rows: Int = 1, length: Int
    ) {
        precondition(MemoryLayout<Value>.size == element.size)
        guard let to = place(start, stride, rows, length, isWritten: true, other: source.count, first) else { return }
        source.withUnsafeBufferPointer { source in
            guard let from = source.baseAddress else { return }
            tf_copy_rows(from + first, element.size * length, to, element.size * stride, rows, element.size * length)
        }
    }

    /// Where the first of these values lies, whose pages are about to be used; nil when there are none.
    private func place(
        _ start: Int, _ stride: Int, _ rows: Int, _ length: Int, isWritten: Bool, other: Int, _ first: Int
    ) -> UnsafeMutableRawPointer? {
        guard rows > 0, length > 0 else { return nil }
        precondition(start >= 0 && stride >= 0 && start + (rows - 1) * stride + length <= count)
        precondition(first >= 0 && first + rows * length <= other)
        residency?.withLock {
            for row in 0..<rows {
                let from = (start + row * stride) * element.size
                $0.use(from..<from + length * element.size, isWritten: isWritten, of: memory)
            }
        }
        return memory + start * element.size
    }
}

/// Which parts of a mapped file may be in memory. They come and go as a queue does.
///
/// A part that is about to be written is made writable as a whole: else the system would be asked at each page, which
/// takes it longer than it takes us to write one. Tiles lie side by side in the order in which they are written, so all
/// of a part is written soon.
private struct Residency {
    private enum Use: UInt8 { case none, read, written }

    /// As many pages as the system brings for one that is read.
    private static let part = 64 << 10

    private let bytes: Int
    private var uses: [Use]
    /// In the order in which they came, from `turn` on; -1: none.
    private var queue = [Int](repeating: -1, count: StoredValues.mostResident / part)
    private var turn = 0

    init(bytes: Int) {
        self.bytes = bytes
        uses = [Use](repeating: .none, count: bytes / Self.part + 1)
    }

    mutating func use(_ range: Range<Int>, isWritten: Bool, of memory: UnsafeMutableRawPointer) {
        for part in range.lowerBound / Self.part...(range.upperBound - 1) / Self.part {
            let use = isWritten ? Use.written : .read
            guard uses[part].rawValue < use.rawValue else { continue }
            if uses[part] == .none {
                let oldest = queue[turn]
                if oldest >= 0 {
                    advise(oldest, MADV_DONTNEED, of: memory)
                    uses[oldest] = .none
                }
                queue[turn] = part
                turn = (turn + 1) % queue.count
            }
            uses[part] = use
            // Before Linux 5.14 there is no such advice, and nothing is lost.
            if isWritten { advise(part, MADV_POPULATE_WRITE, of: memory) }
        }
    }

    private func advise(_ part: Int, _ advice: Int32, of memory: UnsafeMutableRawPointer) {
        madvise(memory + part * Self.part, min(Self.part, bytes - part * Self.part), advice)
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
            """
            \(path): the disk has no room for \(needed) bytes of the job's canvas: free some, or have the job on \
            another disk
            """
        case .tooLarge(let path):
            "\(path): the job's canvas is larger than any disk: make a smaller picture"
        case .wrongSize(let path, let bytes, let expected):
            "\(path): has \(bytes) bytes instead of \(expected): it is damaged or of another job"
        case .failed(let path, let reason):
            "\(path): cannot be used for the job's canvas: \(reason)"
        }
    }
}
