import Foundation

/// A regular file of which ranges are read. Read, not mapped: a file that is cut short while in use is an error and no
/// SIGBUS, and the weights of a model do not stand in memory twice, as pages of the file and as what the kernels have
/// packed.
final class RandomAccessFile: Sendable {
    /// The file's size when it was opened, in bytes.
    let count: Int
    private let descriptor: Int32

    /// - Throws: `FileAccessError` if there is no such file or it is not a regular one.
    init(url: URL) throws {
        // Not blocking: a named pipe would wait for a writer before it could be refused.
        let descriptor = open(url.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw FileAccessError(code: errno) }
        do {
            var status = stat()
            guard fstat(descriptor, &status) == 0 else { throw FileAccessError(code: errno) }
            guard status.st_mode & S_IFMT == S_IFREG else { throw FileAccessError(reason: "it is not a regular file") }
            count = Int(status.st_size)
        } catch {
            close(descriptor)
            throw error
        }
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    /// The elements stored in `range` (in bytes; alignment does not matter).
    /// - Throws: `FileAccessError` if `range` is not inside the file or the file has shrunk.
    func elements<Element: BitwiseCopyable>(_ type: Element.Type, in range: Range<Int>) throws -> [Element] {
        guard range.lowerBound >= 0, range.upperBound <= count else {
            throw FileAccessError(reason: "it ends too early")
        }
        let elements = range.count / MemoryLayout<Element>.stride
        return try [Element](unsafeUninitializedCapacity: elements) { target, initialized in
            let bytes = UnsafeMutableRawBufferPointer(target)
            let size = elements * MemoryLayout<Element>.stride
            var done = 0
            while done < size {  // one call gives at most 2 GiB
                let read = pread(
                    descriptor, bytes.baseAddress.map { $0 + done }, size - done, off_t(range.lowerBound + done))
                if read < 0, errno == EINTR { continue }
                guard read >= 0 else { throw FileAccessError(code: errno) }
                guard read > 0 else {
                    throw FileAccessError(
                        reason: "the file was cut short to \(range.lowerBound + done) bytes while in use")
                }
                done += read
            }
            initialized = elements
        }
    }
}

/// Why the system did not give us a file's bytes.
struct FileAccessError: Error {
    var reason: String
    init(reason: String) { self.reason = reason }
    init(code: Int32) { reason = String(cString: strerror(code)) }
}
