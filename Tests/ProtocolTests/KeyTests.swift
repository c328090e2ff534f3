import Engine
import Foundation
import Protocol
import Testing

/// Files of keys, and who comes in with them.
@Suite(.serialized) struct KeyTests {
    final class Folder {
        let url = FileManager.default.temporaryDirectory.appending(
            path: "tilefarm-keys-\(UInt64.random(in: 0 ... .max))")
        init() throws { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) }
        deinit { try? FileManager.default.removeItem(at: url) }
        func path(_ name: String) -> String { url.appending(path: name).path }
        func text(_ name: String) throws -> String {
            try String(contentsOf: url.appending(path: name), encoding: .utf8)
        }
        func write(_ name: String, _ text: String) throws {
            try text.write(to: url.appending(path: name), atomically: false, encoding: .utf8)
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path(name))
        }
    }

    let folder: Folder

    init() throws {
        folder = try Folder()
        try CoordinatorKeys.make(path: folder.path("farm"))
        try WorkerKeys.make(path: folder.path("n1"), name: "n1", for: folder.path("farm"))
    }

    @Test("what is made is read again: one pair each, the worker on the list, for its owner alone")
    func made() throws {
        try WorkerKeys.make(path: folder.path("n2"), name: "n2", for: folder.path("farm"))
        let farm = try CoordinatorKeys(path: folder.path("farm"))
        let (first, second) = (try WorkerKeys(path: folder.path("n1")), try WorkerKeys(path: folder.path("n2")))
        #expect(farm.workers == [first.pair.publicKey: "n1", second.pair.publicKey: "n2"])
        #expect(
            first.coordinator == farm.pair.publicKey && first.name == "n1"
                && first.pair.publicKey != second.pair.publicKey)
        for name in ["farm", "n1"] {
            let mode = try FileManager.default.attributesOfItem(atPath: folder.path(name))[.posixPermissions] as? Int
            #expect(mode == 0o600)
        }
        let secret = try #require(
            try folder.text("n1").split(separator: "\n").first { $0.hasPrefix("secret ") }?.split(separator: " ").last)
        let farmText = try folder.text("farm")
        #expect(!"\(first.pair)".contains(secret) && !farmText.contains(secret))
    }

    @Test("nothing is overwritten, no name is given twice, and what fails leaves nothing behind")
    func refusals() throws {
        let before = try folder.text("farm")
        #expect(throws: KeyFileError.exists(path: folder.path("farm"))) {
            try CoordinatorKeys.make(path: folder.path("farm"))
        }
        #expect(throws: KeyFileError.exists(path: folder.path("n1"))) {
            try WorkerKeys.make(path: folder.path("n1"), name: "other", for: folder.path("farm"))
        }
        #expect(throws: KeyFileError.nameTaken(path: folder.path("farm"), name: "n1")) {
            try WorkerKeys.make(path: folder.path("n3"), name: "n1", for: folder.path("farm"))
        }
        for name in ["", "a b", "a\nallow", String(repeating: "x", count: 129)] {
            #expect(throws: KeyFileError.badName(name)) {
                try WorkerKeys.make(path: folder.path("n3"), name: name, for: folder.path("farm"))
            }
        }
        #expect(throws: KeyFileError.otherRole(path: folder.path("n1"), is: "worker", needed: "coordinator")) {
            try WorkerKeys.make(path: folder.path("n3"), name: "n3", for: folder.path("n1"))
        }
        #expect(throws: KeyFileError.otherRole(path: folder.path("farm"), is: "coordinator", needed: "worker")) {
            try WorkerKeys(path: folder.path("farm"))
        }
        #expect(try folder.text("farm") == before)
        #expect(Set(try FileManager.default.contentsOfDirectory(atPath: folder.url.path)) == ["farm", "n1"])
    }

    @Test("a file that others may read is refused", arguments: [0o644, 0o640, 0o602, 0o610])
    func modes(mode: Int) throws {
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: folder.path("farm"))
        #expect(throws: KeyFileError.openToOthers(path: folder.path("farm"))) {
            try CoordinatorKeys(path: folder.path("farm"))
        }
    }

    @Test(
        "a line that is wrong is named by its number, without its words",
        arguments: [
            "allow n1", "allow n9 tooshort", "allow n1 KEY", "allow n9 LISTED", "role coordinator", "public KEY",
            "secret KEY", "nonsense SECRETWORD", "allow a b c",
        ])
    func badLines(line: String) throws {
        let farm = try folder.text("farm")
        let key = try KeyPair.make().publicKey.description
        let listed = try WorkerKeys(path: folder.path("n1")).pair.publicKey.description
        try folder.write("bad", farm + line.replacing("KEY", with: key).replacing("LISTED", with: listed) + "\n")
        let number = farm.split(separator: "\n", omittingEmptySubsequences: false).count
        #expect { try CoordinatorKeys(path: folder.path("bad")) } throws: { error in
            guard case KeyFileError.badLine(_, number, _) = error else { return false }
            return !"\(error)".contains("SECRETWORD") && !"\(error)".contains(key) && !"\(error)".contains("\n")
        }
    }

    @Test("a file that lacks something, and a pair that is none, are told")
    func incomplete() throws {
        let lines = try folder.text("farm").split(separator: "\n").map(String.init)
        for word in ["role", "public", "secret"] {
            try folder.write("part", lines.filter { !$0.hasPrefix(word) }.joined(separator: "\n"))
            #expect { try CoordinatorKeys(path: folder.path("part")) } throws: { "\($0)".contains("'\(word)") }
        }
        let other = try KeyPair.make().publicKey
        try folder.write("mixed", lines.map { $0.hasPrefix("public") ? "public \(other)" : $0 }.joined(separator: "\n"))
        #expect(throws: KeyFileError.self) { try CoordinatorKeys(path: folder.path("mixed")) }
        #expect(throws: KeyFileError.self) { try CoordinatorKeys(path: folder.url.path) }
        #expect(throws: KeyFileError.self) { try CoordinatorKeys(path: folder.path("nowhere")) }
    }

    @Test("any bytes in a key file are read or refused, never worse")
    func anyBytes() throws {
        var random = SplitMix64(state: 5)
        let farm = Array(try folder.text("farm").utf8)
        for round in 0..<300 {
            var bytes = farm
            for _ in 0...round % 7 {
                bytes[Int.random(in: bytes.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            if round % 3 == 0 { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
            try Data(bytes).write(to: folder.url.appending(path: "any"))
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: folder.path("any"))
            do { _ = try CoordinatorKeys(path: folder.path("any")) } catch { #expect(!"\(error)".contains("\n")) }
        }
    }
}
