import Coordinator
import Foundation
import Testing

/// A new job and the folder that it is given.
@Suite("Job folder")
final class JobFolderTests {
    private let scratch = FileManager.default.temporaryDirectory.appending(path: "tilefarm-test-\(UUID().uuidString)")
    private var folder: String { scratch.appending(path: "job").path }
    private var input: String { scratch.appending(path: "in.png").path }

    init() throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data("a picture".utf8).write(to: URL(filePath: input))
    }

    deinit { try? FileManager.default.removeItem(at: scratch) }

    /// Puts files into the folder: `lock`, `input/a.png`.
    private func put(_ names: [String]) throws {
        for name in names {
            let url = URL(filePath: folder).appending(path: name)
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data("mine: \(name)".utf8).write(to: url)
        }
    }

    private func names() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: folder).sorted() }

    @Test(
        "somebody's own files are left alone, whatever they are called",
        arguments: [
            ["input.png"], ["input/a.png", "input/b.png"], ["canvas.png"], ["canvas.0"], ["features.csv"],
            ["sum", "pixels"], ["prediction.1", "checkpoint.json"],
            ["lock", "canvas.png"], ["lock", "canvas."], ["lock", "features.csv"], ["lock", "input/a.png"],
            ["lock", "canvas.0", "mine.png"], ["plane-sample.0"], ["lock", "plane-sample.png"], ["lock", "plane-.0"],
            ["lock", "plane-sample.10"], ["lock", "plane-sample.0", "mine.png"],
        ])
    func strangers(files: [String]) throws {
        try put(files)
        let before = try names()
        #expect(throws: JobFolderError.notEmpty(path: folder)) { try JobFolder.create(folder, input: input) }
        #expect(try names() == before)
        for file in files {
            #expect(try Data(contentsOf: URL(filePath: folder).appending(path: file)) == Data("mine: \(file)".utf8))
        }
    }

    @Test(
        "what a start that did not get further has left, its lock beside it, makes room for a new one",
        arguments: [
            [], ["lock"], ["lock", "input.png"],
            [
                "lock", "input.png", "input", "plane-sample.0", "plane-sample.2", "plane-prediction.1",
                "plane-features.encode.0", "plane-sum.0", "plane-pixels.0", "checkpoint.json",
            ],
        ])
    func leftovers(files: [String]) throws {
        try put(files)
        _ = try JobFolder.create(folder, input: input)
        #expect(try names() == ["input.png", "lock"])
        #expect(try Data(contentsOf: URL(filePath: folder).appending(path: "input.png")) == Data("a picture".utf8))
    }

    @Test("a name that the folder has for itself is claimed, by whatever way it is reached")
    func claims() throws {
        try put(["input.png"])
        let files = FileManager.default, link = scratch.appending(path: "link").path,
            alias = scratch.appending(path: "alias.png").path
        try files.createSymbolicLink(atPath: link, withDestinationPath: folder)
        try files.createSymbolicLink(atPath: alias, withDestinationPath: folder + "/input.png")
        for path in [
            folder + "/input.png", link + "/input.png", link + "/plane-sample.2", folder + "/../job/lock", alias,
        ] {
            #expect(JobFolder.claims(path, in: folder) && JobFolder.claims(path, in: link), "\(path)")
        }
        for path in [input, folder + "/out.png", link + "/canvas.png", folder + "/sub/input.png"] {
            #expect(!JobFolder.claims(path, in: folder) && !JobFolder.claims(path, in: link), "\(path)")
        }
    }
}
