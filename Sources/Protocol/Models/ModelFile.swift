internal import Glibc

/// A file of a model, open for reading.
final class ModelFile: Sendable {
    let path: String
    /// Bytes, when it was opened.
    let size: Int
    private let descriptor: Int32

    init(path: String) throws(ModelFileError) {
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .unreadable(path: path, reason: String(cString: strerror(errno))) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw .unreadable(path: path, reason: "it is not a plain file")
        }
        self.path = path
        size = Int(status.st_size)
    }

    deinit {
        close(descriptor)
    }

    /// Fills `bytes` from `offset`.
    func read(_ bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(ModelFileError) {
        var done = 0
        while done < bytes.count {
            let count = pread(descriptor, bytes.baseAddress?.advanced(by: done), bytes.count - done, offset + done)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw .unreadable(path: path, reason: String(cString: strerror(errno))) }
            guard count > 0 else { throw .changed(path: path) }
            done += count
        }
    }

    func sha256() throws(ModelFileError) -> ContentDigest {
        var hash = SHA256Hash()
        var offset = 0
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: min(max(size, 1), 1 << 20), alignment: 16)
        defer { piece.deallocate() }
        while offset < size {
            let part = UnsafeMutableRawBufferPointer(rebasing: piece[..<min(piece.count, size - offset)])
            try read(part, at: offset)
            hash.update(UnsafeRawBufferPointer(part))
            offset += part.count
        }
        return hash.finish()
    }
}

extension ContentDigest {
    /// The digest of a whole file.
    /// - Throws: `ModelFileError`.
    public init(file path: String) throws {
        self = try ModelFile(path: path).sha256()
    }
}
