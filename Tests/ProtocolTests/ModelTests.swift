import Engine
import Foundation
import Protocol
import Testing

/// A folder that goes away with its test.
final class TemporaryFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appending(path: "tilefarm-test-\(UInt64.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit {
        try? FileManager.default.removeItem(at: url)
    }

    func write(_ bytes: [UInt8], to name: String) throws {
        let file = url.appending(path: name)
        try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(bytes).write(to: file)
    }

    var entries: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? []).sorted() }
}

@Suite struct ModelTests {
    let model: TemporaryFolder
    let cache: TemporaryFolder
    let manifest: ModelManifest
    let server: ModelServer
    let store: ModelStore

    init() throws {
        model = try TemporaryFolder()
        cache = try TemporaryFolder()
        var random = SplitMix64(state: 3)
        try model.write(Array(#"{"_class_name": "UNet2DModel"}"#.utf8), to: "config.json")
        try model.write(
            (0..<2_500_000).map { _ in UInt8.random(in: 0...255, using: &random) }, to: "unet/model.safetensors")
        try model.write([], to: "merges.txt")
        manifest = try ModelManifest.of(
            folder: model.url, files: ["unet/model.safetensors", "config.json", "merges.txt"])
        server = try ModelServer(folder: model.url, manifest: manifest)
        store = ModelStore(folder: cache.url.appending(path: "models"))
    }

    /// Serves a download until it is complete; `change` may spoil what the server says.
    private func serve(_ download: ModelDownload, change: (Int, Int, [UInt8]) -> [UInt8] = { $2 }) throws {
        var queue = download.requests()
        while !queue.isEmpty {
            guard case .fetch(_, let file, let offset, let length) = queue.removeFirst(),
                case .chunk(_, _, _, let bytes) = try server.chunk(file: file, offset: offset, length: length)
            else {
                Issue.record("not a fetch or not a chunk")
                return
            }
            try download.receive(
                file: file, offset: offset, Frame(copying: change(file, offset, bytes.withBytes { [UInt8]($0) })))
            queue += download.requests()
        }
    }

    @Test("the digest is that of the listing that the documentation describes")
    func digest() throws {
        // printf 'config.json\t2\t44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\n' | sha256sum
        let folder = try TemporaryFolder()
        try folder.write(Array("{}".utf8), to: "config.json")
        let manifest = try ModelManifest.of(folder: folder.url, files: ["config.json"])
        #expect(manifest.files[0].sha256.hex == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
        #expect(manifest.digest.hex == "200e58d08947f1aa7e0556817f1c5fcdf7c44ac142e0c49a5b0ed6c1dff854bc")
    }

    @Test("the digest does not depend on the order of the list")
    func order() throws {
        let other = try ModelManifest.of(
            folder: model.url, files: ["merges.txt", "config.json", "unet/model.safetensors"])
        #expect(
            other == manifest && manifest.files.map(\.name) == ["config.json", "merges.txt", "unet/model.safetensors"])
    }

    @Test(
        "names that leave the folder, hide, or are not data are refused",
        arguments: [
            "", ".", "..", "/etc/passwd.json", "../config.json", "a/../config.json", "a/b/config.json", ".hidden.json",
            "a//config.json",
            "a/.b.json", "config.json/", "model.bin", "model.pkl", "run.sh", "con fig.json", "config\n.json",
            "конфиг.json", "a\\b.json", "config.json\0",
            "/config.json", String(repeating: "a", count: 130) + ".json",
        ])
    func badNames(name: String) {
        #expect(throws: ManifestError.badName(name)) {
            try ModelManifest(files: [.init(name: name, size: 1, sha256: Samples.digest(0))])
        }
    }

    @Test("duplicates, a file that is a folder too, and absurd sizes are refused")
    func badLists() throws {
        func manifest(_ files: [(String, Int)]) throws -> ModelManifest {
            try ModelManifest(files: files.map { .init(name: $0.0, size: $0.1, sha256: Samples.digest(0)) })
        }
        #expect(throws: ManifestError.noFiles) { try manifest([]) }
        #expect(throws: ManifestError.duplicate("a.json")) { try manifest([("a.json", 1), ("a.json", 1)]) }
        #expect(throws: ManifestError.duplicate("a.json")) { try manifest([("a.json", 1), ("a.json/b.json", 1)]) }
        #expect(throws: ManifestError.tooLarge("b.json")) { try manifest([("a.json", 1 << 38), ("b.json", 1)]) }
        #expect(throws: ManifestError.tooLarge("b.json")) { try manifest([("a.json", 1), ("b.json", .max)]) }
        #expect(throws: ManifestError.tooLarge("a.json")) { try manifest([("a.json", -1)]) }
        #expect(throws: ManifestError.tooManyFiles(257)) { try manifest((0..<257).map { ("\($0).json", 1) }) }
    }

    @Test("a model arrives piece by piece, is checked, and found again")
    func download() throws {
        #expect(try store.find(manifest) == nil)
        let download = try store.download(manifest)
        for request in download.requests() {
            guard case .fetch(_, _, _, let length) = request else { return }
            #expect(length <= WireLimits.chunkBytes)
        }
        let fresh = try store.download(manifest)
        try serve(fresh)
        #expect(fresh.isComplete && fresh.receivedBytes == manifest.totalBytes)
        let folder = try fresh.install()
        #expect(folder.lastPathComponent == manifest.digest.hex)
        #expect(try store.find(manifest)?.path == folder.path)
        #expect(ModelStore.matches(manifest, folder: folder))
    }

    @Test("a download given up leaves nothing behind")
    func givenUp() throws {
        do {
            let download = try store.download(manifest)
            _ = download.requests()
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: store.folder.path) == [])
    }

    @Test("one wrong bit is found when its file is whole")
    func spoiled() throws {
        let download = try store.download(manifest)
        #expect(throws: ModelFileError.damaged(file: "unet/model.safetensors")) {
            try serve(download) { file, offset, bytes in
                var bytes = bytes
                if file == 2 && offset == 1 << 20 { bytes[12345] ^= 4 }
                return bytes
            }
        }
        #expect(!download.isComplete)
    }

    @Test("pieces of another size, place or file are not taken")
    func unexpected() throws {
        let download = try store.download(manifest)
        _ = download.requests()
        let size = manifest.files[0].size
        for (file, offset, count) in [
            (0, 0, size - 1), (0, 0, size + 1), (0, 1, size - 1), (2, 0, 1 << 20), (3, 0, 1), (-1, 0, 1), (0, .max, 1),
        ] {
            #expect(throws: ModelFileError.unexpectedPiece(file: file, offset: offset, length: count)) {
                try download.receive(file: file, offset: offset, Frame(copying: [UInt8](repeating: 0, count: count)))
            }
        }
        try serve(store.download(manifest))
    }

    @Test("a damaged entry of the cache is noticed and removed", arguments: ["flip", "truncate", "delete"])
    func damagedEntry(kind: String) throws {
        let download = try store.download(manifest)
        try serve(download)
        let file = try download.install().appending(path: "unet/model.safetensors")
        var bytes = try Data(contentsOf: file)
        switch kind {
        case "flip": bytes[77] ^= 1
        case "truncate": bytes.removeLast()
        default: break
        }
        if kind == "delete" { try FileManager.default.removeItem(at: file) } else { try bytes.write(to: file) }
        #expect(try store.find(manifest) == nil)
        #expect(try FileManager.default.contentsOfDirectory(atPath: store.folder.path) == [])
        let again = try store.download(manifest)
        try serve(again)
        #expect(ModelStore.matches(manifest, folder: try again.install()))
    }

    @Test("several workers may fetch the same model into the same cache at once")
    func together() throws {
        let downloads = try (0..<4).map { _ in try store.download(manifest) }
        for download in downloads { try serve(download) }
        let folders = Set(try downloads.map { try $0.install().path })
        #expect(folders == [store.folder.appending(path: manifest.digest.hex).path])
        #expect(ModelStore.matches(manifest, folder: store.folder.appending(path: manifest.digest.hex)))
    }

    @Test("the server reads only what the manifest lists, and only inside it")
    func servedBytes() throws {
        for (file, offset, length) in [
            (3, 0, 1), (-1, 0, 1), (0, 0, manifest.files[0].size + 1), (0, -1, 1), (2, 2_500_000, 1), (2, .max, 1),
            (2, 0, 0),
            (2, 0, (1 << 20) + 1), (1, 0, 1), (2, 2_499_999, 2),
        ] {
            #expect(throws: ModelFileError.noSuchBytes(file: file, offset: offset, length: length)) {
                try server.chunk(file: file, offset: offset, length: length)
            }
        }
        #expect(
            try server.chunk(file: 0, offset: 2, length: 3)
                == .chunk(manifest.digest, file: 0, offset: 2, Frame(copying: Array("_cl".utf8))))
    }

    @Test("a missing file, a folder in its place and a changed model are named")
    func unreadable() throws {
        #expect { try ModelManifest.of(folder: model.url, files: ["nothing.json"]) } throws: {
            "\($0)".contains("nothing.json") && "\($0)".contains("No such file")
        }
        #expect { try ModelManifest.of(folder: model.url, files: ["unet"]) } throws: {
            "\($0)".contains("not a plain file")
        }
        try model.write([1], to: "config.json")
        #expect(throws: ModelFileError.self) { try ModelServer(folder: model.url, manifest: manifest) }
    }

    @Test("a cache that cannot be written is named with the remedy")
    func unwritable() throws {
        try cache.write([], to: "file")
        let store = ModelStore(folder: cache.url.appending(path: "file/models"))
        #expect { try store.download(manifest) } throws: {
            "\($0)".contains("another folder") && "\($0)".contains("cannot be written")
        }
    }

    @Test("a model larger than the disk is refused before it is fetched")
    func tooLargeForDisk() throws {
        let manifest = try ModelManifest(files: [
            .init(name: "a.safetensors", size: WireLimits.modelBytes, sha256: Samples.digest(0))
        ])
        #expect { try store.download(manifest) } throws: { "\($0)".contains("MiB free") }
    }
}
