import Engine
import Foundation
import Testing

/// Faults of workers in a farm of real processes; the job's bytes are those of an unbroken one.
@Suite("Faults", .serialized)
struct FaultTests {
    private static func farm(width: Int, height: Int, steps: Int) throws -> BoundFarm {
        let scratch = try Scratch()
        return try BoundFarm(
            scratch, scratch.picture("in.png", width: width, height: height), RenderingTests.tiling(steps: steps))
    }

    /// The facts of the log's last line: `tiles=96 retried=3`.
    static func summary(_ farm: RunningProgram) -> [String: String] {
        let line = farm.standardError.split(separator: "\n").last { $0.contains("job finished") } ?? ""
        return Dictionary(
            line.split(separator: " ").compactMap { word in
                let parts = word.split(separator: "=", maxSplits: 1)
                return parts.count == 2 ? (String(parts[0]), String(parts[1])) : nil
            }
        ) { $1 }
    }

    /// Kills every worker that joins at a random moment of its work, as a supervisor brings the next one, and lets the
    /// last one finish.
    private func kill(times: Int, width: Int, height: Int, steps: Int) throws {
        let job = try Self.farm(width: width, height: height, steps: steps)
        var moments = SplitMix64(state: UInt64(times))
        for time in 0..<times {
            let worker = try job.worker("doomed-\(time)")
            usleep(.random(in: 0...300_000, using: &moments))
            try #require(job.program.process.isRunning, "the job was over after \(time) kills")
            worker.signal(SIGKILL)
        }
        let last = try job.worker("last")
        try job.expectSameBytes(seconds: 600)
        let summary = Self.summary(job.program), retried = try #require(summary["retried"].flatMap { Int($0) })
        print("killed \(times) times: \(summary)")
        #expect(job.program.standardError.components(separatedBy: "worker left worker=doomed-").count == 1 + times)
        #expect(
            job.program.standardError.split(separator: "\n").allSatisfy {
                !$0.contains("tile requeued") || $0.contains(" worker=doomed-")
            })
        // What one lane has: a tile at work and one that waits.
        #expect(retried <= 2 * times, "\(summary)")
        job.dismiss(last)
    }

    @Test("a worker killed at random moments, five times, costs the tiles that it held and no byte")
    func killedFiveTimes() throws { try kill(times: 5, width: 160, height: 120, steps: 6) }

    @Test("a worker killed at random moments, a hundred times, costs the tiles that it held and no byte", .soak)
    func killedAHundredTimesSoak() throws { try kill(times: 100, width: 256, height: 256, steps: 30) }

    /// Stops a worker until it counts as dead, gives its tiles to another, and lets it go on while that one works.
    private func stop(times: Int, width: Int, height: Int, steps: Int) throws {
        let job = try Self.farm(width: width, height: height, steps: steps)
        let sleeper = try job.worker("sleeper")
        var moments = SplitMix64(state: 5)
        var other: RunningProgram?
        for time in 1...times {
            usleep(.random(in: 0...300_000, using: &moments))
            sleeper.signal(SIGSTOP)
            #expect(
                job.program.waitForError {
                    $0.components(separatedBy: "worker left worker=sleeper ").count == 1 + time
                }, "\(job.program.standardError)")
            if other == nil { other = try job.worker("other") }
            sleeper.signal(SIGCONT)
            #expect(
                job.program.waitForError {
                    $0.components(separatedBy: "worker joined worker=sleeper ").count == 2 + time
                },
                "it does not come back: \(job.program.standardError)\n\(sleeper.standardError)")
        }
        try job.expectSameBytes(seconds: 600)
        print("stopped \(times) times: \(Self.summary(job.program))")
        job.dismiss(sleeper, try #require(other))
    }

    @Test(
        """
        a worker stopped past its time and continued works on, what it was late with is dropped, and the bytes are the \
        same
        """
    )
    func stopped() throws { try stop(times: 1, width: 160, height: 120, steps: 6) }

    @Test("a worker stopped past its time and continued ten times works on, and the bytes are the same", .soak)
    func stoppedTenTimesSoak() throws { try stop(times: 10, width: 256, height: 256, steps: 30) }

    /// Kills all workers there are, waits, and brings others.
    private func abandon(seconds: Double) throws {
        let job = try Self.farm(width: 160, height: 120, steps: 6)
        for worker in try ["first", "second"].map({ try job.worker($0) }) { worker.signal(SIGKILL) }
        try #require(
            job.program.waitForError { $0.contains("no worker is connected, the job waits") },
            "\(job.program.standardError)")
        job.program.waitForError(seconds: seconds) { _ in false }
        #expect(job.program.process.isRunning)
        let (third, fourth) = (try job.worker("third"), try job.worker("fourth"))
        try job.expectSameBytes()
        job.dismiss(third, fourth)
    }

    @Test("all workers die: the job waits, says so, and goes on when others arrive")
    func abandoned() throws { try abandon(seconds: 0) }

    @Test("all workers die, and others arrive a minute later: the job goes on", .soak)
    func abandonedForAMinuteSoak() throws { try abandon(seconds: 60) }
}
