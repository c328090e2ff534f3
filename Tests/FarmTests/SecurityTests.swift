import Engine
import Foundation
import Protocol
import Synchronization
import Testing

/// Strangers of every kind at a farm that renders: the bytes are the same, the log is short, the memory bounded.
@Suite("Security", .serialized)
struct SecurityTests {
    /// A coordinator with a job, and keys where it has some.
    final class Farm {
        let bound: BoundFarm
        let hasKeys: Bool
        let begun: ContinuousClock.Instant

        init(keys: Bool, steps: Int = 12) throws {
            let scratch = try Scratch()
            hasKeys = keys
            if keys { try CoordinatorKeys.make(path: scratch.path("farm.keys")) }
            let input = try scratch.picture("in.png", width: 60, height: 60),
                options = RenderingTests.tiling(steps: steps)
            // What `finish` compares with, before strangers take the processor for themselves.
            _ = try RenderingTests.render(input, in: scratch, options)
            begun = .now
            bound = try BoundFarm(scratch, input, options, more: keys ? ["--keys", scratch.path("farm.keys")] : [])
        }

        var program: RunningProgram { bound.program }
        var endpoint: Endpoint { get throws { try Endpoint(bound.endpoint) } }
        var port: UInt16 { bound.endpoint.split(separator: ":").last.flatMap { UInt16($0) } ?? 0 }

        func path(_ name: String) -> String { bound.scratch.path(name) }

        /// A worker's keys, on the list.
        func keys(_ name: String) throws -> String {
            let path = path("\(name).keys")
            if !FileManager.default.fileExists(atPath: path) {
                try WorkerKeys.make(path: path, name: name, for: self.path("farm.keys"))
            }
            return path
        }

        /// Starts a worker; the job is short, so the next one does not wait until it has joined.
        func worker(_ name: String) throws -> RunningProgram {
            try bound.worker(name, keys: hasKeys ? keys(name) : nil, awaitJoin: false)
        }

        /// Lets good workers finish the job, and holds it against what it should be.
        func finish(_ first: RunningProgram, _ second: RunningProgram) throws {
            try bound.expectSameBytes()
            let minutes = Int((ContinuousClock.now - begun) / .seconds(60))
            bound.dismiss(first, second)
            // One line for a source at once, one a minute, and one at the end of the job.
            let lines = program.standardError.split(separator: "\n").filter { $0.contains("stranger refused") }
            for (source, lines) in Dictionary(grouping: lines, by: { $0.components(separatedBy: "source=").last ?? "" })
            {
                #expect(lines.count <= 2 + minutes, "\(source): \(lines)")
            }
        }
    }

    /// A connection without ZeroMQ, for as long as somebody holds it; no wait on it is longer than ten seconds.
    final class RawPeer {
        private let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)

        /// Nil when nobody listens at this port of the machine.
        init?(_ port: UInt16) {
            var limit = timeval(tv_sec: 10, tv_usec: 0)
            for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
                setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
            }
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            let connected = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            guard connected == 0 else { return nil }
        }

        deinit { close(descriptor) }

        /// False when not all of it was taken.
        func say(_ bytes: [UInt8]) -> Bool { send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count }

        func hear(_ count: Int) {
            var bytes = [UInt8](repeating: 0, count: count)
            recv(descriptor, &bytes, count, Int32(MSG_WAITALL))
        }

        /// Greeting and READY of ZMTP 3.0 without keys, as a DEALER.
        static let greeting: [UInt8] = {
            let bytes: [UInt8] = [0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 3, 0] + Array("NULL".utf8)
            let ready: [UInt8] =
                [5] + Array("READY".utf8) + [11] + Array("Socket-Type".utf8) + [0, 0, 0, 6] + Array("DEALER".utf8)
            return bytes + [UInt8](repeating: 0, count: 64 - bytes.count) + [4, UInt8(ready.count)] + ready
        }()
    }

    /// Runs until it is told to end, over and over.
    final class Nuisance: Sendable {
        private let thread: OSThread
        private let over: Over
        private final class Over: Sendable { let isOver = Atomic(false) }

        init(_ body: @escaping @Sendable () -> Void) throws {
            let over = Over()
            self.over = over
            thread = try OSThread(name: "stranger") { while !over.isOver.load(ordering: .relaxed) { body() } }
        }

        static func end(_ all: [Nuisance]) {
            for nuisance in all { nuisance.over.isOver.store(true, ordering: .relaxed) }
            for nuisance in all { nuisance.thread.join() }
        }
    }

    @Test(
        """
        wrong, unlisted and missing keys, HTTP, random bytes and connections held open change nothing at a farm with \
        keys
        """
    )
    func withKeys() throws {
        let farm = try Farm(keys: true)
        // Keys for another coordinator, and the right coordinator's with a key that is not on its list.
        try CoordinatorKeys.make(path: farm.path("other.keys"))
        try WorkerKeys.make(path: farm.path("wrong.keys"), name: "n1", for: farm.path("other.keys"))
        let coordinator = try CoordinatorKeys(path: farm.path("farm.keys")).pair.publicKey
        let text = try String(contentsOfFile: farm.path("wrong.keys"), encoding: .utf8).split(separator: "\n")
        let unlisted = text.map { $0.hasPrefix("coordinator") ? "coordinator \(coordinator)" : String($0) }.joined(
            separator: "\n")
        try unlisted.write(toFile: farm.path("unlisted.keys"), atomically: false, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: farm.path("unlisted.keys"))

        func stranger(_ arguments: [String]) throws -> RunningProgram {
            try RunningProgram(
                "tilefarm-worker", ["--connect", farm.bound.endpoint, "--echo", "--lanes", "1"] + arguments)
        }
        let refused = [
            try stranger(["--keys", farm.path("wrong.keys")]), try stranger(["--keys", farm.path("unlisted.keys")]),
            try stranger(["--name", "n1"]),
        ]
        for worker in refused { #expect(worker.waitForError(seconds: 30) { $0.contains("not let in") }) }
        #expect(
            refused[1].waitForError(seconds: 30) { $0.contains("allow-list does not have this worker's key") },
            "\(refused[1].standardError)")
        let port = farm.port
        let held = (0..<200).map { _ in RawPeer(port) }
        defer { withExtendedLifetime(held) {} }
        let nuisances = [
            try Nuisance {
                _ = RawPeer(port)?.say(Array("GET / HTTP/1.1\r\nHost: farm\r\n\r\n".utf8))
                usleep(2000)
            },
            try Nuisance {
                _ = RawPeer(port)?.say((0..<3000).map { _ in UInt8.random(in: 0...255) })
                usleep(2000)
            },
            try Nuisance {
                // A greeting as it should be, a byte at a time, and then nothing that follows.
                let peer = RawPeer(port)
                for byte in RawPeer.greeting where peer?.say([byte]) != true { break }
                usleep(2000)
                withExtendedLifetime(peer) {}
            },
        ]
        defer { Nuisance.end(nuisances) }
        let (first, second) = (try farm.worker("n1"), try farm.worker("n2"))
        // Who has a key cannot choose another's name.
        let pretender = try DealerSocket(
            SocketContext(), connect: farm.endpoint, keys: WorkerKeys(path: farm.keys("n3")))
        let hello = Hello(
            session: 1, name: "n1", host: "h", lanes: 1, kernels: "avx512", memoryBytes: 0, credit: 1, blobBytes: 0)
        try pretender.deliver(WorkerMessage.hello(hello).frames())
        let preparation = try pretender.next { if case .prepare(let preparation) = $0 { preparation } else { nil } }
        try pretender.deliver(
            WorkerMessage.ready(model: preparation.manifest.digest, preparation.precision).frames())
        #expect(farm.program.waitForError { $0.contains("worker joined worker=n3") }, "\(farm.program.standardError)")
        try pretender.deliver(WorkerMessage.leaving(reason: "enough").frames())
        try farm.finish(first, second)
        farm.bound.dismiss(refused[0], refused[1], refused[2])
        let key = try WorkerKeys(path: farm.path("unlisted.keys")).pair.publicKey
        #expect(farm.program.standardError.contains("\(key)"), "\(farm.program.standardError)")
        #expect(!farm.program.standardError.contains("worker=n1#"))
    }

    @Test(
        """
        floods of hellos and garbage, a message without an end, and results of nobody's tasks change nothing at an \
        open farm
        """
    )
    func withoutKeys() throws {
        let farm = try Farm(keys: false)
        let (first, second) = (try farm.worker("n1"), try farm.worker("n2"))
        try #require(
            farm.program.waitForError { $0.contains("worker=n1") && $0.contains("worker=n2") },
            "\(farm.program.standardError)")
        let before = farm.program.peakMemory
        let job = try #require(
            UInt64(
                farm.program.standardError.components(separatedBy: "job=").dropFirst().first?.prefix { $0.isNumber }
                    ?? ""))
        let (endpoint, port) = (try farm.endpoint, farm.port)
        /// Says the messages that `make` makes, as fast as they are taken, over a connection that is made anew when it
        /// is cut.
        func flood(_ make: @escaping @Sendable () throws -> [Frame]) throws -> Nuisance {
            let context = try SocketContext()
            return try Nuisance {
                guard let dealer = try? DealerSocket(context, connect: endpoint, lingerMilliseconds: 0) else { return }
                for _ in 0..<300 {
                    guard let frames = try? make(), let sent = try? dealer.send(frames) else { return }
                    if !sent { _ = try? dealer.wait(nil, milliseconds: 10, writable: true) }
                    while (try? dealer.receive()) ?? nil != nil {}
                }
            }
        }
        let nuisances = [
            try flood {
                try WorkerMessage.hello(
                    Hello(
                        session: .random(in: 0 ... .max), name: "n1", host: "h", lanes: 1, kernels: "avx512",
                        memoryBytes: 0, credit: 1, blobBytes: 0)
                ).frames()
            },
            try flood { [Frame(copying: (0..<100).map { _ in UInt8.random(in: 0...255) })] },
            try flood {
                try WorkerMessage.result(
                    TaskResult(
                        task: TaskID(job: job, pass: .random(in: 0..<12), tile: .random(in: 0..<16), attempt: 0),
                        seconds: 0.1, outputs: [Frame(floats: [Float](repeating: .nan, count: 48 * 48 * 3))],
                        checksums: [0])
                ).frames()
            },
            // A version that was.
            try flood { [Frame(copying: [0x08, 0x01, 0x52, 0x00] as [UInt8])] },
            try Nuisance {
                // A part, and more to come, and more to come.
                guard let peer = RawPeer(port), peer.say(RawPeer.greeting) else { return }
                peer.hear(107)
                let part: [UInt8] = [3, 0, 0, 0, 0, 0, 0, 0xC0, 0] + [UInt8](repeating: 0, count: 0xC000)
                var sent = 0
                while sent < 1 << 30, peer.say(part) { sent += part.count }
            },
        ]
        defer { Nuisance.end(nuisances) }
        var peak = before
        let deadline = ContinuousClock.now + .seconds(120)
        while farm.program.process.isRunning {
            guard ContinuousClock.now < deadline else { throw Late() }
            peak = max(peak, farm.program.peakMemory)
            usleep(20_000)
        }
        try farm.finish(first, second)
        #expect(peak > 0 && peak < before + (160 << 20), "\(before >> 20) MiB before, \(peak >> 20) MiB at most")
        #expect(farm.program.standardError.contains("stranger refused"))
    }

    @Test(
        """
        a coordinator that is killed and started again at its port gets its workers back by themselves, with their keys
        """
    )
    func restart() throws {
        let farm = try Farm(keys: true, steps: 60), bound = farm.bound
        let (first, second) = (try farm.worker("n1"), try farm.worker("n2"))
        try #require(
            farm.program.waitForError { $0.contains("worker=n1") && $0.contains("worker=n2") },
            "\(farm.program.standardError)")
        farm.program.killAndWait()
        let again = try RunningProgram(
            "tilefarm",
            ["upscale", bound.input, "-o", bound.output, "--bind", bound.endpoint, "--keys", farm.path("farm.keys")]
                + bound.options)
        #expect(again.waitForError { $0.contains("worker=n1") && $0.contains("worker=n2") }, "\(again.standardError)")
        #expect(again.waitForExit() == 0, "\(again.standardError)")
        #expect(
            try bound.scratch.bytes(bound.output)
                == RenderingTests.render(bound.input, in: bound.scratch, bound.options))
        bound.dismiss(first, second)
    }

    @Test("keygen makes what the programs take, a second process with a worker's keys has its name and a number")
    func keygen() throws {
        let scratch = try Scratch()
        func keygen(_ arguments: [String]) throws {
            let program = try RunningProgram("tilefarm", ["keygen"] + arguments)
            #expect(program.waitForExit(seconds: 30) == 0, "\(program.standardError)")
        }
        try keygen([scratch.path("farm.keys")])
        try keygen([scratch.path("n1.keys"), "--for", scratch.path("farm.keys")])
        let input = try scratch.picture("in.png", width: 40, height: 40)
        let farm = try BoundFarm(
            scratch, input, RenderingTests.tiling(steps: 60), more: ["--keys", scratch.path("farm.keys")])
        let workers = try (0..<2).map { _ in try farm.worker("n1", keys: scratch.path("n1.keys"), awaitJoin: false) }
        #expect(
            farm.program.waitForError {
                $0.contains("worker joined worker=n1 ") && $0.contains("worker joined worker=n1#")
            },
            "\(farm.program.standardError)")
        #expect(farm.program.waitForExit() == 0, "\(farm.program.standardError)")
        farm.dismiss(workers[0], workers[1])
    }
}
