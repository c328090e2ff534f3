public import Foundation
internal import Glibc

/// A worker's models: a folder with one subfolder for each, named by the model's digest. Several workers may share it.
public struct ModelStore: Sendable {
    public let folder: URL

    /// `$XDG_CACHE_HOME/tilefarm/models`, or `~/.cache/tilefarm/models`.
    public static var defaultFolder: URL {
        let environment = ProcessInfo.processInfo.environment
        let base =
            if let cache = environment["XDG_CACHE_HOME"], cache.hasPrefix("/") { URL(filePath: cache) } else {
                FileManager.default.homeDirectoryForCurrentUser.appending(path: ".cache")
            }
        return base.appending(path: "tilefarm/models")
    }

    public init(folder: URL = Self.defaultFolder) {
        self.folder = folder
    }

    func entry(_ digest: ModelDigest) -> URL { folder.appending(path: digest.hex) }

    /// The folder of a model that is here whole: every file is read and its SHA-256 compared. A damaged one is removed.
    public func find(_ manifest: ModelManifest) throws(ModelFileError) -> URL? {
        let entry = entry(manifest.digest)
        guard FileManager.default.fileExists(atPath: entry.path) else { return nil }
        if Self.matches(manifest, folder: entry) { return entry }
        // First out of the way in one step, so that nobody opens half of it.
        let aside = folder.appending(path: ".damaged-\(UInt64.random(in: 0 ... .max))")
        if rename(entry.path, aside.path) == 0 { try? FileManager.default.removeItem(at: aside) }
        return nil
    }

    /// Whether a folder holds the very files of a manifest; others beside them do not matter.
    public static func matches(_ manifest: ModelManifest, folder: URL) -> Bool {
        manifest.files.allSatisfy { entry in
            guard let file = try? ModelFile(path: folder.appending(path: entry.name).path), file.size == entry.size,
                let digest = try? file.sha256()
            else { return false }
            return digest == entry.sha256
        }
    }

    /// Begins to fetch a model.
    public func download(_ manifest: ModelManifest) throws(ModelFileError) -> ModelDownload {
        try ModelDownload(manifest, into: self)
    }
}

/// A model on its way into a store: a folder beside the others, renamed when every file is there and checked. Given up,
/// it leaves nothing.
public final class ModelDownload {
    public let manifest: ModelManifest
    private let store: ModelStore
    private let temporary: URL

    /// The next piece to ask for, and the next to arrive: a connection keeps the order, so pieces come as they were
    /// asked for.
    private var asked = (file: 0, offset: 0)
    private var awaited = (file: 0, offset: 0)
    private var outstanding = 0
    private var output: FileHandle?
    private var hash = SHA256Hash()

    /// Bytes that have arrived.
    public private(set) var receivedBytes = 0

    /// Pieces asked for at a time: enough to fill a connection, few enough to leave room for others.
    private static let window = 8

    init(_ manifest: ModelManifest, into store: ModelStore) throws(ModelFileError) {
        let path = store.folder.path
        do {
            try FileManager.default.createDirectory(at: store.folder, withIntermediateDirectories: true)
        } catch {
            throw .unwritable(
                path: path, reason: (error as NSError).localizedFailureReason ?? error.localizedDescription)
        }
        Self.removeAbandoned(in: store.folder)
        var space = statvfs()
        if statvfs(path, &space) == 0 {
            let (free, overflow) = Int(clamping: space.f_bavail).multipliedReportingOverflow(
                by: Int(clamping: space.f_frsize))
            guard overflow || free > manifest.totalBytes else {
                throw .diskFull(path: path, needed: manifest.totalBytes, free: free)
            }
        }
        var template = Array(store.folder.appending(path: ".fetching-XXXXXX").path.utf8CString)
        guard mkdtemp(&template) != nil else { throw .unwritable(path: path, reason: String(cString: strerror(errno))) }
        temporary = URL(filePath: String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
        self.manifest = manifest
        self.store = store
        try openNext()
    }

    deinit {
        try? output?.close()
        try? FileManager.default.removeItem(at: temporary)
    }

    /// Requests to the coordinator: call it at the start and after each piece.
    public func requests() -> [WorkerMessage] {
        var requests: [WorkerMessage] = []
        while outstanding < Self.window, manifest.files.indices.contains(asked.file) {
            let length = min(WireLimits.chunkBytes, manifest.files[asked.file].size - asked.offset)
            if length > 0 {
                requests.append(.fetch(manifest.digest, file: asked.file, offset: asked.offset, length: length))
                outstanding += 1
                asked.offset += length
            }
            if asked.offset == manifest.files[asked.file].size { asked = (asked.file + 1, 0) }
        }
        return requests
    }

    /// Takes a piece.
    /// - Throws: `damaged` when a file is whole and not what the manifest says.
    public func receive(file: Int, offset: Int, _ bytes: Frame) throws(ModelFileError) {
        guard outstanding > 0, (file, offset) == awaited, manifest.files.indices.contains(file),
            bytes.byteCount == min(WireLimits.chunkBytes, manifest.files[file].size - offset)
        else { throw .unexpectedPiece(file: file, offset: offset, length: bytes.byteCount) }
        bytes.withBytes { hash.update($0) }
        do {
            try output?.write(contentsOf: bytes.withBytes { Data($0) })
        } catch {
            throw .unwritable(
                path: store.folder.path, reason: (error as NSError).localizedFailureReason ?? error.localizedDescription
            )
        }
        outstanding -= 1
        receivedBytes += bytes.byteCount
        awaited.offset += bytes.byteCount
        if awaited.offset == manifest.files[file].size {
            try closeFile()
            awaited = (file + 1, 0)
            try openNext()
        }
    }

    /// Whether every file is here and checked.
    public var isComplete: Bool { awaited.file == manifest.files.count }

    /// Moves the model to its place in the store; call it when `isComplete`.
    public func install() throws(ModelFileError) -> URL {
        precondition(isComplete)
        let entry = store.entry(manifest.digest)
        for _ in 0..<3 {
            if rename(temporary.path, entry.path) == 0 { return entry }
            let code = errno
            guard code == EEXIST || code == ENOTEMPTY else {
                throw .unwritable(path: store.folder.path, reason: String(cString: strerror(code)))
            }
            // Another worker was faster; `find` removes its copy if that is damaged.
            if let theirs = try store.find(manifest) { return theirs }
        }
        throw .unwritable(path: entry.path, reason: "other workers keep writing damaged copies")
    }

    /// Opens the file that is awaited; empty ones are whole at once.
    private func openNext() throws(ModelFileError) {
        while manifest.files.indices.contains(awaited.file) {
            let file = manifest.files[awaited.file]
            let target = temporary.appending(path: file.name)
            do {
                try FileManager.default.createDirectory(
                    at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
            } catch {
                throw .unwritable(path: store.folder.path, reason: error.localizedDescription)
            }
            let descriptor = open(target.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
            guard descriptor >= 0 else {
                throw .unwritable(path: store.folder.path, reason: String(cString: strerror(errno)))
            }
            output = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
            hash = SHA256Hash()
            if file.size > 0 { return }
            try closeFile()
            awaited = (awaited.file + 1, 0)
        }
    }

    private func closeFile() throws(ModelFileError) {
        let file = manifest.files[awaited.file]
        try? output?.close()
        output = nil
        guard hash.finish() == file.sha256 else { throw .damaged(file: file.name) }
    }

    /// Downloads that a killed worker left.
    private static func removeAbandoned(in folder: URL) {
        let week = Date(timeIntervalSinceNow: -7 * 24 * 3600)
        let entries = try? FileManager.default.contentsOfDirectory(
            at: folder, includingPropertiesForKeys: [.contentModificationDateKey])
        for entry in entries ?? []
        where entry.lastPathComponent.hasPrefix(".fetching-") || entry.lastPathComponent.hasPrefix(".damaged-") {
            let date = try? entry.resourceValues(forKeys: [.contentModificationDateKey]).contentModificationDate
            if let date, date < week { try? FileManager.default.removeItem(at: entry) }
        }
    }
}
