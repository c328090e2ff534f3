public import Foundation

extension ModelManifest {
    /// Reads the named files of a model folder and hashes them.
    /// - Parameter files: relative names; they may be links, as those of a model hub's cache are.
    public static func of(folder: URL, files names: [String]) throws(ModelFileError) -> ModelManifest {
        var files: [File] = []
        for name in names {
            let file = try ModelFile(path: folder.appending(path: name).path)
            files.append(File(name: name, size: file.size, sha256: try file.sha256()))
        }
        do { return try ModelManifest(files: files) } catch { throw .manifest(error) }
    }
}

/// The coordinator's side of a model's way to the workers: reads pieces of the files of one manifest, opened
/// beforehand; a name that a peer sends is never looked up.
public final class ModelServer: Sendable {
    public let manifest: ModelManifest
    private let files: [ModelFile]

    public init(folder: URL, manifest: ModelManifest) throws(ModelFileError) {
        var files: [ModelFile] = []
        for entry in manifest.files {
            let file = try ModelFile(path: folder.appending(path: entry.name).path)
            guard file.size == entry.size else { throw .changed(path: file.path) }
            files.append(file)
        }
        self.manifest = manifest
        self.files = files
    }

    /// The answer to a worker's fetch.
    /// - Throws: `noSuchBytes` for a request outside the files.
    public func chunk(file: Int, offset: Int, length: Int) throws(ModelFileError) -> CoordinatorMessage {
        guard files.indices.contains(file), (1...WireLimits.chunkBytes).contains(length), offset >= 0,
            length <= files[file].size, offset <= files[file].size - length
        else { throw .noSuchBytes(file: file, offset: offset, length: length) }
        let bytes = try Frame(byteCount: length) { bytes throws(ModelFileError) in
            try files[file].read(bytes, at: offset)
        }
        return .chunk(manifest.digest, file: file, offset: offset, bytes)
    }
}
