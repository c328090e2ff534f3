internal import CPNG
import Glibc

/// The folder that a pyramid is made in.
final class DeepZoomFolder: @unchecked Sendable {  // but for this, nothing in it changes
    /// Set before anything is written.
    var onFull: (@Sendable () -> Bool)?
    let path: String
    private let shown: String
    private let needed: Int
    /// The open folder; holds its lock.
    private let descriptor: Int32

    /// Makes the folder beside `target`.
    ///
    /// - Parameters:
    ///   - shown: the path to name in errors
    ///   - needed: the most bytes the pyramid takes
    /// - Throws: `PNGError`.
    init(for target: String, shown: String, needed: Int) throws {
        sweepHidden(for: target, remove: Self.remove)
        let made = makeHidden(for: target) { path in
            guard mkdir(path, 0o777) == 0 else { return -1 }
            let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            if descriptor < 0 {
                let code = errno
                rmdir(path)
                errno = code
            }
            return descriptor
        }
        guard let made else {
            throw isFull(errno)
                ? PNGError.noSpace(path: shown, needed: needed) : .notWritable(path: shown, reason: reason(of: errno))
        }
        (descriptor, path) = made
        self.shown = shown
        self.needed = needed
    }

    deinit { close(descriptor) }

    func error(_ code: Int32) -> PNGError { PNGError(writing: shown, errno: code, needed: needed) }

    /// Makes a directory in it.
    func makeDirectory(_ name: String) throws {
        while mkdir(path + name, 0o777) != 0 {
            let code = errno
            guard isFull(code), onFull?() == true else { throw error(code) }
        }
    }

    /// Writes a whole file.
    func write(_ name: String, _ bytes: [UInt8]) throws {
        var descriptor: Int32
        repeat {
            descriptor = open(path + name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
        } while descriptor < 0 && (errno == EINTR || isFull(errno) && onFull?() == true)
        guard descriptor >= 0 else { throw error(errno) }
        var code = writeAll(bytes, to: descriptor, onFull: onFull)
        beginSync(descriptor)
        if close(descriptor) != 0, code == 0, errno != EINTR { code = errno }
        guard code == 0 else { throw error(code) }
    }

    /// Brings everything to the disk: a pyramid has too many files to wait for each.
    func sync() throws {
        // Tells of errors since this descriptor was opened.
        guard syncfs(descriptor) == 0 else { throw error(errno) }
    }

    /// Puts it in the place of `target`, which may be missing, an empty directory or a pyramid.
    func replace(_ target: String) throws {
        if rename(path, target) == 0 { return }
        guard errno == ENOTEMPTY || errno == EEXIST else { throw error(errno) }
        // Hours may have passed since the start.
        guard try Self.isPyramid(target) else { throw PNGError.notAPyramid(path: shown) }
        // At no moment is there none.
        if renameat2(AT_FDCWD, path, AT_FDCWD, target, UInt32(RENAME_EXCHANGE)) == 0 { return Self.remove(path) }
        guard errno == EINVAL || errno == ENOSYS else { throw error(errno) }
        Self.remove(target)
        guard rename(path, target) == 0 else { throw error(errno) }
    }

    /// Whether there is nothing in a directory but what a pyramid consists of, or nothing at all.
    ///
    /// - Throws: `PNGError.unreadable`.
    static func isPyramid(_ path: String) throws -> Bool {
        let files = "\(DeepZoomWriter.name)_files"
        for name in try names(in: path) {
            if name == "index.html", starts(file: "\(path)/\(name)", with: deepZoomPageStart) { continue }
            if name == "\(DeepZoomWriter.name).dzi" { continue }
            guard name == files else { return false }
            for level in try names(in: "\(path)/\(files)") {
                guard isNumber(level) else { return false }
                for tile in try names(in: "\(path)/\(files)/\(level)") where !isTile(tile) { return false }
            }
        }
        return true
    }

    private static func isTile(_ name: String) -> Bool {
        guard name.hasSuffix(".png") else { return false }
        let parts = name.dropLast(4).split(separator: "_", omittingEmptySubsequences: false)
        return parts.count == 2 && parts.allSatisfy { isNumber($0) }
    }

    private static func starts(file path: String, with text: String) -> Bool {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var start = [UInt8](repeating: 0, count: text.utf8.count)
        return read(descriptor, &start, start.count) == start.count && start.elementsEqual(text.utf8)
    }

    /// Removes a pyramid, finished or not, and no files of others. What cannot be removed stays.
    static func remove(_ path: String) {
        let files = "\(path)/\(DeepZoomWriter.name)_files"
        for level in (try? names(in: files)) ?? [] where isNumber(level) {
            for tile in (try? names(in: "\(files)/\(level)")) ?? [] where isTile(tile) {
                unlink("\(files)/\(level)/\(tile)")
            }
            rmdir("\(files)/\(level)")
        }
        rmdir(files)
        unlink("\(path)/\(DeepZoomWriter.name).dzi")
        unlink("\(path)/index.html")
        rmdir(path)
    }
}
