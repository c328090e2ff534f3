import Foundation
import Protocol
import Testing

/// The program itself, as a process.
@Suite("tilefarm-worker", .serialized) struct CommandTests {
    struct Program {
        let process = Process()
        let errors = Pipe()

        init(_ arguments: [String]) throws {
            process.executableURL = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(
                path: "tilefarm-worker")
            process.arguments = arguments
            process.standardError = errors
            process.standardOutput = FileHandle.nullDevice
            try process.run()
        }

        func end() throws -> (code: Int32, errors: String) {
            defer { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }
            let text = try CommandTests.text(of: errors)
            process.waitUntilExit()
            return (process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus, text)
        }
    }

    /// The text that comes through a pipe until everyone who writes to it has ended, if that is within a minute.
    static func text(of pipe: Pipe) throws -> String {
        let deadline = ContinuousClock.now + .seconds(60)
        var data = Data()
        while true {
            var item = pollfd(fd: pipe.fileHandleForReading.fileDescriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&item, 1, Int32(max(0, (deadline - .now) / .milliseconds(1)))) > 0 else { throw Late() }
            let more = pipe.fileHandleForReading.availableData
            if more.isEmpty { return String(decoding: data, as: UTF8.self) }
            data += more
        }
    }

    @Test(
        "what cannot be is said in one line, with exit code 2",
        arguments: [
            (["--connect", "farm:5555"], "endpoint 'farm:5555'"),
            (["--connect", "tcp://farm"], "tcp://farm"),
            (["--connect", "tcp://*:5555"], "tcp://*:5555"),
            (["--connect", "tcp://farm:5555", "--lanes", "0"], "--lanes 0"),
            (["--connect", "tcp://farm:5555", "--lanes", "99999"], "--lanes 99999"),
            (["--connect", "tcp://farm:5555", "--lanes", "two"], "two"),
            (["--connect", "tcp://farm:5555", "--name", "a b"], "--name"),
            (["--connect", "tcp://farm:5555", "--model", "a", "--cache", "b"], "--cache"),
            (["--connect", "tcp://farm:5555", "--log-level", "loud"], "loud"),
            ([], "--connect"),
            (["--connect", "tcp://farm:5555", "--verbose"], "--verbose"),
        ])
    func usage(arguments: [String], words: String) throws {
        let (code, errors) = try Program(arguments).end()
        #expect(code == 2)
        #expect(errors.hasPrefix("tilefarm-worker: ") && errors.contains(words))
        #expect(errors.split(separator: "\n").count == 1)
    }

    @Test("a refused worker says why in one line, with exit code 1")
    func refused() throws {
        let farmer = try Farmer()
        let program = try Program(["--connect", farmer.router.endpoint, "--log-level", "critical", "--echo"])
        let (peer, _) = try farmer.hello()
        try farmer.send(.refused("another version"), to: peer)
        let (code, errors) = try program.end()
        #expect(code == 1 && errors == "tilefarm-worker: another version\n")
    }

    @Test("SIGTERM and SIGINT drain it, with exit code 0", arguments: [SIGTERM, SIGINT])
    func drains(signal: Int32) throws {
        let farmer = try Farmer()
        let model = try TestModel()
        model.isFetched = false
        let program = try Program(["--connect", farmer.router.endpoint, "--lanes", "2", "--name", "n3", "--echo"])
        let (peer, hello) = try farmer.employ(model)
        #expect(hello.name == "n3" && hello.lanes == 2 && hello.credit == 4)
        try farmer.send(farmer.task(model, tile: 3), to: peer)
        let (task, answer) = try farmer.result()
        #expect(task.tile == 3 && answer == Frame(zeros: 60))
        kill(program.process.processIdentifier, signal)
        let reason = try farmer.next { if case .leaving(let reason) = $1 { reason } else { nil } }
        #expect(reason == (signal == SIGTERM ? "SIGTERM" : "SIGINT"))
        let (code, errors) = try program.end()
        #expect(code == 0)
        for event in ["worker started", "connected", "job started", "draining", "worker stopped"] {
            #expect(errors.contains(event))
        }
    }

    @Test("a local worker ends with its job, with exit code 0")
    func endsWithJob() throws {
        let farmer = try Farmer()
        let model = try TestModel()
        model.isFetched = false
        let program = try Program([
            "--connect", farmer.router.endpoint, "--lanes", "1", "--echo", "--exit-with-parent", "\(getpid())",
            "--log-level", "warning",
        ])
        let peer = try farmer.employ(model).peer
        try farmer.send(.stop(reason: "finished"), to: peer)
        let (code, errors) = try program.end()
        #expect(code == 0 && errors == "")
    }

    @Test("a local worker ends when the program that started it is killed")
    func endsWithParent() throws {
        let farmer = try Farmer()
        let worker = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent().appending(
            path: "tilefarm-worker"
        ).path
        let shell = Process()
        shell.executableURL = URL(filePath: "/bin/sh")
        let errors = Pipe()
        shell.standardError = errors
        // The shell starts it as its child and waits.
        shell.arguments = [
            "-c", "\"$0\" --connect \"$1\" --lanes 1 --echo --exit-with-parent $$; true", worker,
            farmer.router.endpoint,
        ]
        try shell.run()
        _ = try farmer.hello()
        kill(shell.processIdentifier, SIGKILL)
        // The worker holds the other end of the pipe until it has ended.
        #expect(try Self.text(of: errors).contains("the program that started this worker has ended"))
        shell.waitUntilExit()
    }

    @Test("a local worker whose starter was killed before it could ask for it ends too")
    func orphan() throws {
        let farmer = try Farmer()
        // Of a process that this one never was a child of.
        let program = try Program([
            "--connect", farmer.router.endpoint, "--lanes", "1", "--echo", "--exit-with-parent", "1", "--log-level",
            "info",
        ])
        let (code, errors) = try program.end()
        #expect(code == 0 && errors.contains("the program that started this worker has ended"))
    }
}
