import Foundation
import Protocol
import Testing

/// Where a coordinator waits, and what a worker is told.
@Suite("Endpoints", .serialized)
struct EndpointTests {
    static let hasIPv6 = (try? RouterSocket(SocketContext(), bind: Endpoint("tcp://[::1]:*"))) != nil

    @Test(
        "a worker reaches the coordinator by any name or address that they have in common",
        .enabled(if: hasIPv6, "this machine has no IPv6"),
        arguments: [
            (["--bind", "tcp://[::1]:*"], "localhost"), (["--bind", "tcp://localhost:*"], "127.0.0.1"),
            (["--bind", "tcp://localhost:*"], "[::1]"), (["--bind", "tcp://*:*", "--insecure"], "[::1]"),
            (["--bind", "tcp://*:*", "--insecure"], "localhost"),
        ])
    func reached(door: [String], host: String) throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 20, height: 20), options = RenderingTests.tiling(steps: 1)
        let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", scratch.path("out.png")] + options + door)
        let words = /waiting for workers endpoint=tcp:\S+:(\d+)\n/
        farm.waitForError { $0.contains(words) }
        let port = try #require(farm.standardError.firstMatch(of: words), "\(farm.standardError)").output.1
        let worker = try RunningProgram(
            "tilefarm-worker", ["--connect", "tcp://\(host):\(port)", "--cache", scratch.path("cache")])
        #expect(farm.waitForExit(seconds: 60) == 0, "\(farm.standardError)\(worker.standardError)")
        #expect(try scratch.bytes(scratch.path("out.png")) == RenderingTests.render(input, in: scratch, options))
        worker.signal(SIGTERM)
        #expect(worker.waitForExit(seconds: 20) == 0, "\(worker.standardError)")
    }
}
