import Foundation

/// A file mapped read-only into memory. The pointer never leaves this type: readers get checked copies.
final class MappedFile: @unchecked Sendable {  // immutable after init; the mapping is private and read-only
    private let descriptor: Int32
    private let bytes: UnsafeRawBufferPointer

    var count: Int { bytes.count }

    /// - Throws: `MappedFileError` if the file cannot be opened or mapped.
    init(url: URL) throws {
        let descriptor = open(url.path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw MappedFileError(reason: errno) }
        do {
            bytes = try Self.map(descriptor)
        } catch {
            close(descriptor)
            throw error
        }
        self.descriptor = descriptor
    }

    deinit {
        if let start = bytes.baseAddress { munmap(UnsafeMutableRawPointer(mutating: start), bytes.count) }
        close(descriptor)
    }

    /// The elements stored in `range` (in bytes; alignment does not matter).
    ///
    /// Touching a page past the file's end is a SIGBUS, so the file's size is asked again before each read: a file cut short after
    /// it was mapped is an error, unless that happens during the read itself.
    /// - Throws: `MappedFileError` if `range` is not inside the file or the file has shrunk.
    func elements<Element: BitwiseCopyable>(_ type: Element.Type, in range: Range<Int>) throws -> [Element] {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw MappedFileError(reason: errno) }
        guard range.lowerBound >= 0, range.upperBound <= count, range.upperBound <= Int(status.st_size) else {
            throw MappedFileError(reason: "the file was cut short to \(status.st_size) bytes while in use")
        }
        let elements = range.count / MemoryLayout<Element>.stride
        return [Element](unsafeUninitializedCapacity: elements) { target, initialized in
            UnsafeMutableRawBufferPointer(target).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: bytes[range].prefix(elements * MemoryLayout<Element>.stride)))
            initialized = elements
        }
    }

    private static func map(_ descriptor: Int32) throws -> UnsafeRawBufferPointer {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw MappedFileError(reason: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw MappedFileError(reason: "it is not a regular file") }
        let count = Int(status.st_size)
        guard count > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }  // mmap refuses an empty range
        guard let start = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0), start != MAP_FAILED else {
            throw MappedFileError(reason: errno)
        }
        return UnsafeRawBufferPointer(start: start, count: count)
    }
}

/// Why the system did not give us a file's bytes.
struct MappedFileError: Error {
    var reason: String
    init(reason: String) { self.reason = reason }
    init(reason code: Int32) { reason = String(cString: strerror(code)) }
}
