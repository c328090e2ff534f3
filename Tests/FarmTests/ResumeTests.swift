import Engine
import Foundation
import Protocol
import Testing

/// Jobs that are broken off and gone on with: real processes, real signals, real disks.
@Suite("Resuming", .serialized)
struct ResumeTests {
    /// Keeps a job in a folder.
    static func keep(_ job: String) -> [String] { ["--job", job, "--checkpoint-every", "0.2s"] }

    /// Starts a job that is kept, on local workers.
    static func start(_ input: String, _ output: String, job: String, _ options: [String]) throws -> RunningProgram {
        try RunningProgram("tilefarm", ["upscale", input, "-o", output] + keep(job) + options)
    }

    @Test(
        "a coordinator that is killed at random moments and resumed ends in the bytes of an unbroken run",
        arguments: [RenderingTests.Job.pixels, .img2img])
    func killed(job: RenderingTests.Job) throws {
        try Self.kill(job: job, times: 2)
    }

    @Test("so does one whose canvas has half precision, of which half as much comes back")
    func half() throws {
        let half = ["--storage", "float16"]
        try Self.kill(job: .pixels, times: 2, more: half)
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let received = try [[], half].map { more in
            let farm = try RunningProgram(
                "tilefarm",
                ["upscale", input, "-o", scratch.path("out.png")] + RenderingTests.Job.pixels.options() + more)
            #expect(farm.waitForExit() == 0)
            return try #require(FaultTests.summary(farm)["received"].flatMap { Double($0) })
        }
        #expect(received[1] < 0.55 * received[0], "\(received)")
    }

    @Test("the same, 20 times", .soak, arguments: RenderingTests.Job.allCases)
    func killedSoak(job: RenderingTests.Job) throws {
        // Long enough for as many kills.
        try Self.kill(job: job, times: 20, more: ["--steps", job == .pixels ? "30" : "120"])
    }

    static func kill(job: RenderingTests.Job, times: Int, more: [String] = []) throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: job.size.width, height: job.size.height)
        let options = try job.options() + more
        let (folder, output) = (scratch.path("job"), scratch.path("out.png"))
        var moments = SplitMix64(state: UInt64(times))
        var program = try start(input, output, job: folder, options)
        for time in 0..<times {
            // The first early, perhaps before the folder says what the job is; the second after a checkpoint; others at
            // any moment, after the end too.
            if time == 1 {
                try #require(program.waitForError { $0.contains("checkpoint job=") }, "\(program.standardError)")
            } else {
                usleep(.random(in: 0...(time == 0 ? 300_000 : 1_500_000), using: &moments))
            }
            program.killAndWait()
            program = try RunningProgram("tilefarm", ["resume", folder])
            guard time < 2 else { continue }
            try #require(
                program.waitForError { $0.contains(/job resumed .*\n|there is no job here/) },
                "\(program.standardError)")
            // From the checkpoint the pass is known at once.
            #expect(time == 0 || program.standardError.contains(/job resumed .*pass=/), "\(program.standardError)")
            if program.standardError.contains("there is no job here") {
                program = try start(input, output, job: folder, options)
            }
        }
        let code = program.waitForExit()
        if !program.standardError.contains("this job is finished") { #expect(code == 0, "\(program.standardError)") }
        #expect(try scratch.bytes(output) == RenderingTests.render(input, in: scratch, options))
        let left = try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
        #expect(left == ["input.png", "job.json", "lock"])
    }

    @Test(
        """
        a second coordinator on a job folder is refused, an interrupted job says how to go on, and goes on with other \
        workers
        """
    )
    func twice() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let folder = scratch.path("job")
        let farm = try BoundFarm(scratch, input, RenderingTests.Job.pixels.options(), more: Self.keep(folder))
        let (first, output) = (farm.program, farm.output)
        let doomed = try farm.worker("doomed")
        try #require(first.waitForError { $0.contains("checkpoint job=") }, "\(first.standardError)")
        // Without a worker the job is not over before everything below has happened, however fast the machine is.
        doomed.signal(SIGKILL)
        let second = try RunningProgram("tilefarm", ["resume", folder])
        #expect(second.waitForExit() == 1 && second.standardError.contains("another tilefarm is at work on this job"))
        let third = try Self.start(input, output, job: folder, [])
        #expect(third.waitForExit() == 1 && third.standardError.contains("another tilefarm is at work on this job"))
        first.signal(SIGINT)
        #expect(
            first.waitForExit() == 130 && first.standardError.contains("`tilefarm resume \(folder)` goes on"),
            "\(first.standardError)")
        #expect(!FileManager.default.fileExists(atPath: output))

        let resumed = try farm.resume(folder)
        let worker = try resumed.worker("another", lanes: 2)
        try resumed.expectSameBytes()
        #expect(resumed.program.standardError.contains("job resumed"), "\(resumed.program.standardError)")
        resumed.dismiss(worker)
        let again = try RunningProgram("tilefarm", ["resume", folder])
        #expect(again.waitForExit() == 1 && again.standardError.contains("this job is finished"))
    }

    @Test("a job folder of another version, with a damaged or missing part, or with another input is refused in words")
    func damaged() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let folder = scratch.path("job")
        let job = try BoundFarm(scratch, input, RenderingTests.tiling(steps: 6), more: Self.keep(folder))
        let worker = try job.worker("doomed")
        try #require(job.program.waitForError { $0.contains("checkpoint job=") })
        job.program.killAndWait()
        worker.killAndWait()
        let files = FileManager.default
        /// The words of resume about a copy of the folder that something was done to.
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
            let line =
                try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")[0].replacing(old, with: new)
                as Substring
            try Data("\(line)\n\(ContentDigest(of: Data(line.utf8)).hex)\n".utf8).write(to: URL(filePath: path))
        }
        let checkpoint = try String(contentsOfFile: folder + "/checkpoint.json", encoding: .utf8)
        let canvas = try #require(checkpoint.firstMatch(of: /plane-sample\.\d/)).output
        #expect(
            try refusal { try flip($0 + "/\(canvas)", at: 5000) }.contains(
                "damaged (its digest is not what the checkpoint says)"))
        #expect(try refusal { try files.removeItem(atPath: $0 + "/\(canvas)") }.contains("\(canvas)"))
        #expect(try refusal { try flip($0 + "/checkpoint.json", at: 9) }.contains("checkpoint.json: is damaged"))
        #expect(try refusal { try flip($0 + "/job.json", at: 9) }.contains("job.json: is damaged"))
        #expect(try refusal { try Data().write(to: URL(filePath: $0 + "/job.json")) }.contains("job.json: is damaged"))
        #expect(try refusal { try files.removeItem(atPath: $0 + "/job.json") }.contains("there is no job here"))
        #expect(
            try refusal { try rewrite($0 + "/job.json", "\"format\":2", "\"format\":1") }.contains(
                "another version of tilefarm (format 1"))
        #expect(
            try refusal { try rewrite($0 + "/job.json", "\"version\":1", "\"version\":7") }.contains(
                "request is of version 7"))
        #expect(
            try refusal { try rewrite($0 + "/job.json", "\"steps\":6", "\"steps\":60") }.contains(
                "its request is not the one that it was made for"))
        #expect(
            try refusal {
                let path = $0 + "/job.json"
                let plan = try String(contentsOfFile: path, encoding: .utf8).firstMatch(of: /"planDigest":"[0-9a-f]{4}/)
                try rewrite(path, String(try #require(plan).output), "\"planDigest\":\"beef")
            }.contains("what this version of tilefarm makes of its request"))
        #expect(
            try refusal { try rewrite($0 + "/job.json", "\"tiling\":", "\"tilling\":") }.contains(
                "it lacks what it should say"))
        #expect(
            try refusal {
                _ = try files.removeItem(atPath: $0 + "/input.png");
                try files.copyItem(
                    atPath: scratch.picture("other.png", width: 220, height: 180, grey: true), toPath: $0 + "/input.png"
                )
            }
            .contains("its input.png is not what the job was started with"))
        #expect(
            try refusal { try rewrite($0 + "/checkpoint.json", "\"pass\":", "\"pass\":9") }.contains(
                "its checkpoint is of another plan"))
        #expect(
            try refusal { try rewrite($0 + "/checkpoint.json", "\"sample\":", "\"sample\":7") }.contains(
                "its checkpoint is of another plan"))
        // The folder that nothing was done to goes on.
        let program = try RunningProgram("tilefarm", ["resume", folder, "--workers", "1"])
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
        """
        a job whose disk is full when a checkpoint is due says so, keeps the one before, and goes on when there is room
        """,
        .enabled(if: SmallDisk.isPossible, "no file system can be mounted here"))
    func fullAtCheckpoint() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let disk = try SmallDisk(kibibytes: 40_000)
        let folder = disk.path + "/job"
        // One lane, which needs seconds for what is left: a checkpoint becomes due while the disk is full.
        var job = try BoundFarm(scratch, input, RenderingTests.Job.pixels.options(), more: Self.keep(folder))
        var doomed = try job.worker("first")
        func fillAfterCheckpoint() throws {
            try #require(job.program.waitForError { $0.contains("checkpoint job=") }, "\(job.program.standardError)")
            try disk.fill()
            try #require(
                job.program.waitForError { $0.contains("no room for the checkpoint") }, "\(job.program.standardError)")
            doomed.signal(SIGKILL)
        }
        try fillAfterCheckpoint()
        // The one before is whole: the job can be killed now, and goes on from it.
        job.program.killAndWait()
        disk.empty()
        job = try job.resume(folder)
        doomed = try job.worker("second")
        try fillAfterCheckpoint()
        // Without a worker the job cannot be over before it has been written.
        let said = job.program.standardError.components(separatedBy: "checkpoint job=").count
        disk.empty()
        #expect(job.program.waitForError { $0.components(separatedBy: "checkpoint job=").count > said })
        let last = try job.worker("last", lanes: 2)
        try job.expectSameBytes()
        job.dismiss(last)
    }

    @Test(
        """
        a job whose disk is full when the output is written says so and waits; stopped or killed meanwhile, it goes on \
        with what was rendered
        """,
        .enabled(if: SmallDisk.isPossible, "no file system can be mounted here"))
    func fullAtOutput() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let expected = try RenderingTests.render(input, in: scratch, RenderingTests.tiling())
        let disk = try SmallDisk(kibibytes: 4000)
        let (folder, output) = (scratch.path("job"), disk.path + "/out.png")
        try disk.fill(butFor: 200)
        var job = try Self.start(
            input, output, job: folder, RenderingTests.tiling() + ["--deepzoom", disk.path + "/zoom"])
        try #require(
            job.waitForError { $0.contains("no room for the output") && $0.contains("checkpoint job=") },
            "\(job.standardError)")
        job.signal(SIGINT)
        #expect(
            job.waitForExit() == 130 && job.standardError.contains("`tilefarm resume \(folder)` writes it"),
            "\(job.standardError)")
        job = try RunningProgram("tilefarm", ["resume", folder])
        try #require(job.waitForError { $0.contains("no room for the output") }, "\(job.standardError)")
        job.killAndWait()
        job = try RunningProgram("tilefarm", ["resume", folder])
        try #require(job.waitForError { $0.contains("no room for the output") }, "\(job.standardError)")
        disk.empty()
        #expect(job.waitForExit() == 0 && job.standardError.contains("tiles=0") == false, "\(job.standardError)")
        #expect(try scratch.bytes(output) == expected)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: disk.path).sorted() == ["out.png", "zoom"],
            "nothing hidden is left of those that were killed")
    }

    @Test(
        "a disk that takes no more holds up what is written, and neither canvas nor rows fill the memory meanwhile",
        .enabled(if: SmallDisk.isPossible, "no file system can be mounted here"))
    func stalledDisk() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 1024, height: 1024)
        let options = ["--echo", "--steps", "1", "--tile", "256", "--halo", "0"]
        let expected = try RenderingTests.render(input, in: scratch, options)
        let disk = try SmallDisk(kibibytes: 100_000)
        try disk.fill(butFor: 500)
        // 4096 x 4096: 200 MB of canvas three times, 200 MB of finished numbers, 50 MB of samples for either output.
        let job = try Self.start(
            input, disk.path + "/out.png", job: scratch.path("job"), options + ["--deepzoom", disk.path + "/zoom"])
        try #require(
            job.waitForError { $0.contains("no room for the output") && $0.contains("checkpoint job=") },
            "\(job.standardError)")
        #expect(job.peakMemory < 400 << 20, "\(job.peakMemory) bytes")
        disk.empty()
        #expect(job.waitForExit() == 0, "\(job.standardError)")
        #expect(try scratch.bytes(disk.path + "/out.png") == expected)
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

    @Test(
        """
        a job folder may hold its output and be resumed from anywhere; what a start that failed left in it is no \
        hindrance
        """
    )
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
        for (option, path) in [("-o", "input.png"), ("--deepzoom", "plane-sample.0")] {
            let arguments =
                option == "-o"
                ? ["upscale", input, "-o", folder + "/" + path]
                : ["upscale", input, "-o", scratch.path("out.png"), option, folder + "/" + path]
            let claimed = try RunningProgram("tilefarm", arguments + ["--job", folder])
            #expect(
                claimed.waitForExit() == 1 && claimed.standardError.contains("for itself: choose another"),
                "\(claimed.standardError)")
        }
        let job = try RunningProgram(
            "tilefarm",
            ["upscale", "in.png", "-o", "job/out.png", "--deepzoom", "job/zoom", "--job", "job"]
                + RenderingTests.tiling(), directory: scratch.url)
        #expect(job.waitForExit() == 0, "\(job.standardError)")
        #expect(try scratch.bytes(folder + "/out.png") == expected)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == [
                "input.png", "job.json", "lock", "out.png", "zoom",
            ])
        let other = scratch.path("other"), text = try scratch.bytes(input)
        try FileManager.default.createDirectory(atPath: other, withIntermediateDirectories: true)
        try text.write(to: URL(filePath: other + "/mine.png"))
        let refused = try Self.start(input, scratch.path("x.png"), job: other, [])
        #expect(refused.waitForExit() == 1 && refused.standardError.contains("holds other files"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: other) == ["mine.png"])
    }
}
