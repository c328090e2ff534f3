internal import CPNG
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
            let code = errno  // onFull may change it
            guard code == EINTR || isFull(code) && onFull?() == true else { return code }
        }
        return 0
    }
}

/// Whether an `errno` says that room may come.
package func isFull(_ code: Int32) -> Bool { code == ENOSPC || code == EDQUOT }

/// Has the system begin to write what a file holds, so that the end does not wait for gigabytes. Waits only while the
/// disk's queue is full. A hint: where there is no such call nothing is lost, and what fails is told by the `fsync` or
/// `syncfs` at the end.
func beginSync(_ descriptor: Int32) { _ = sync_file_range(descriptor, 0, 0, UInt32(SYNC_FILE_RANGE_WRITE)) }

/// A rename lasts through a power cut only when the directory has reached the disk. A file system that cannot do this
/// still has the file.
func syncDirectory(_ path: String) {
    let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard directory >= 0 else { return }
    fsync(directory)
    close(directory)
}

/// The directory that `path` lies in, and what it is called there.
func split(_ path: String) -> (directory: String, name: String) {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return (".", path) }
    return (slash == path.startIndex ? "/" : String(path[..<slash]), String(path[path.utf8.index(after: slash)...]))
}

private let serial = Atomic<Int>(0)

/// Makes a file or folder beside `target` that is nobody else's, `.NAME.part-PID-N`, and locks it: who sweeps leaves it
/// alone while its descriptor is open.
///
/// - Parameter make: makes what is given the name, and returns its descriptor, or -1 with `errno` set.
/// - Returns: nil with `errno` set.
func makeHidden(for target: String, make: (String) -> Int32) -> (descriptor: Int32, path: String)? {
    let (directory, name) = split(target)
    while true {
        let path = "\(directory)/.\(name).part-\(getpid())-\(serial.add(1, ordering: .relaxed).newValue)"
        let descriptor = make(path)
        // A process of this number in another container, or one before this one.
        if descriptor < 0, errno == EEXIST { continue }
        guard descriptor >= 0 else { return nil }
        var status = stat()
        // Swept before it was locked?
        if flock(descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK, fstat(descriptor, &status) == 0,
            status.st_nlink > 0
        {
            return (descriptor, path)
        }
        close(descriptor)
    }
}

/// Removes what processes that were killed have left beside `target`, some gigabytes each time for a large picture.
func sweepHidden(for target: String, remove: (String) -> Void) {
    let (directory, name) = split(target)
    let start = ".\(name).part-"
    for leftover in (try? names(in: directory)) ?? [] where leftover.hasPrefix(start) {
        let numbers = leftover.dropFirst(start.count).split(separator: "-", omittingEmptySubsequences: false)
        guard numbers.count == 2, numbers.allSatisfy(isNumber) else { continue }
        let path = "\(directory)/\(leftover)"
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { continue }
        if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { remove(path) }
        close(descriptor)
    }
}

/// Whether a text is decimal digits and nothing else.
func isNumber(_ text: some StringProtocol) -> Bool { !text.isEmpty && text.utf8.allSatisfy { (48...57).contains($0) } }

/// What lies in a directory.
///
/// - Throws: `PNGError.unreadable`.
func names(in path: String) throws -> [String] {
    guard let directory = opendir(path) else { throw PNGError.unreadable(path: path, reason: reason(of: errno)) }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        // Not as a value of 256 bytes: the record may be shorter, and end where the system's memory does.
        guard let start = MemoryLayout<dirent>.offset(of: \.d_name) else { continue }
        let name = String(cString: (UnsafeRawPointer(entry) + start).assumingMemoryBound(to: CChar.self))
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
