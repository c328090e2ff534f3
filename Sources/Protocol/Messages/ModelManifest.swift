/// The files of a model folder, by content.
public struct ModelManifest: Hashable, Sendable {
    public struct File: Hashable, Sendable {
        /// Relative to the model folder, at most one folder deep, `/` between.
        public let name: String
        /// Bytes.
        public let size: Int
        public let sha256: ContentDigest

        public init(name: String, size: Int, sha256: ContentDigest) {
            self.name = name
            self.size = size
            self.sha256 = sha256
        }
    }

    /// In the order of their names' UTF-8 bytes.
    public let files: [File]

    /// SHA-256 over a line for each file in order: name, tab, size in decimal, tab, SHA-256 in hexadecimal, line feed.
    public let digest: ModelDigest

    /// Bytes of all files together.
    public var totalBytes: Int { files.reduce(0) { $0 + $1.size } }

    /// Checks names and sizes; a manifest that exists is safe to write to a cache.
    public init(files: [File]) throws(ManifestError) {
        let files = files.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
        guard !files.isEmpty else { throw .noFiles }
        guard files.count <= WireLimits.modelFiles else { throw .tooManyFiles(files.count) }
        var total = 0
        var names: Set<String> = []
        var folders: Set<String> = []
        for file in files {
            guard Self.isAllowed(name: file.name) else { throw .badName(file.name) }
            guard names.insert(file.name).inserted else { throw .duplicate(file.name) }
            let components = file.name.split(separator: "/")
            if components.count == 2 { folders.insert(String(components[0])) }
            guard file.size >= 0, file.size <= WireLimits.modelBytes - total else { throw .tooLarge(file.name) }
            total += file.size
        }
        if let both = folders.first(where: names.contains) { throw .duplicate(both) }

        let lines = files.map { "\($0.name)\t\($0.size)\t\($0.sha256.hex)\n" }.joined()
        self.files = files
        digest = ContentDigest(of: Array(lines.utf8))
    }

    /// Plain names only, such as `config.json` or `unet/diffusion_pytorch_model.safetensors`: letters, digits, `.`,
    /// `_`, `-`, not beginning with a dot, at most one folder, and an extension that holds data and nothing that could
    /// be executed.
    static func isAllowed(name: String) -> Bool {
        guard (1...WireLimits.fileNameBytes).contains(name.utf8.count) else { return false }
        let components = name.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        guard components.count <= 2 else { return false }
        for component in components {
            guard let first = component.first, first != UInt8(ascii: ".") else { return false }
            guard
                component.allSatisfy({ byte in
                    switch byte {
                    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
                        true
                    default: false
                    }
                })
            else { return false }
        }
        return [".json", ".safetensors", ".txt"].contains { name.hasSuffix($0) }
    }
}

/// Why a list of files is not a model's manifest.
public enum ManifestError: Error, Hashable, CustomStringConvertible {
    case noFiles
    case tooManyFiles(Int)
    case badName(String)
    case duplicate(String)
    case tooLarge(String)

    public var description: String {
        switch self {
        case .noFiles:
            "the model has no files"
        case .tooManyFiles(let count):
            "the model has \(count) files, the limit is \(WireLimits.modelFiles)"
        case .badName(let name):
            "model file name \(name.debugDescription) is not allowed: "
                + "plain names ending in .json, .safetensors or .txt, at most one folder deep"
        case .duplicate(let name):
            "the model lists \(name.debugDescription) twice"
        case .tooLarge(let name):
            "the model is too large at file \(name.debugDescription): "
                + "the limit is \(WireLimits.modelBytes >> 30) GiB in all"
        }
    }
}
