import Engine
import Foundation
import Protocol
import Synchronization
import Testing

/// The farm as its users run it: real processes, real sockets, real files.
@Suite("Rendering", .serialized)
struct RenderingTests {
    /// Small tiles, so that a small picture makes many.
    static func tiling(steps: Int = 4) -> [String] {
        ["--tile", "64", "--halo", "8", "--seed", "7", "--steps", "\(steps)"]
    }

    /// Pictures that `render` has rendered, by the input's digest and the arguments: many tests compare with the same
    /// pictures.
    private static let rendered = Mutex<[[String]: Data]>([:])

    /// Renders on local workers, once in all tests, and returns the picture's bytes.
    static func render(_ input: String, in scratch: Scratch, _ arguments: [String]) throws -> Data {
        let key = [try ContentDigest(file: input).hex] + arguments
        if let picture = rendered.withLock({ $0[key] }) { return picture }
        let output = scratch.path("\(UUID().uuidString).png")
        let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", output] + arguments)
        let code = farm.waitForExit()
        try #require(code == 0, "\(farm.standardError)")
        let picture = try scratch.bytes(output)
        rendered.withLock { $0[key] = picture }
        return picture
    }

    /// A job of many tiles and steps for each kind of model; the latent ones have tiles to encode and decode too.
    enum Job: String, CaseIterable, Sendable {
        case pixels, upscale, img2img

        var size: (width: Int, height: Int) { self == .pixels ? (220, 180) : (100, 80) }

        func options() throws -> [String] {
            if self == .pixels { return RenderingTests.tiling(steps: 12) }
            var options = [
                "--model", try PipelineCase(rawValue).model.path, "--prompt", "a castle", "--negative-prompt", "rain",
                "--seed", "7",
            ]
            options += ["--tile", "32", "--halo", "4", "--steps", "12"]
            return options + (self == .img2img ? ["--scale", "8", "--strength", "1"] : [])
        }
    }

    @Test(
        """
        one worker of two lanes, two of one lane, and three of which one is killed and one joins late give the same \
        bytes
        """,
        arguments: Job.allCases)
    func sameBytes(job: Job) throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: job.size.width, height: job.size.height)
        let options = try job.options()
        // One worker of every core, as is the default.
        let one = try Self.render(input, in: scratch, options)
        let two = try Self.render(input, in: scratch, options + ["--workers", "2"])
        #expect(one == two)

        let farm = try BoundFarm(scratch, input, options)
        let first = try farm.worker("first", awaitJoin: false)
        try farm.worker("doomed").signal(SIGKILL)
        let late = try farm.worker("late")
        try farm.expectSameBytes()
        #expect(farm.program.standardError.contains("worker left worker=doomed"))
        farm.dismiss(first, late)
    }

    @Test("a job waits while it has no worker, says so, and goes on when one comes")
    func waits() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 40, height: 40)
        let farm = try BoundFarm(scratch, input, Self.tiling())
        let worker = try farm.worker("late", lanes: 2)
        try farm.expectSameBytes()
        worker.signal(SIGINT)
        #expect(worker.waitForExit(seconds: 20) == 0, "\(worker.standardError)")
    }

    @Test("a worker that gets SIGTERM gives back what it has not started, and the job goes on without it")
    func drain() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 160, height: 160)
        let farm = try BoundFarm(scratch, input, Self.tiling())
        farm.dismiss(try farm.worker("leaver"))
        #expect(farm.program.waitForError { $0.contains("worker left worker=leaver") }, "\(farm.program.standardError)")
        let stayer = try farm.worker("stayer", lanes: 2)
        try farm.expectSameBytes()
        farm.dismiss(stayer)
    }

    @Test("a local worker that is killed is replaced, and the bytes are the same")
    func localDeath() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let expected = try Self.render(input, in: scratch, Self.tiling(steps: 12))
        let output = scratch.path("out.png")
        let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", output] + Self.tiling(steps: 12))
        try #require(farm.waitForError { $0.contains("worker joined worker=local-1") })
        let workers = Self.children(of: farm.process.processIdentifier)
        #expect(workers.count == 1)
        for worker in workers { kill(worker, SIGKILL) }
        #expect(farm.waitForExit() == 0, "\(farm.standardError)")
        #expect(farm.standardError.contains("local worker ended, starting another"), "\(farm.standardError)")
        #expect(try scratch.bytes(output) == expected)
    }

    /// Each thread of a process lists the children that it started.
    static func children(of parent: Int32) -> [Int32] {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(parent)/task")) ?? []
        return tasks.flatMap { task in
            let text = (try? String(contentsOfFile: "/proc/\(parent)/task/\(task)/children", encoding: .utf8)) ?? ""
            return text.split(separator: " ").compactMap { Int32($0) }
        }
    }

    @Test("SIGINT ends the job cleanly: what was lost is said, no output is left, local workers are gone")
    func cancel() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 300, height: 300)
        let output = scratch.path("out.png")
        let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", output, "--steps", "100"])
        try #require(farm.waitForError { $0.contains("worker joined") })
        farm.signal(SIGINT)
        #expect(farm.waitForExit(seconds: 30) == 130)
        #expect(farm.standardError.contains("tiles were done and are lost, no output was written"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.url.path) == ["in.png"])
    }

    @Test(
        "every way of tiling gives the same bytes with a latent model too",
        arguments: [
            ["--overlap", "reference"], ["--overlap", "explicit"], ["--sampler", "ddpm"], ["--eta", "0.7"],
            ["--guidance-scale", "1"],
        ])
    func latentMethods(options: [String]) throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 24, height: 17)
        let arguments =
            [
                "--model", try PipelineCase("img2img").model.path, "--scale", "8", "--tile", "32", "--steps", "3",
                "--strength", "1",
            ] + options
        #expect(
            try Self.render(input, in: scratch, arguments + ["--workers", "1"])
                == Self.render(input, in: scratch, arguments + ["--workers", "2"]))
    }

    @Test(
        "every way of tiling gives the same bytes on one worker and on two",
        arguments: [
            ["--overlap", "none"], ["--overlap", "reference"], ["--overlap", "explicit", "--weights", "mean"],
            ["--overlap", "explicit", "--overlap-width", "16"],
            ["--overlap", "implicit", "--halo", "0", "--offset", "fixed"],
            ["--sampler", "ddpm"], ["--eta", "0.7"], ["--offset-range", "16"],
        ])
    func methods(options: [String]) throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 50, height: 37)
        let arguments = ["--tile", "64", "--steps", "3", "--seed", "3"] + options
        let one = try Self.render(input, in: scratch, arguments + ["--workers", "1"])
        let two = try Self.render(input, in: scratch, arguments + ["--workers", "2"])
        #expect(one == two)
        let again = try Self.render(input, in: scratch, ["--tile", "64", "--steps", "3", "--seed", "4"] + options)
        #expect(one != again, "another seed gives another picture")
    }

    @Test(
        "the output is a PNG of the input's kind, four times as large",
        arguments: [
            (8, false, false), (16, false, false), (8, true, false), (8, false, true), (16, true, true),
        ])
    func kinds(bitDepth: Int, grey: Bool, alpha: Bool) throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 33, height: 17, bitDepth: bitDepth, grey: grey, alpha: alpha)
        let output = scratch.path("out.png")
        let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", output, "--steps", "1"])
        #expect(farm.waitForExit() == 0, "\(farm.standardError)")
        let reader = try PNGReader(path: output)
        #expect(
            (reader.width, reader.height, reader.bitDepth, reader.isGrey, reader.hasAlpha) == (
                132, 68, bitDepth, grey, alpha
            ))
        // What comes out is the picture that went in, not noise: reduced again it is near it.
        let small = try RGBImage(png: output).resizedBicubic(width: 33, height: 17)
        #expect(ImageMetrics.psnr(small, try RGBImage(png: input)) > 25)
    }

    @Test(
        "pictures of any size, smaller than a tile or not a multiple of anything, come out at exactly the scale",
        arguments: [
            (1, 1, "4"), (3, 200, "4"), (61, 7, "2"), (20, 20, "3"), (31, 17, "2.5"), (40, 30, "1"),
        ])
    func sizes(width: Int, height: Int, scale: String) throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: width, height: height)
        let output = scratch.path("out.png")
        let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", output, "--steps", "1", "--scale", scale])
        #expect(farm.waitForExit() == 0, "\(farm.standardError)")
        let reader = try PNGReader(path: output)
        let factor = try #require(Double(scale))
        #expect(
            reader.width == Int((Double(width) * factor).rounded())
                && reader.height == Int((Double(height) * factor).rounded()))
    }

    @Test("plan says what the job would take, and renders nothing")
    func plan() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 256, height: 256)
        let farm = try RunningProgram(
            "tilefarm", ["plan", input, "--tile", "256", "--overlap", "none", "--offset", "none", "--steps", "3"])
        #expect(farm.waitForExit() == 0, "\(farm.standardError)")
        #expect(
            farm.standardOutput.contains("1024x1024") && farm.standardOutput.contains("48 in 3 steps"),
            "\(farm.standardOutput)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.url.path) == ["in.png"])
    }
}
