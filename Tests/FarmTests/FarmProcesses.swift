import Engine
import Foundation
import Testing

extension Trait where Self == ConditionTrait {
    /// Takes long: `make soak` alone runs it, which finds it by "Soak" in its name.
    static var soak: Self {
        .enabled(if: ProcessInfo.processInfo.environment["TILEFARM_SOAK"] != nil, "make soak runs it")
    }
}

/// The programs under test, as a user starts them.
enum Program {
    /// Beside the test bundle: the build's folder of products.
    static let folder: URL = {
        let bundle = Bundle.allBundles.map(\.bundleURL).first { $0.pathExtension == "xctest" }
        return (bundle ?? Bundle.main.executableURL ?? URL(filePath: CommandLine.arguments[0]))
            .deletingLastPathComponent()
    }()

    static func url(_ name: String) -> URL { folder.appending(path: name) }
}

/// A running program whose output is collected; killed when the test is through with it.
final class RunningProgram {
    let process = Process()
    private let output = Collector()
    private let errors = Collector()

    /// - Parameters:
    ///   - fileKiB: the largest file that the program may write, as if the disk were full behind it.
    ///   - host: where it runs; nil: on this machine.
    ///   - directory: where relative paths start.
    init(
        _ name: String, _ arguments: [String], fileKiB: Int? = nil, on host: TestNetwork.Host? = nil,
        directory: URL? = nil
    ) throws {
        if let directory { process.currentDirectoryURL = directory }
        if let host {
            // It becomes the program, so that signals reach that.
            process.executableURL = host.ip
            process.arguments = ["netns", "exec", host.namespace, Program.url(name).path] + arguments
        } else if let fileKiB {
            process.executableURL = URL(filePath: "/bin/bash")
            process.arguments =
                ["-c", "ulimit -f \(fileKiB) && exec \"$0\" \"$@\"", Program.url(name).path] + arguments
        } else {
            process.executableURL = Program.url(name)
            process.arguments = arguments
        }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output.pipe
        process.standardError = errors.pipe
        try process.run()
        output.start()
        errors.start()
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    /// The text that was written until now.
    var standardError: String { errors.wait(until: .distantPast) { _ in false }.text }
    var standardOutput: String { output.wait(until: .distantPast) { _ in false }.text }

    /// Waits until `condition` holds for what was written to standard error; false when the program ended or the time
    /// passed first.
    @discardableResult
    func waitForError(seconds: Double = 60, _ condition: (String) -> Bool) -> Bool {
        condition(errors.wait(until: Date(timeIntervalSinceNow: seconds), condition).text)
    }

    /// Waits for the end; a program that does not end in time is killed and reported as 255.
    @discardableResult
    func waitForExit(seconds: Double = 120) -> Int32 {
        let deadline = Date(timeIntervalSinceNow: seconds)
        guard errors.wait(until: deadline, { _ in false }).ended, output.wait(until: deadline, { _ in false }).ended
        else {
            kill(process.processIdentifier, SIGKILL)
            return 255
        }
        process.waitUntilExit()
        return process.terminationReason == .exit ? process.terminationStatus : 128 + process.terminationStatus
    }

    /// Bytes that it had in memory at most, so far.
    var peakMemory: Int {
        let status = (try? String(contentsOfFile: "/proc/\(process.processIdentifier)/status", encoding: .utf8)) ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
        return (line?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) << 10
    }

    func signal(_ number: Int32) { kill(process.processIdentifier, number) }

    /// Kills it and waits for its end alone: what it has started may live for longer, and hold its output open.
    func killAndWait() {
        signal(SIGKILL)
        process.waitUntilExit()
    }

    /// Reads a pipe on a thread of its own until the program and its children have closed it.
    private final class Collector: @unchecked Sendable {
        let pipe = Pipe()
        private let condition = NSCondition()
        private var text = ""
        private var ended = false

        func start() {
            let handle = pipe.fileHandleForReading
            Thread.detachNewThread { [self] in
                while true {
                    let data = handle.availableData
                    condition.withLock {
                        if data.isEmpty { ended = true } else { text += String(decoding: data, as: UTF8.self) }
                        condition.broadcast()
                    }
                    if data.isEmpty { return }
                }
            }
        }

        /// Waits until `enough` holds for the text, the pipe is closed, or the time has passed.
        func wait(until deadline: Date, _ enough: (String) -> Bool) -> (text: String, ended: Bool) {
            condition.lock()
            defer { condition.unlock() }
            while !ended, !enough(text), condition.wait(until: deadline) {}
            return (text, ended)
        }
    }
}

/// A coordinator that waits for workers at a port of this machine, and the workers that it gets.
final class BoundFarm {
    let scratch: Scratch
    let input, output: String
    let options: [String]
    let program: RunningProgram
    /// With the port that it has taken.
    let endpoint: String

    /// Starts an upscale and returns when it waits for workers.
    /// - Parameters:
    ///   - options: what the picture depends on.
    ///   - more: what it does not: keys, the job's folder.
    convenience init(_ scratch: Scratch, _ input: String, _ options: [String], more: [String] = []) throws {
        let output = scratch.path("out.png")
        try self.init(
            scratch, ["upscale", input, "-o", output] + options + more, input: input, output: output, options: options)
    }

    private init(_ scratch: Scratch, _ command: [String], input: String, output: String, options: [String]) throws {
        (self.scratch, self.input, self.output, self.options) = (scratch, input, output, options)
        program = try RunningProgram("tilefarm", command + ["--bind", "tcp://127.0.0.1:*"])
        let words = /waiting for workers endpoint=(\S+)\n/
        program.waitForError { $0.contains(words) }
        endpoint = String(
            try #require(program.standardError.firstMatch(of: words), "\(program.standardError)").output.1)
    }

    /// Another coordinator, which goes on with the job that this one kept in a folder.
    func resume(_ folder: String) throws -> BoundFarm {
        try BoundFarm(scratch, ["resume", folder], input: input, output: output, options: options)
    }

    /// Starts a worker.
    /// - Parameters:
    ///   - keys: a file of keys for this name.
    ///   - awaitJoin: whether to return when it has joined, and not at once.
    func worker(_ name: String, lanes: Int = 1, keys: String? = nil, awaitJoin: Bool = true) throws -> RunningProgram {
        let identity = keys.map { ["--keys", $0] } ?? ["--name", name]
        let worker = try RunningProgram(
            "tilefarm-worker",
            ["--connect", endpoint, "--lanes", "\(lanes)", "--cache", scratch.path("cache")] + identity)
        if awaitJoin {
            try #require(
                program.waitForError { $0.contains("worker joined worker=\(name) ") },
                "\(program.standardError)\(worker.standardError)")
        }
        return worker
    }

    /// Waits for the end and compares the picture with that of one local worker, undisturbed.
    func expectSameBytes(seconds: Double = 120) throws {
        #expect(program.waitForExit(seconds: seconds) == 0, "\(program.standardError)")
        #expect(try scratch.bytes(output) == RenderingTests.render(input, in: scratch, options))
    }

    /// Ends workers as a supervisor does.
    func dismiss(_ workers: RunningProgram...) {
        for worker in workers { worker.signal(SIGTERM) }
        for worker in workers { #expect(worker.waitForExit(seconds: 20) == 0, "\(worker.standardError)") }
    }
}

/// A folder for one test's files.
final class Scratch {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appending(path: "tilefarm-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func path(_ name: String) -> String { url.appending(path: name).path }

    /// A picture with edges, gradients and texture.
    func picture(_ name: String, width: Int, height: Int, bitDepth: Int = 8, grey: Bool = false, alpha: Bool = false)
        throws -> String
    {
        let path = path(name)
        let writer = try PNGWriter(
            path: path, width: width, height: height, bitDepth: bitDepth, grey: grey, alpha: alpha)
        for y in 0..<height {
            var rgb: [Float] = []
            var opacity: [Float] = []
            for x in 0..<width {
                let disc: Float =
                    (x - width / 2) * (x - width / 2) + (y - height / 2) * (y - height / 2) < width * height / 9
                    ? 0.7 : 0.2
                let stripes: Float = (x / 3 + y / 5) % 2 == 0 ? 0.15 : 0
                rgb += [disc + stripes, Float(x) / Float(width), disc * Float(y) / Float(height) + stripes]
                opacity.append(Float(x + y) / Float(width + height))
            }
            if !alpha { opacity = [] }
            try writer.writeRow(rgb: rgb.span, alpha: opacity.span)
        }
        try writer.finish()
        return path
    }

    func bytes(_ path: String) throws -> Data { try Data(contentsOf: URL(filePath: path)) }
}

/// A TCP port of the loopback that was free a moment ago.
func freePort() throws -> Int {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let bound = withUnsafeMutablePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
        }
    }
    try #require(bound)
    return Int(UInt16(bigEndian: address.sin_port))
}
