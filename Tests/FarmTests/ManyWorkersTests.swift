import Foundation
import Testing

@Suite("Many workers")
struct ManyWorkersTests {
    @Test("one coordinator serves hundreds of connections, each a worker of its own, and every answer is right")
    func connections() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 160, height: 120),
            endpoint = "tcp://127.0.0.1:\(try freePort())"
        let swarm = try RunningProgram(
            "tilefarm-worker", ["--connect", endpoint, "--lanes", "1", "--echo", "--connections", "300"])
        let farm = try RunningProgram(
            "tilefarm",
            ["upscale", input, "-o", scratch.path("out.png"), "--bind", endpoint] + RenderingTests.tiling(steps: 30))
        #expect(farm.waitForExit() == 0, "\(farm.standardError)")
        #expect(swarm.waitForExit() == 0, "\(swarm.standardError)")
        let summary = FaultTests.summary(farm)
        #expect(summary["bad"] == "0" && summary["retried"] == "0", "\(summary)")
        let echoed = try #require(
            swarm.standardError.firstMatch(of: /echoed tiles=(\d+)/).flatMap { Int($0.1) }, "\(swarm.standardError)")
        #expect(echoed >= (try #require(summary["tiles"].flatMap { Int($0) })))
    }
}
