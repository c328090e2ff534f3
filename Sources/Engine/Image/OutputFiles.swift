import Glibc
import Synchronization

/// Writes all of `bytes`, and asks `onFull` whether to try again when there is no room.
///
/// - Returns: 0, or the `errno` of the failure.
func writeAll(_ bytes: [UInt8], to descriptor: Int32, onFull: (() -> Bool)?) -> Int32 {
    bytes.withUnsafeBytes { bytes in
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
            if count >= 0 {
                rest = rest.dropFirst(count)
                continue
            }
            let code = errno   // onFull may change it
            guard code == EINTR || isFull(code) && onFull?() == true else { return code }
        }
        return 0
    }
}

/// Whether an `errno` says that room may come.
func isFull(_ code: Int32) -> Bool { code == ENOSPC || code == EDQUOT }

/// A rename lasts through a power cut only when the directory has reached the disk. A file system that cannot do this still has the file.
func syncDirectory(_ path: String) {
    let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard directory >= 0 else { return }
    fsync(directory)
    close(directory)
}

/// The directory that `path` lies in.
func directory(of path: String) -> String {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
}

private let serial = Atomic<Int>(0)

/// A name beside `target` that is no one else's: `.NAME.part-PID-N`.
func hiddenName(for target: String) -> String {
    let number = serial.add(1, ordering: .relaxed).newValue
    let slash = target.utf8.lastIndex(of: UInt8(ascii: "/")).map { target.utf8.index(after: $0) } ?? target.startIndex
    return "\(target[..<slash]).\(target[slash...]).part-\(getpid())-\(number)"
}

extension PNGError {
    /// What a failed call of the system says.
    init(writing path: String, errno code: Int32, needed: Int?) {
        self = isFull(code) ? .noSpace(path: path, needed: needed) : .writeFailed(path: path, reason: reason(of: code))
    }
}
