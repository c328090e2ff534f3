import Engine
import Foundation
import Testing

/// Jobs that are broken off and gone on with: real processes, real signals, real disks.
@Suite("Resuming", .serialized)
struct ResumeTests {
    static let soaks = ProcessInfo.processInfo.environment["TILEFARM_SOAK"] == "1"

    /// Starts a job in a folder of its own.
    static func start(_ input: String, _ output: String, job: String, _ options: [String]) throws -> RunningProgram {
        try RunningProgram("tilefarm", ["upscale", input, "-o", output, "--job", job, "--checkpoint-every", "0.2s"] + options)
    }

    @Test("a coordinator that is killed at random moments and resumed ends in the bytes of an unbroken run", arguments: [RenderingTests.Job.pixels, .img2img])
    func killed(job: RenderingTests.Job) throws {
        try Self.kill(job: job, times: 2)
    }

    @Test("the same, 20 times", .enabled(if: soaks), arguments: RenderingTests.Job.allCases)
    func killedSoak(job: RenderingTests.Job) throws {
        try Self.kill(job: job, times: 20)
    }

    static func kill(job: RenderingTests.Job, times: Int) throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: job.size.width, height: job.size.height)
        let options = try job.options()
        let begun = Date()
        let expected = try RenderingTests.render(input, in: scratch, options)
        let whole = Date().timeIntervalSince(begun)
        let (folder, output) = (scratch.path("job"), scratch.path("out.png"))
        var program = try start(input, output, job: folder, options)
        for _ in 0..<times {
            // Any moment will do, those before the first checkpoint and after the end too.
            program.waitForError(seconds: Double.random(in: 0.05...max(0.1, whole / 2))) { _ in false }
            program.signal(SIGKILL)
            program.waitForExit()
            program = try RunningProgram("tilefarm", ["resume", folder])
        }
        let code = program.waitForExit()
        // Killed before the folder said what the job is, or after it was through.
        if program.standardError.contains("there is no job here") {
            program = try start(input, output, job: folder, options)
            #expect(program.waitForExit() == 0, "\(program.standardError)")
        } else if !program.standardError.contains("this job is finished") {
            #expect(code == 0, "\(program.standardError)")
        }
        #expect(try scratch.bytes(output) == expected)
        let left = try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
        #expect(left == ["input.png", "job.json", "lock"])
    }

    @Test("a second coordinator on a job folder is refused, an interrupted job says how to go on, and goes on with other workers")
    func twice() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        // Long enough for everything below on machines with many cores.
        let options = RenderingTests.tiling(steps: 40)
        let expected = try RenderingTests.render(input, in: scratch, options)
        let (folder, output) = (scratch.path("job"), scratch.path("out.png"))
        let first = try Self.start(input, output, job: folder, options)
        try #require(first.waitForError { $0.contains("checkpoint job=") }, "\(first.standardError)")
        let second = try RunningProgram("tilefarm", ["resume", folder])
        #expect(second.waitForExit() == 1 && second.standardError.contains("another tilefarm is at work on this job"))
        let third = try Self.start(input, output, job: folder, [])
        #expect(third.waitForExit() == 1 && third.standardError.contains("another tilefarm is at work on this job"))
        first.signal(SIGINT)
        #expect(first.waitForExit() == 130 && first.standardError.contains("`tilefarm resume \(folder)` goes on"), "\(first.standardError)")
        #expect(!FileManager.default.fileExists(atPath: output))

        let endpoint = "tcp://127.0.0.1:\(try freePort())"
        let resumed = try RunningProgram("tilefarm", ["resume", folder, "--bind", endpoint])
        let worker = try RunningProgram("tilefarm-worker", ["--connect", endpoint, "--cache", scratch.path("cache")])
        #expect(resumed.waitForExit() == 0 && resumed.standardError.contains("job resumed"), "\(resumed.standardError)")
        #expect(try scratch.bytes(output) == expected)
        worker.signal(SIGTERM)
        worker.waitForExit(seconds: 20)
        let again = try RunningProgram("tilefarm", ["resume", folder])
        #expect(again.waitForExit() == 1 && again.standardError.contains("this job is finished"))
    }

    @Test("a job folder of another version, with a damaged or missing part, or with another input is refused in words")
    func damaged() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let folder = scratch.path("job")
        let job = try Self.start(input, scratch.path("out.png"), job: folder, RenderingTests.tiling(steps: 40))
        try #require(job.waitForError { $0.contains("checkpoint job=") })
        job.signal(SIGKILL)
        job.waitForExit()
        let files = FileManager.default
        /// What resume says about a copy of the folder that something was done to.
        func refusal(_ spoil: (String) throws -> Void) throws -> String {
            let copy = scratch.path("copy")
            try? files.removeItem(atPath: copy)
            try files.copyItem(atPath: folder, toPath: copy)
            try spoil(copy)
            let program = try RunningProgram("tilefarm", ["resume", copy])
            #expect(program.waitForExit() == 1)
            #expect(program.standardError.split(separator: "\n").count == 1, "one line: \(program.standardError)")
            return program.standardError
        }
        func flip(_ path: String, at offset: UInt64) throws {
            let handle = try FileHandle(forUpdating: URL(filePath: path))
            try handle.seek(toOffset: offset)
            let byte = try #require(try handle.read(upToCount: 1)?.first)
            try handle.seek(toOffset: offset)
            try handle.write(contentsOf: [byte ^ 1])
            try handle.close()
        }
        /// Another value, with the digest that belongs to it.
        func rewrite(_ path: String, _ old: String, _ new: String) throws {
            let line = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")[0].replacing(old, with: new) as Substring
            try Data("\(line)\n\(digest(String(line)))\n".utf8).write(to: URL(filePath: path))
        }
        func digest(_ text: String) throws -> String {
            let path = scratch.path("text")
            try Data(text.utf8).write(to: URL(filePath: path))
            let process = Process(), pipe = Pipe()
            process.executableURL = URL(filePath: "/usr/bin/sha256sum")
            process.arguments = [path]
            process.standardOutput = pipe
            try process.run()
            let data = pipe.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return String(decoding: data.prefix(64), as: UTF8.self)
        }
        let checkpoint = try String(contentsOfFile: folder + "/checkpoint.json", encoding: .utf8)
        let canvas = try #require(checkpoint.firstMatch(of: /canvas\.\d/)).output
        #expect(try refusal { try flip($0 + "/\(canvas)", at: 5000) }.contains("damaged (its digest is not what the checkpoint says)"))
        #expect(try refusal { try files.removeItem(atPath: $0 + "/\(canvas)") }.contains("\(canvas)"))
        #expect(try refusal { try flip($0 + "/checkpoint.json", at: 9) }.contains("checkpoint.json: is damaged"))
        #expect(try refusal { try flip($0 + "/job.json", at: 9) }.contains("job.json: is damaged"))
        #expect(try refusal { try Data().write(to: URL(filePath: $0 + "/job.json")) }.contains("job.json: is damaged"))
        #expect(try refusal { try files.removeItem(atPath: $0 + "/job.json") }.contains("there is no job here"))
        #expect(try refusal { try rewrite($0 + "/job.json", "\"format\":1", "\"format\":2") }.contains("another version of tilefarm (format 2"))
        #expect(try refusal { try rewrite($0 + "/job.json", "\"40\"", "\"41\"") }.contains("what this version of tilefarm makes of its options"))
        #expect(try refusal { try rewrite($0 + "/job.json", "upscale", "") ; try rewrite($0 + "/job.json", "--tile", "--tyle") }.contains("arguments are not understood"))
        #expect(try refusal { _ = try files.removeItem(atPath: $0 + "/input.png"); try files.copyItem(atPath: scratch.picture("other.png", width: 220, height: 180, grey: true), toPath: $0 + "/input.png") }
            .contains("its input.png is not what the job was started with"))
        #expect(try refusal { try rewrite($0 + "/checkpoint.json", "\"phase\":", "\"phase\":9") }.contains("its checkpoint is of another plan"))
        #expect(try refusal { try rewrite($0 + "/checkpoint.json", "\"canvas\":", "\"canvas\":7") }.contains("its checkpoint is of another plan"))
        // The folder that nothing was done to goes on.
        let program = try RunningProgram("tilefarm", ["resume", folder])
        #expect(program.waitForExit() == 0, "\(program.standardError)")
    }

    /// A file system of a few MiB.
    final class SmallDisk {
        /// Whether this process may make one.
        static let isPossible = (try? SmallDisk(kibibytes: 64)) != nil
        let path: String

        init(kibibytes: Int) throws {
            path = FileManager.default.temporaryDirectory.appending(path: "tilefarm-disk-\(UUID().uuidString)").path
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            guard mount("tmpfs", path, "tmpfs", 0, "size=\(kibibytes)k") == 0 else {
                rmdir(path)
                throw CocoaError(.fileWriteUnknown)
            }
        }

        deinit {
            umount2(path, Int32(MNT_DETACH))
            rmdir(path)
        }

        /// Takes what is left of the disk, but for so much.
        func fill(butFor kibibytes: Int = 0) throws {
            let filler = try #require(fopen(path + "/filler", "w"))
            let block = [UInt8](repeating: 0, count: 4096)
            while fwrite(block, 1, block.count, filler) == block.count, fflush(filler) == 0 {}
            let size = ftell(filler)
            fclose(filler)
            truncate(path + "/filler", max(0, size / 4096 * 4096 - kibibytes * 1024))
        }

        func empty() { unlink(path + "/filler") }
    }

    @Test(
        "a job whose disk is full when a checkpoint is due says so, keeps the one before, and goes on when there is room",
        .enabled(if: SmallDisk.isPossible, "no file system can be mounted here"))
    func fullAtCheckpoint() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let options = RenderingTests.tiling(steps: 40)
        let expected = try RenderingTests.render(input, in: scratch, options)
        let disk = try SmallDisk(kibibytes: 40_000)
        let (folder, output) = (disk.path + "/job", scratch.path("out.png"))
        var job = try Self.start(input, output, job: folder, options)
        try #require(job.waitForError { $0.contains("checkpoint job=") }, "\(job.standardError)")
        try disk.fill()
        try #require(job.waitForError { $0.contains("no room for the checkpoint") }, "\(job.standardError)")
        // The one before is whole: the job can be killed now, and goes on from it.
        job.signal(SIGKILL)
        job.waitForExit()
        disk.empty()
        job = try RunningProgram("tilefarm", ["resume", folder])
        try #require(job.waitForError { $0.contains("checkpoint job=") }, "\(job.standardError)")
        try disk.fill()
        try #require(job.waitForError { $0.contains("no room for the checkpoint") }, "\(job.standardError)")
        disk.empty()
        let said = job.standardError.components(separatedBy: "checkpoint job=").count
        #expect(job.waitForError { $0.components(separatedBy: "checkpoint job=").count > said })
        #expect(job.waitForExit() == 0, "\(job.standardError)")
        #expect(try scratch.bytes(output) == expected)
    }

    @Test(
        "a job whose disk is full when the output is written says so and waits; stopped or killed meanwhile, it goes on with what was rendered",
        .enabled(if: SmallDisk.isPossible, "no file system can be mounted here"))
    func fullAtOutput() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let expected = try RenderingTests.render(input, in: scratch, RenderingTests.tiling())
        let disk = try SmallDisk(kibibytes: 4000)
        let (folder, output) = (scratch.path("job"), disk.path + "/out.png")
        try disk.fill(butFor: 200)
        var job = try Self.start(input, output, job: folder, RenderingTests.tiling() + ["--deepzoom", disk.path + "/zoom"])
        try #require(job.waitForError { $0.contains("no room for the output") && $0.contains("checkpoint job=") }, "\(job.standardError)")
        job.signal(SIGINT)
        #expect(job.waitForExit() == 130 && job.standardError.contains("`tilefarm resume \(folder)` writes it"), "\(job.standardError)")
        job = try RunningProgram("tilefarm", ["resume", folder])
        try #require(job.waitForError { $0.contains("no room for the output") }, "\(job.standardError)")
        job.signal(SIGKILL)
        job.waitForExit()
        job = try RunningProgram("tilefarm", ["resume", folder])
        try #require(job.waitForError { $0.contains("no room for the output") }, "\(job.standardError)")
        disk.empty()
        #expect(job.waitForExit() == 0 && job.standardError.contains("tiles=0") == false, "\(job.standardError)")
        #expect(try scratch.bytes(output) == expected)
        #expect(try FileManager.default.contentsOfDirectory(atPath: disk.path).sorted() == ["out.png", "zoom"], "nothing hidden is left of those that were killed")
    }

    @Test(
        "a job folder without room for its canvases is refused before anything is rendered, with what it needs",
        .enabled(if: SmallDisk.isPossible, "no file system can be mounted here"))
    func tooSmall() throws {
        let scratch = try Scratch()
        let disk = try SmallDisk(kibibytes: 2000)
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let job = try Self.start(input, scratch.path("out.png"), job: disk.path + "/job", [])
        #expect(job.waitForExit() == 2)
        #expect(job.standardError.contains("of disk there and"), "\(job.standardError)")
    }

    @Test("a job folder may hold its output and be resumed from anywhere; what a start that failed left in it is no hindrance")
    func places() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 40, height: 40)
        let expected = try RenderingTests.render(input, in: scratch, RenderingTests.tiling())
        let folder = scratch.path("job")
        // A picture that breaks off is noticed when the folder is there.
        let broken = scratch.path("broken.png")
        try scratch.bytes(input).dropLast(600).write(to: URL(filePath: broken))
        let first = try Self.start(broken, scratch.path("out.png"), job: folder, [])
        #expect(first.waitForExit() == 1 && FileManager.default.fileExists(atPath: folder), "\(first.standardError)")
        for (option, path) in [("-o", "input.png"), ("--deepzoom", "canvas.0")] {
            let arguments = option == "-o" ? ["upscale", input, "-o", folder + "/" + path] : ["upscale", input, "-o", scratch.path("out.png"), option, folder + "/" + path]
            let claimed = try RunningProgram("tilefarm", arguments + ["--job", folder])
            #expect(claimed.waitForExit() == 1 && claimed.standardError.contains("for itself: choose another"), "\(claimed.standardError)")
        }
        let job = try RunningProgram(
            "tilefarm", ["upscale", "in.png", "-o", "job/out.png", "--deepzoom", "job/zoom", "--job", "job"] + RenderingTests.tiling(), directory: scratch.url)
        #expect(job.waitForExit() == 0, "\(job.standardError)")
        #expect(try scratch.bytes(folder + "/out.png") == expected)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["input.png", "job.json", "lock", "out.png", "zoom"])
        let other = scratch.path("other"), text = try scratch.bytes(input)
        try FileManager.default.createDirectory(atPath: other, withIntermediateDirectories: true)
        try text.write(to: URL(filePath: other + "/mine.png"))
        let refused = try Self.start(input, scratch.path("x.png"), job: other, [])
        #expect(refused.waitForExit() == 1 && refused.standardError.contains("holds other files"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: other) == ["mine.png"])
    }
}
