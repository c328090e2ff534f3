import Engine
import Foundation
import Protocol

/// A folder with all that it takes to go on with a job: its request, its input, its planes, its last checkpoint. One
/// process has it at a time.
package final class JobFolder: Sendable {
    /// The layout of the two files that say what is in the folder. 1 kept what was typed, 2 keeps a request.
    package static let format = 2

    /// The job, as its folder describes it.
    package struct Description: Codable, Sendable, Equatable {
        var format = JobFolder.format
        package var job: UInt64
        package var request: RenderRequest
        /// Who computed it last.
        package var farm: FarmSettings
        /// SHA-256 of the input's copy and of the model's files.
        package var inputDigest = ""
        package var modelDigest = ""
        /// A digest of the request, and one of everything that decides the output's bytes, defaults included.
        package var requestDigest: String
        package var planDigest = ""
        package var isFinished = false

        package init(job: UInt64, request: RenderRequest, farm: FarmSettings) {
            (self.job, self.request, self.farm) = (job, request, farm)
            requestDigest = request.digest
        }
    }

    /// Everything before `pass` is done and on the disk.
    package struct Checkpoint: Codable, Sendable, Equatable {
        var format = JobFolder.format
        package var job: UInt64
        package var pass: Int
        /// For each array that is used from there on, which of its buffers holds it.
        package var buffers: [String: Int] = [:]
        /// SHA-256 of their files.
        package var files: [String: String] = [:]
        /// Planes of values that are used from there on.
        package var values: [String: Data] = [:]

        package init(job: UInt64, pass: Int) { (self.job, self.pass) = (job, pass) }
    }

    package let url: URL
    /// The checkpoint that was found in the folder: nil in a new one.
    package let checkpoint: Checkpoint?
    private let lock: Int32

    private init(url: URL, lock: Int32, checkpoint: Checkpoint?) {
        (self.url, self.lock, self.checkpoint) = (url, lock, checkpoint)
    }

    deinit { close(lock) }

    package func path(_ name: String) -> String { url.appending(path: name).path }

    /// Whether a file holds something that the checkpoint needs.
    func keeps(_ name: String) -> Bool { checkpoint?.files[name] != nil }

    static let inputName = "input.png"

    /// Whether a file is one of those that a running job makes here, and that a finished one leaves to nobody.
    private static func isOwn(_ name: String) -> Bool {
        [checkpointName, checkpointName + ".part", descriptionName + ".part", "input"].contains(name)
            || name.wholeMatch(of: /plane-[a-z.-]+\.[0-9]/) != nil
    }

    /// Whether a path is that of a file that the folder has for itself, under whatever name it is reached.
    package static func claims(_ path: String, in folder: String) -> Bool {
        let file = URL(filePath: path), folder = URL(filePath: folder).resolvingSymlinksInPath()
        // A link that leads to nothing yet is resolved by the second alone.
        let target = URL(filePath: followingLinks(path) ?? path)
        return [file, target, file.resolvingSymlinksInPath()].contains { file in
            let name = file.lastPathComponent
            return file.deletingLastPathComponent().resolvingSymlinksInPath().path == folder.path
                && (isOwn(name) || [inputName, descriptionName, lockName].contains(name))
        }
    }

    /// Whether it is a file, and no folder or link to one.
    private static func isPlain(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }

    private static let descriptionName = "job.json"
    private static let checkpointName = "checkpoint.json"

    /// A folder for a new job, with a copy of its input.
    /// - Throws: `JobFolderError` where there is something already.
    package static func create(_ path: String, input: String) throws -> JobFolder {
        let url = URL(filePath: path)
        do {
            try FileManager.default.createDirectory(
                at: url, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch { throw JobFolderError.unusable(path: path, reason: error.localizedDescription) }
        /// Files that a start which did not get further has left. It leaves its lock too: without one, files of these
        /// names are somebody's own.
        func leftovers() throws -> [String] {
            let names = try FileManager.default.contentsOfDirectory(atPath: path),
                others = names.filter { $0 != lockName }
            let isOurs =
                names.contains(lockName)
                && others.allSatisfy { ($0 == inputName || isOwn($0)) && isPlain(path + "/" + $0) }
            guard others.isEmpty || names.contains(descriptionName) || isOurs else {
                throw JobFolderError.notEmpty(path: path)
            }
            return others
        }
        // Looked at before a lock is left in somebody's folder, and again when nobody else can change it.
        _ = try leftovers()
        let lock = try take(path)
        var isKept = false
        defer { if !isKept { close(lock) } }
        let names = try leftovers()
        if names.contains(descriptionName) { throw JobFolderError.hasJob(path: path) }
        for name in names where unlink(path + "/" + name) != 0 {
            throw JobFolderError.unusable(path: path, reason: "\(name): \(String(cString: strerror(errno)))")
        }
        let copy = url.appending(path: inputName)
        do {
            try FileManager.default.copyItem(at: URL(filePath: input).resolvingSymlinksInPath(), to: copy)
        } catch { throw JobFolderError.unusable(path: path, reason: error.localizedDescription) }
        // On the disk before `job.json` speaks of it.
        for path in [copy.path, url.deletingLastPathComponent().path] {
            let code = sync(path)
            guard code == 0 else { throw JobFolderError.cannotWrite(path: path, code: code) }
        }
        isKept = true
        return JobFolder(url: url, lock: lock, checkpoint: nil)
    }

    /// The folder of a job that was begun.
    /// - Throws: `JobFolderError` when it is in use, of another version, or damaged; `RequestError.laterVersion`.
    package static func open(_ path: String) throws -> (JobFolder, Description) {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue else {
            throw JobFolderError.missing(path: path)
        }
        let url = URL(filePath: path)
        guard FileManager.default.fileExists(atPath: url.appending(path: descriptionName).path) else {
            throw JobFolderError.missing(path: path)
        }
        let lock = try take(path)
        var isKept = false
        defer { if !isKept { close(lock) } }
        guard let description: Description = try read(descriptionName, in: url) else {
            throw JobFolderError.missing(path: path)
        }
        guard description.request.digest == description.requestDigest else {
            throw JobFolderError.damaged(path: path, reason: "its request is not the one that it was made for")
        }
        let checkpoint: Checkpoint? = try read(checkpointName, in: url)
        if let checkpoint, checkpoint.job != description.job {
            throw JobFolderError.damaged(path: url.appending(path: checkpointName).path, reason: "it is of another job")
        }
        isKept = true
        return (JobFolder(url: url, lock: lock, checkpoint: checkpoint), description)
    }

    private static let lockName = "lock"

    private static func take(_ path: String) throws -> Int32 {
        let descriptor = Glibc.open(path + "/" + lockName, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw JobFolderError.unusable(path: path, reason: String(cString: strerror(errno)))
        }
        // Gone with the process, however it ends.
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            close(descriptor)
            throw code == EWOULDBLOCK
                ? JobFolderError.inUse(path: path) : .unusable(path: path, reason: String(cString: strerror(code)))
        }
        return descriptor
    }

    package func write(_ description: Description) throws { try write(description, to: Self.descriptionName) }
    package func write(_ checkpoint: Checkpoint) throws { try write(checkpoint, to: Self.checkpointName) }

    /// The output is there: what is not needed any more is removed.
    func finish(_ description: Description) throws {
        var description = description
        description.isFinished = true
        try write(description)
        clean()
    }

    /// Removes what a finished job has no use for.
    func clean() {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? [] where Self.isOwn(name) {
            unlink(path(name))
        }
    }

    /// The digests of the files that a checkpoint needs are what they were.
    package func verify(_ checkpoint: Checkpoint) throws {
        for (name, digest) in checkpoint.files.sorted(by: { $0.key < $1.key }) {
            guard try ContentDigest(file: path(name)).hex == digest else {
                throw JobFolderError.damaged(path: path(name), reason: "its digest is not what the checkpoint says")
            }
        }
    }

    // MARK: Files

    /// A line of JSON and a line with its digest, whole on the disk before it takes the place of the one before.
    private func write(_ value: some Encodable, to name: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        var data = try encoder.encode(value)
        data.append(contentsOf: Data("\n\(ContentDigest(of: data).hex)\n".utf8))
        let (temporary, final) = (path(name + ".part"), path(name))
        let descriptor = Glibc.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw JobFolderError.cannotWrite(path: final, code: errno) }
        var code = writeAll(Array(data), to: descriptor, onFull: nil)
        if code == 0, fsync(descriptor) != 0 { code = errno }
        close(descriptor)
        if code == 0, rename(temporary, final) != 0 { code = errno }
        guard code == 0 else {
            unlink(temporary)
            throw JobFolderError.cannotWrite(path: final, code: code)
        }
        code = Self.sync(url.path)
        guard code == 0 else { throw JobFolderError.cannotWrite(path: final, code: code) }
    }

    /// Brings a file or a directory to the disk.
    /// - Returns: 0 or `errno`.
    private static func sync(_ path: String) -> Int32 {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return errno }
        defer { close(descriptor) }
        // EINVAL: a file system that has nothing to bring anywhere.
        return fsync(descriptor) == 0 || errno == EINVAL ? 0 : errno
    }

    /// The part of a file that is looked at before the rest: another version may not have the rest.
    private struct Versions: Decodable {
        struct Request: Decodable { var version: Int }

        var format: Int
        var request: Request?
    }

    private static func read<Value: Decodable>(_ name: String, in folder: URL) throws -> Value? {
        let url = folder.appending(path: name)
        guard FileManager.default.fileExists(atPath: url.path) else { return nil }
        // Prompts and embeddings are small; a file that is not ours may be anything.
        let size = try? FileManager.default.attributesOfItem(atPath: url.path)[.size] as? Int
        guard let size, size <= 64 << 20, let data = try? Data(contentsOf: url) else {
            throw JobFolderError.damaged(path: url.path, reason: "it cannot be read")
        }
        let lines = data.split(separator: UInt8(ascii: "\n"))
        guard lines.count == 2, ContentDigest(of: lines[0]).hex.utf8.elementsEqual(lines[1]) else {
            throw JobFolderError.damaged(path: url.path, reason: "its digest is not that of its content")
        }
        guard let versions = try? JSONDecoder().decode(Versions.self, from: lines[0]) else {
            throw JobFolderError.damaged(path: url.path, reason: "it says no format")
        }
        guard versions.format == Self.format else {
            throw JobFolderError.otherVersion(path: folder.path, format: versions.format)
        }
        if let request = versions.request, request.version > RenderRequest.version {
            throw RequestError.laterVersion(request.version)
        }
        do { return try JSONDecoder().decode(Value.self, from: lines[0]) } catch {
            throw JobFolderError.damaged(path: url.path, reason: "it lacks what it should say")
        }
    }
}
