import Glibc
import Synchronization

/// Writes all of `bytes`, and asks `onFull` whether to try again when there is no room.
///
/// - Returns: 0, or the `errno` of the failure.
package func writeAll(_ bytes: [UInt8], to descriptor: Int32, onFull: (() -> Bool)?) -> Int32 {
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
package func isFull(_ code: Int32) -> Bool { code == ENOSPC || code == EDQUOT }

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

/// Takes a lock that says that somebody is at work on a hidden file or folder. It goes with the descriptor.
func lockHidden(_ descriptor: Int32) { flock(descriptor, LOCK_EX | LOCK_NB) }

/// Removes what processes that were killed have left beside `target`, some gigabytes each time for a large picture.
func sweepHidden(for target: String, remove: (String) -> Void) {
    let folder = directory(of: target)
    let name = target.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(target[target.utf8.index(after: $0)...]) } ?? target
    for leftover in (try? names(in: folder)) ?? [] where leftover.hasPrefix(".\(name).part-") {
        let path = "\(folder)/\(leftover)"
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { continue }
        if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { remove(path) }
        close(descriptor)
    }
}

/// What lies in a directory.
///
/// - Throws: `PNGError.unreadable`.
func names(in path: String) throws -> [String] {
    guard let directory = opendir(path) else { throw PNGError.unreadable(path: path, reason: reason(of: errno)) }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}

extension PNGError {
    /// What a failed call of the system says.
    init(writing path: String, errno code: Int32, needed: Int?) {
        self = isFull(code) ? .noSpace(path: path, needed: needed) : .writeFailed(path: path, reason: reason(of: code))
    }
}
