import Foundation

/// Reads a model folder's files by their fixed names and notes them.
struct FolderReader {
    static let configurationLimit = 1 << 20  // bytes
    let root: URL
    private(set) var files: [FolderFile] = []

    /// - Throws: `ModelFolderError.missingFolder`.
    init(root: URL) throws {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: root.path, isDirectory: &isDirectory), isDirectory.boolValue else {
            throw ModelFolderError.missingFolder(root.path)
        }
        self.root = root
    }

    func url(_ name: String) -> URL { name.isEmpty ? root : root.appending(path: name) }
    func path(_ name: String) -> String { url(name).path }

    /// - Throws: `ModelFolderError.outsideFolder` if the file is a link that leads out of the folder. The blobs beside
    ///   the snapshots of a Hugging Face cache, where each file of a model is such a link, count as inside.
    func isFile(_ name: String) throws -> Bool {
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path(name), isDirectory: &isDirectory), !isDirectory.boolValue
        else { return false }
        let target = url(name).resolvingSymlinksInPath().path
        let folder = root.resolvingSymlinksInPath()
        // snapshots/HASH, or a network's own folder in it.
        let above = folder.deletingLastPathComponent().deletingLastPathComponent()
        let blobs = [above, above.deletingLastPathComponent()].map { $0.appending(path: "blobs").path + "/" }
        guard target.hasPrefix(folder.path + "/") || blobs.contains(where: target.hasPrefix) else {
            throw ModelFolderError.outsideFolder(file: path(name), target: target)
        }
        return true
    }

    /// Notes a file, once.
    mutating func add(_ name: String) throws {
        guard !files.contains(where: { $0.name == name }) else { return }
        do {
            let size = try url(name).resolvingSymlinksInPath().resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0
            files.append(.init(name: name, size: size))
        } catch {
            throw ModelFolderError.unreadable(file: path(name), reason: error.localizedDescription)
        }
    }

    /// - Parameter limit: on the size in bytes.
    mutating func object(_ name: String, limit: Int = Self.configurationLimit) throws -> [String: JSON] {
        try add(name)
        guard let size = files.first(where: { $0.name == name })?.size, size <= limit else {
            throw ModelFolderError.malformed(file: path(name), reason: "larger than \(limit) bytes")
        }
        let data: Data
        do { data = try Data(contentsOf: url(name)) } catch {
            throw ModelFolderError.unreadable(file: path(name), reason: error.localizedDescription)
        }
        do {
            guard let object = try JSON([UInt8](data), allowsInfinity: true).object else {
                throw ModelFolderError.malformed(file: path(name), reason: "something else")
            }
            return object
        } catch let error as JSONError {
            throw ModelFolderError.malformed(file: path(name), reason: error.description)
        }
    }
}

/// A file of a model's folder that a worker needs.
public struct FolderFile: Sendable, Hashable {
    /// The path in the folder, parts joined by "/".
    public var name: String
    /// Bytes of it.
    public var size: Int
}
