import Foundation

/// The folder of one network in the layouts of diffusers and transformers: `config.json`, and the weights in one
/// safetensors file or in several with an index. Where the plain weights are missing, their float16 or bfloat16 variant
/// is taken.
public struct NetworkFolder: Sendable {
    public let url: URL
    /// `_class_name` of diffusers, or the first of transformers' `architectures`; empty where the file says neither.
    public let className: String
    /// The safetensors files, each once.
    public let weights: [URL]
    /// Bytes of the weights.
    public let weightsSize: Int
    /// For shards, which of `weights` holds a tensor; nil for a single file.
    let shards: [String: Int]?

    public var configuration: URL { url.appending(path: "config.json") }

    /// The number of parameters, and the type that most of their bytes have, from the headers of the weights.
    /// - Throws: `SafetensorsError`.
    public func parameters() throws -> (count: Int, type: ElementType) {
        let weights = try ModelWeights(self)
        return (weights.parameters, weights.mainType)
    }

    /// Finds out what the folder holds; the weights themselves are not read.
    /// - Throws: `ModelFolderError`.
    public init(url: URL) throws {
        var reader = try FolderReader(root: url)
        try self.init(&reader, "")
    }

    /// - Parameter prefix: the network's folder in the reader's, with a slash at its end; or nothing.
    init(_ reader: inout FolderReader, _ prefix: String) throws {
        guard try reader.isFile(prefix + "config.json") else {
            throw ModelFolderError.missingConfiguration(folder: reader.path(prefix))
        }
        let config = try reader.object(prefix + "config.json")
        className = config["_class_name"]?.string ?? config["architectures"]?.array?.first?.string ?? ""

        // diffusers' name, and that of transformers.
        let bases = ["diffusion_pytorch_model", "model"].map { prefix + $0 }
        let variants = ["", "fp16", "bf16"]
        var found: (names: [String], shards: [String: Int]?)?
        search: for base in bases {
            for variant in variants {
                let dotted = variant.isEmpty ? "" : "." + variant
                let file = base + dotted + ".safetensors"
                if try reader.isFile(file) {
                    found = ([file], nil)
                    break search
                }
                // Both of diffusers' ways to name the index of a variant.
                for index in Set([file + ".index.json", base + ".safetensors.index" + dotted + ".json"]).sorted()
                where try reader.isFile(index) {
                    found = try Self.shards(index, prefix, &reader)
                    break search
                }
            }
        }
        guard let found else {
            for name in bases.map({ $0 + ".bin" }) + [prefix + "pytorch_model.bin"] {
                for name in [name, name + ".index.json", name.replacing(".bin", with: ".fp16.bin")]
                where try reader.isFile(name) {
                    throw ModelFolderError.pickledWeights(file: reader.path(name))
                }
            }
            throw ModelFolderError.missingWeights(
                file: reader.path(
                    bases[config["_class_name"] == nil && config["architectures"] != nil ? 1 : 0] + ".safetensors"))
        }
        for name in found.names { try reader.add(name) }
        let root = reader
        weights = found.names.map { root.url($0) }
        weightsSize = reader.files.reduce(0) { $0 + (found.names.contains($1.name) ? $1.size : 0) }
        shards = found.shards
        url = reader.url(prefix)
    }

    /// The files that an index names, in the order of their names.
    private static func shards(_ index: String, _ prefix: String, _ reader: inout FolderReader) throws -> (
        names: [String], shards: [String: Int]
    ) {
        let path = reader.path(index)
        guard let map = try reader.object(index, limit: Safetensors.headerLimit)["weight_map"]?.object, !map.isEmpty
        else {
            throw ModelFolderError.malformed(file: path, reason: "it has no weight_map")
        }
        var names: Set<String> = []
        for (tensor, file) in map {
            // A file beside the index and nowhere else.
            guard let name = file.string, name.hasSuffix(".safetensors"), !name.contains("/"), !name.contains("\0")
            else {
                throw ModelFolderError.malformed(
                    file: path, reason: "weight_map: \(tensor): not the name of a safetensors file beside the index")
            }
            names.insert(name)
        }
        let sorted = names.sorted()
        for name in sorted where !(try reader.isFile(prefix + name)) {
            throw ModelFolderError.missingShard(file: reader.path(prefix + name), index: path)
        }
        let numbers = Dictionary(uniqueKeysWithValues: sorted.enumerated().map { ($1, $0) })
        return (sorted.map { prefix + $0 }, map.compactMapValues { $0.string.flatMap { numbers[$0] } })
    }
}

/// The weights of a network, from one safetensors file or several.
package final class ModelWeights: Sendable {
    private let files: [Safetensors]
    /// Which of `files` holds a tensor.
    private let places: [String: Int]
    /// Whether tensors are looked up in the headers and none is read. What is asked for is checked as always, and what
    /// is given is empty.
    package let headersOnly: Bool

    /// Opens the files and checks their headers.
    /// - Throws: `SafetensorsError`; among others if a shard lacks a tensor that the index says it holds.
    package init(_ folder: NetworkFolder, headersOnly: Bool = false) throws {
        let files = try folder.weights.map { try Safetensors(url: $0) }
        if let shards = folder.shards {
            for (tensor, shard) in shards.sorted(by: { $0.key < $1.key }) { _ = try files[shard].shape(of: tensor) }
            places = shards
        } else {
            places = Dictionary(uniqueKeysWithValues: files.flatMap(\.names).map { ($0, 0) })
        }
        self.files = files
        self.headersOnly = headersOnly
    }

    package func contains(_ name: String) -> Bool { places[name] != nil }

    /// The type that most bytes of the weights have.
    package var mainType: ElementType {
        sizes.max { ($0.value, $1.key.rawValue) < ($1.value, $0.key.rawValue) }?.key ?? .float32
    }

    package var parameters: Int { sizes.reduce(0) { $0 + $1.value / $1.key.size } }

    private var sizes: [ElementType: Int] { files.reduce(into: [:]) { $0.merge($1.sizes, uniquingKeysWith: +) } }

    /// - Throws: `SafetensorsError` if there is no such tensor.
    package func shape(of name: String) throws -> [Int] { try file(of: name).shape(of: name) }

    /// The values of a tensor, row-major, as single precision.
    /// - Throws: `SafetensorsError` if there is no such tensor, or it is of another shape or not of F32, F16 or BF16.
    package func tensor(_ name: String, shape: [Int]) throws -> [Float] {
        guard headersOnly else { return try file(of: name).tensor(name, shape: shape) }
        try check(name, shape: shape)
        return []
    }

    /// Whether there is such a tensor, by the header.
    /// - Throws: as `tensor`.
    func check(_ name: String, shape: [Int]) throws { try file(of: name).check(name, shape: shape) }

    /// One row of a tensor; see `Safetensors.row`.
    func row(_ index: Int, of name: String, shape: [Int]) throws -> [Float] {
        try file(of: name).row(index, of: name, shape: shape)
    }

    private func file(of name: String) -> Safetensors {
        // A name that is nowhere is missed in the first file.
        files[places[name] ?? 0]
    }
}
