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

/// `path` with the links that it is followed to their end, whether there is a file or not: where a program that opens
/// it for writing writes. Directories on the way stay as they are named.
///
/// - Returns: nil with `errno` set, where a link cannot be read or links go round.
package func followingLinks(_ path: String) -> String? {
    var path = path
    // As many as Linux follows.
    for _ in 0...40 {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK else { return path }
        guard let target = linkTarget(path) else { return nil }
        path = target.hasPrefix("/") ? target : split(path).directory + "/" + target
    }
    errno = ELOOP
    return nil
}

/// The path that a link holds.
///
/// - Returns: nil with `errno` set.
private func linkTarget(_ path: String) -> String? {
    var bytes = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = bytes.withUnsafeMutableBytes { bytes in
        bytes.baseAddress.map { readlink(path, $0.assumingMemoryBound(to: CChar.self), bytes.count) } ?? -1
    }
    return count < 0 ? nil : String(decoding: bytes[..<count], as: UTF8.self)
}

private let serial = Atomic<Int>(0)

/// How the names of hidden files for `name` begin: `.NAME.part-`. What follows are two numbers, and a file system takes
/// 255 bytes, so of a long name there is only the beginning, with a hash of the whole in place of the rest.
func hiddenPrefix(for name: String) -> String {
    let most = 200
    guard name.utf8.count > most else { return ".\(name).part-" }
    let hash = name.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }  // FNV-1a
    var start = name
    while start.utf8.count > most - 17 { start.removeLast() }
    return ".\(start)-\(String(hash, radix: 16)).part-"
}

/// Makes a file or folder beside `target` that is nobody else's, `.NAME.part-PID-N`, and locks it: who sweeps leaves it
/// alone while its descriptor is open.
///
/// - Parameter make: makes what is given the name, and returns its descriptor, or -1 with `errno` set.
/// - Returns: nil with `errno` set.
func makeHidden(for target: String, make: (String) -> Int32) -> (descriptor: Int32, path: String)? {
    let (directory, name) = split(target)
    while true {
        let number = serial.add(1, ordering: .relaxed).newValue
        let path = "\(directory)/\(hiddenPrefix(for: name))\(getpid())-\(number)"
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
    let start = hiddenPrefix(for: name)
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

/// The names in a directory.
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
    /// The error for a failed call of the system.
    init(writing path: String, errno code: Int32, needed: Int?) {
        self = isFull(code) ? .noSpace(path: path, needed: needed) : .writeFailed(path: path, reason: reason(of: code))
    }
}
