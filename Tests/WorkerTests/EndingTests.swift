import Foundation
import Protocol
import Testing

/// How the program ends.
@Suite("tilefarm-worker ends", .serialized) struct EndingTests {
    @Test(
        "options that cannot be are refused before anything is sent, with exit code 2",
        arguments: [
            (["--name", "a\u{85}b"], "--name"),
            (["--name", "a\u{2028}b"], "--name"),
            (["--echo", "--connections", "2", "--echo-seconds", "1"], "--echo-seconds"),
            (["--connections", "2"], "--connections"),
        ])
    func usage(arguments: [String], words: String) throws {
        let (code, errors) = try CommandTests.Program(["--connect", "tcp://127.0.0.1:1"] + arguments).end()
        #expect(code == 2 && errors.hasPrefix("tilefarm-worker: ") && errors.contains(words), "\(errors)")
    }

    @Test("a refused swarm of echoing workers says why, with exit code 1")
    func refusedSwarm() throws {
        let farmer = try Farmer()
        let program = try CommandTests.Program([
            "--connect", farmer.router.endpoint, "--log-level", "critical", "--echo", "--connections", "3", "--lanes",
            "1",
        ])
        let (peer, _) = try farmer.hello()
        try farmer.send(.refused("another version"), to: peer)
        let (code, errors) = try program.end()
        #expect(code == 1 && errors == "tilefarm-worker: another version\n")
    }
}
