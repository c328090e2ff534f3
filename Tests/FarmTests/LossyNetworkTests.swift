import Engine
import Foundation
import Testing

/// A farm on hosts of its own, between which real TCP loses, waits for and repeats real packets.
@Suite("A bad network", .serialized, .enabled(if: TestNetwork.missing == nil, "\(TestNetwork.missing ?? "")"))
struct LossyNetworkTests {
    /// A coordinator on the first host and a worker of one lane on each other; none fetches the model over that
    /// network.
    private struct BadFarm {
        let network: TestNetwork
        let farm: RunningProgram
        let workers: [RunningProgram]

        init(workers count: Int, _ input: String, to output: String, _ options: [String]) throws {
            network = try TestNetwork(hosts: 1 + count, loss: 0.05, delay: 0.1, seed: 3)
            let endpoint = "tcp://\(network.hosts[0].address):7000"
            farm = try RunningProgram(
                "tilefarm", ["upscale", input, "-o", output, "--bind", endpoint, "--insecure"] + options,
                on: network.hosts[0])
            workers = try network.hosts.dropFirst().enumerated().map { index, host in
                try RunningProgram(
                    "tilefarm-worker",
                    [
                        "--connect", endpoint, "--lanes", "1", "--name", "far-\(index + 1)", "--model",
                        DefaultModel.url.path,
                    ], on: host)
            }
        }
    }

    @Test("5 % loss, 200 ms there and back, and one of two workers cut off until it counts as dead: the same bytes")
    func partition() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 40, height: 30), output = scratch.path("out.png")
        let options = RenderingTests.tiling(steps: 2)
        let bad = try BadFarm(workers: 2, input, to: output, options)
        for name in ["far-1", "far-2"] {
            try #require(
                bad.farm.waitForError { $0.contains("worker joined worker=\(name)") }, "\(bad.farm.standardError)")
        }
        try bad.network.cutOff(2..<3)
        #expect(bad.farm.waitForError { $0.contains("worker left worker=far-2") })
        try bad.network.join()
        #expect(bad.farm.waitForExit() == 0, "\(bad.farm.standardError)")
        let packets = try #require(bad.network.finish())
        #expect(packets.lost * 50 > packets.carried, "\(packets)")
        #expect(try scratch.bytes(output) == RenderingTests.render(input, in: scratch, options))
    }

    @Test(
        """
        5 % loss, 200 ms there and back, half of four workers cut off for 30 s: they come back, and the bytes are the \
        same
        """,
        .soak)
    func longPartitionSoak() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 120, height: 100), output = scratch.path("out.png")
        let options = RenderingTests.tiling(steps: 4)
        let bad = try BadFarm(workers: 4, input, to: output, options)
        for name in 1...4 {
            try #require(
                bad.farm.waitForError { $0.contains("worker joined worker=far-\(name)") }, "\(bad.farm.standardError)")
        }
        try bad.network.cutOff(3..<5)
        bad.farm.waitForError(seconds: 30) { _ in false }
        let during = bad.farm.process.isRunning
        try bad.network.join()
        #expect(during, "the job was over before the partition")
        for name in 3...4 {
            #expect(
                bad.farm.waitForError { $0.components(separatedBy: "worker joined worker=far-\(name)").count == 3 },
                "far-\(name) did not come back")
        }
        #expect(bad.farm.waitForExit(seconds: 600) == 0, "\(bad.farm.standardError)")
        let packets = try #require(bad.network.finish())
        print("half of four workers cut off for 30 s: \(packets), \(FaultTests.summary(bad.farm))")
        #expect(try scratch.bytes(output) == RenderingTests.render(input, in: scratch, options))
    }
}
