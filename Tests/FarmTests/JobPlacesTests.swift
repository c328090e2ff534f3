import Foundation
import Testing

/// Where the files of a job lie, and whose they are.
@Suite("Places of a job", .serialized)
struct JobPlacesTests {
    @Test(
        """
        an input or a folder of pictures that lies where a job would be kept is left alone, and the job refused in one \
        line
        """
    )
    func ownFiles() throws {
        let scratch = try Scratch()
        let folder = scratch.path("job"), picture = folder + "/input.png", inside = folder + "/input"
        try FileManager.default.createDirectory(atPath: inside, withIntermediateDirectories: true)
        let input = try scratch.picture("in.png", width: 16, height: 16), bytes = try scratch.bytes(input)
        for path in [picture, inside + "/first.png"] { try bytes.write(to: URL(filePath: path)) }
        for (input, reason) in [
            (picture, "the job folder has a file of this name for itself"), (input, "holds other files"),
        ] {
            let job = try RunningProgram(
                "tilefarm", ["upscale", input, "-o", scratch.path("out.png"), "--job", folder])
            #expect(job.waitForExit() == 1 && job.standardError.contains(reason), "\(job.standardError)")
            #expect(job.standardError.split(separator: "\n").count == 1, "\(job.standardError)")
            #expect(
                try FileManager.default.subpathsOfDirectory(atPath: folder).sorted()
                    == ["input", "input.png", "input/first.png"].sorted())
            for path in [picture, inside + "/first.png"] { #expect(try scratch.bytes(path) == bytes) }
        }
    }

    @Test("a job that is refused because of this machine is no job to resume")
    func refused() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 16, height: 16), folder = scratch.path("job")
        // A coordinator without the workers' program beside it.
        let lonely = Process(), errors = Pipe()
        lonely.executableURL = scratch.url.appending(path: "tilefarm")
        try FileManager.default.copyItem(atPath: Program.url("tilefarm").path, toPath: scratch.path("tilefarm"))
        let model = try PipelineCase("img2img").model.path
        lonely.arguments = [
            "upscale", input, "-o", scratch.path("out.png"), "--job", folder, "--model", model, "--scale", "8",
        ]
        lonely.standardError = errors
        try lonely.run()
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        lonely.waitUntilExit()
        #expect(lonely.terminationStatus == 1 && text.contains("the worker program is not there"), "\(text)")
        #expect(!FileManager.default.fileExists(atPath: folder + "/job.json"))
        let job = try RunningProgram(
            "tilefarm",
            ["upscale", input, "-o", scratch.path("out.png"), "--job", folder] + RenderingTests.tiling(steps: 1))
        #expect(job.waitForExit() == 0, "what the refusal left is no hindrance: \(job.standardError)")
    }

    @Test("a job that is resumed from another folder looks for the keys in that one")
    func keys() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 60, height: 60)
        let here = scratch.url.appending(path: "here"), there = scratch.url.appending(path: "there")
        for folder in [here, there] {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        }
        func run(_ arguments: [String], in folder: URL) throws -> RunningProgram {
            try RunningProgram("tilefarm", arguments, directory: folder)
        }
        let endpoint = "tcp://127.0.0.1:\(try freePort())"
        let options = RenderingTests.tiling(steps: 2)
        // Nobody comes: it waits until it is told to stop.
        let first = try run(
            ["upscale", input, "-o", "out.png", "--job", "job", "--bind", endpoint] + options, in: here)
        try #require(first.waitForError { $0.contains("waiting for workers") }, "\(first.standardError)")
        first.signal(SIGINT)
        #expect(first.waitForExit(seconds: 30) == 130, "\(first.standardError)")

        for arguments in [["keygen", "farm.keys"], ["keygen", "worker.keys", "--for", "farm.keys"]] {
            let keygen = try run(arguments, in: there)
            try #require(keygen.waitForExit(seconds: 30) == 0, "\(keygen.standardError)")
        }
        let second = try run(["resume", "../here/job", "--bind", endpoint, "--keys", "farm.keys"], in: there)
        let worker = try RunningProgram(
            "tilefarm-worker",
            [
                "--connect", endpoint, "--cache", scratch.path("cache"), "--keys",
                there.appending(path: "worker.keys").path,
            ])
        #expect(
            second.waitForExit() == 0 && second.standardError.contains("worker joined worker=worker "),
            "\(second.standardError)")
        #expect(
            try scratch.bytes(here.appending(path: "out.png").path)
                == RenderingTests.render(input, in: scratch, options))
        worker.signal(SIGTERM)
        worker.waitForExit(seconds: 20)
    }

    @Test("an output that is a link is written through, to a file that is there or not yet, and the link stays")
    func linkedOutput() throws {
        let scratch = try Scratch(), files = FileManager.default
        let input = try scratch.picture("in.png", width: 20, height: 20), options = RenderingTests.tiling(steps: 1)
        let expected = try RenderingTests.render(input, in: scratch, options)
        try files.createDirectory(atPath: scratch.path("there"), withIntermediateDirectories: true)
        try files.createSymbolicLink(atPath: scratch.path("link.png"), withDestinationPath: "there/out.png")
        for content in [nil, Data("before".utf8)] {
            try? files.removeItem(atPath: scratch.path("there/out.png"))
            try content?.write(to: scratch.url.appending(path: "there/out.png"))
            let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", scratch.path("link.png")] + options)
            #expect(farm.waitForExit() == 0, "\(farm.standardError)")
            #expect(try files.destinationOfSymbolicLink(atPath: scratch.path("link.png")) == "there/out.png")
            #expect(try scratch.bytes(scratch.path("there/out.png")) == expected)
            #expect(try files.contentsOfDirectory(atPath: scratch.path("there")) == ["out.png"])
        }
    }

    @Test("an output with a name of 250 bytes is written")
    func longName() throws {
        let scratch = try Scratch(), name = String(repeating: "n", count: 246) + ".png"
        let input = try scratch.picture("in.png", width: 20, height: 20), options = RenderingTests.tiling(steps: 1)
        let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", scratch.path(name)] + options)
        #expect(farm.waitForExit() == 0, "\(farm.standardError)")
        #expect(try scratch.bytes(scratch.path(name)) == RenderingTests.render(input, in: scratch, options))
    }

    @Test("the line that says how to go on can be pasted, whatever the folder is called")
    func pasted() throws {
        let scratch = try Scratch(), folder = scratch.path("it's a $job")
        let input = try scratch.picture("in.png", width: 60, height: 60), options = RenderingTests.tiling(steps: 2)
        let upscale = ["upscale", input, "-o", scratch.path("out.png"), "--job", folder] + options
        // Nobody comes: it waits until it is told to stop.
        let first = try RunningProgram("tilefarm", upscale + ["--bind", "tcp://127.0.0.1:*"])
        try #require(first.waitForError { $0.contains("waiting for workers") }, "\(first.standardError)")
        first.signal(SIGINT)
        #expect(first.waitForExit(seconds: 30) == 130, "\(first.standardError)")
        let second = try RunningProgram("tilefarm", upscale)
        #expect(second.waitForExit(seconds: 30) == 1, "\(second.standardError)")

        let lines = try [first, second].map {
            String(try #require($0.standardError.firstMatch(of: /`(tilefarm resume .*)` goes on/)).output.1)
        }
        #expect(lines[0] == lines[1])
        let shell = Process(), errors = Pipe()
        shell.executableURL = URL(filePath: "/bin/sh")
        shell.arguments = ["-c", lines[0] + " --workers 1"]
        shell.environment = ProcessInfo.processInfo.environment.merging(["PATH": Program.folder.path]) { $1 }
        shell.standardError = errors
        shell.standardOutput = FileHandle.nullDevice
        try shell.run()
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        shell.waitUntilExit()
        #expect(shell.terminationStatus == 0, "\(text)")
        #expect(try scratch.bytes(scratch.path("out.png")) == RenderingTests.render(input, in: scratch, options))
    }
}
