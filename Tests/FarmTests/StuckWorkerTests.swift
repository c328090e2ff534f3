import Foundation
import Testing

/// Local workers that neither work nor die.
@Suite("Stuck workers", .serialized)
struct StuckWorkerTests {
    private struct Late: Error {}

    /// The process of a local worker, as soon as there is one.
    private static func worker(_ name: String, of farm: RunningProgram) throws -> Int32 {
        let deadline = ContinuousClock.now + .seconds(60)
        while farm.process.isRunning, ContinuousClock.now < deadline {
            for process in RenderingTests.children(of: farm.process.processIdentifier) {
                let arguments = (try? Data(contentsOf: URL(filePath: "/proc/\(process)/cmdline"))) ?? Data()
                if arguments.split(separator: 0).contains(where: { $0.elementsEqual(name.utf8) }) { return process }
            }
            farm.waitForError(seconds: 0.02) { _ in false }
        }
        throw Late()
    }

    @Test(
        """
        a local worker that is stopped is killed when it has said nothing for some seconds, another takes its place, \
        and the bytes are the same
        """
    )
    func stopped() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180), options = RenderingTests.tiling(steps: 12)
        let output = scratch.path("out.png")
        let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", output] + options)
        try #require(farm.waitForError { $0.contains("worker joined worker=local-1 ") }, "\(farm.standardError)")
        let worker = try Self.worker("local-1", of: farm)
        kill(worker, SIGSTOP)
        #expect(farm.waitForExit() == 0, "\(farm.standardError)")
        #expect(
            farm.standardError.contains("reason=\"silent for 5 s\"")
                && farm.standardError.contains("local worker ended, starting another"), "\(farm.standardError)")
        #expect(kill(worker, 0) != 0, "it is gone")
        #expect(try scratch.bytes(output) == RenderingTests.render(input, in: scratch, options))
    }

    @Test("a job ends although a local worker was stopped before it could join")
    func stoppedAtTheStart() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 60, height: 60), options = RenderingTests.tiling(steps: 2)
        let output = scratch.path("out.png")
        let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", output, "--workers", "2"] + options)
        let worker = try Self.worker("local-2", of: farm)
        kill(worker, SIGSTOP)
        #expect(farm.waitForExit() == 0, "\(farm.standardError)")
        #expect(kill(worker, 0) != 0, "it is gone")
        #expect(try scratch.bytes(output) == RenderingTests.render(input, in: scratch, options))
    }
}
