import Engine
import Foundation
import Protocol

/// What has to be there to go on with a job: the arguments that it was started with, its input, its canvases, its last
/// checkpoint. One process has it at a time.
package final class JobFolder: Sendable {
    /// Of the two files that say what is in the folder. Another number: another layout.
    static let format = 1

    /// What the job is.
    package struct Description: Codable, Sendable, Equatable {
        var format = JobFolder.format
        package var job: UInt64
        /// As they were typed after `upscale`, and where.
        package var arguments: [String]
        package var workingDirectory: String
        package var inputDigest: String
        package var modelDigest: String
        /// Of everything that decides the output's bytes, defaults included.
        package var planDigest: String
        package var isFinished = false

        package init(
            job: UInt64, arguments: [String], workingDirectory: String, inputDigest: String, modelDigest: String,
            planDigest: String
        ) {
            (self.job, self.arguments, self.workingDirectory) = (job, arguments, workingDirectory)
            (self.inputDigest, self.modelDigest, self.planDigest) = (inputDigest, modelDigest, planDigest)
        }
    }

    /// Everything before `phase` is done and on the disk.
    package struct Checkpoint: Codable, Sendable, Equatable {
        var format = JobFolder.format
        package var job: UInt64
        package var phase: Int
        /// Which canvas holds the state, nil before any does.
        package var canvas: Int?
        /// SHA-256 of the files that the phases to come read.
        package var files: [String: String] = [:]
        /// Bit patterns of the sums that passes before have gathered.
        package var sums: [UInt64] = []
        /// The prompts' embeddings.
        package var text: Data?
    }

    package let url: URL
    /// What was found in the folder: nil in a new one.
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
        let numbered = Int(name.drop { $0 != "." }.dropFirst())
        return [
            checkpointName, checkpointName + ".part", descriptionName + ".part", "input", RenderPlan.Store.sum,
            RenderPlan.Store.pixels,
            RenderPlan.Store.features(.encode), RenderPlan.Store.features(.decode),
        ].contains(name)
            || numbered.map { [RenderPlan.Store.canvas($0), RenderPlan.Store.prediction($0)].contains(name) } ?? false
    }

    /// Whether a path is that of a file that the folder has for itself, under whatever name it is reached.
    package static func claims(_ path: String, in folder: String) -> Bool {
        let file = URL(filePath: path), folder = URL(filePath: folder).resolvingSymlinksInPath()
        return [file, file.resolvingSymlinksInPath()].contains { file in
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
        /// What a start that did not get further has left. It leaves its lock too: without one, files of these names
        /// are somebody's own.
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
    /// - Throws: `JobFolderError` when it is in use, of another version, or damaged.
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

    private struct Format: Decodable { var format: Int }

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
        guard let format = try? JSONDecoder().decode(Format.self, from: lines[0]).format else {
            throw JobFolderError.damaged(path: url.path, reason: "it says no format")
        }
        guard format == Self.format else { throw JobFolderError.otherVersion(path: folder.path, format: format) }
        do { return try JSONDecoder().decode(Value.self, from: lines[0]) } catch {
            throw JobFolderError.damaged(path: url.path, reason: "it lacks what it should say")
        }
    }
}

/// What can be wrong with a job folder.
package enum JobFolderError: Error, Equatable, CustomStringConvertible {
    case missing(path: String)
    case hasJob(path: String)
    case notEmpty(path: String)
    case inUse(path: String)
    case unusable(path: String, reason: String)
    case otherVersion(path: String, format: Int)
    case damaged(path: String, reason: String)
    case changed(path: String, what: String)
    case finished(path: String, output: String)
    case cannotWrite(path: String, code: Int32)
    case claimed(path: String, option: String)

    /// Room may come.
    var isDiskFull: Bool { if case .cannotWrite(_, let code) = self { isFull(code) } else { false } }

    package var description: String {
        switch self {
        case .missing(let path): "\(path): there is no job here; a job folder is made by `tilefarm upscale --job`"
        case .hasJob(let path):
            "--job \(path): holds a job already: `tilefarm resume \(path)` goes on with it, or choose another folder"
        case .notEmpty(let path): "--job \(path): holds other files: choose a folder that is empty or not there yet"
        case .inUse(let path): "\(path): another tilefarm is at work on this job; stop that one first"
        case .unusable(let path, let reason): "\(path): cannot be used as a job folder: \(reason)"
        case .otherVersion(let path, let format):
            "\(path): was made by another version of tilefarm (format \(format), this one has \(JobFolder.format)): resume it with that version, or start anew"
        case .damaged(let path, let reason): "\(path): is damaged (\(reason)): the job cannot be resumed, start it anew"
        case .changed(let path, let what):
            "\(path): \(what) not what the job was started with: bring that back, or start anew"
        case .finished(let path, let output): "\(path): this job is finished, its output is \(output)"
        case .claimed(let path, let option):
            "\(option) \(path): the job folder has a file of this name for itself: choose another"
        case .cannotWrite(let path, let code): "\(path): cannot be written: \(String(cString: strerror(code)))"
        }
    }
}
