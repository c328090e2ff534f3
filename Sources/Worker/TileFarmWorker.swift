import ArgumentParser
import Engine
import Foundation
import Logging
import Protocol

struct TileFarmWorker: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tilefarm-worker",
        abstract: "Computes tiles for a tilefarm coordinator until it is told to stop.",
        discussion: """
            Start it before or after the coordinator, on any machine that reaches it. It fetches the model that a job \
            needs, finishes what it is at when it gets SIGTERM or SIGINT, and waits for the next job when one is over.
            """,
        version: Version.number)

    @Option(help: ArgumentHelp("The coordinator.", valueName: "tcp://host:port"))
    var connect: String

    @Option(help: "Tiles computed at the same time. (default: the number of cores)")
    var lanes: Int?

    @Option(
        help: """
            What the coordinator's log calls this worker; with --keys, what its allow-list says. \
            (default: host and process number)
            """
    )
    var name: String?

    @Option(
        help: ArgumentHelp(
            "This worker's keys, made with `tilefarm keygen`: for a coordinator that has keys too.", valueName: "file"))
    var keys: String?

    @Option(
        help: ArgumentHelp(
            "Where fetched models are kept. (default: \(ModelStore.defaultFolder.path))", valueName: "folder"))
    var cache: String?

    @Option(help: ArgumentHelp("Use this copy of the job's model instead of fetching it.", valueName: "folder"))
    var model: String?

    @Option(help: "trace, debug, info, notice, warning, error or critical.")
    var logLevel: Logger.Level = .info

    @Option(help: "The log's format.")
    var logFormat = FarmLogHandler.Format.logfmt

    /// The number of the process that starts it, which may be gone before it could ask for it.
    @Option(help: .hidden)
    var exitWithParent: Int32?

    /// Answers with zeros at once, to measure the coordinator.
    @Flag(help: .hidden)
    var echo = false

    /// Seconds that every answer of `echo` takes, without using the processor.
    @Option(help: .hidden)
    var echoSeconds = 0.0

    /// With `echo`: so many workers in this process, each with its own connection.
    @Option(help: .hidden)
    var connections: Int?

    private static let laneRange = 1...WireLimits.lanes

    func validate() throws {
        _ = try endpoint()
        if let lanes, !Self.laneRange.contains(lanes) {
            throw ValidationError(
                "--lanes \(lanes) is not possible; give \(Self.laneRange.lowerBound) to \(Self.laneRange.upperBound)")
        }
        if let name, !Hello.isName(name) {
            throw ValidationError(
                "--name must be 1 to \(WireLimits.nameBytes) bytes of printable characters without blanks")
        }
        guard (0...3600).contains(echoSeconds) else {
            throw ValidationError("--echo-seconds \(echoSeconds): must be from 0 to 3600")
        }
        if let connections, !(1...3000).contains(connections) || !echo {
            throw ValidationError("--connections takes 1 to 3000, with --echo")
        }
        if connections != nil && echoSeconds > 0 {
            throw ValidationError("--connections and --echo-seconds exclude each other; many workers answer at once")
        }
        if name != nil && keys != nil {
            throw ValidationError("--name and --keys exclude each other; with keys the name is the allow-list's")
        }
        if model != nil && cache != nil {
            throw ValidationError("--model and --cache exclude each other; give one of them")
        }
    }

    private func endpoint() throws -> Endpoint {
        do {
            let endpoint = try Endpoint(connect)
            guard endpoint.isConnectable else {
                throw SocketError.badEndpoint(connect, reason: "a worker needs one host and one port")
            }
            return endpoint
        } catch {
            throw ValidationError("--connect: \(error)")
        }
    }

    func run() throws {
        let logger = Logger(label: "tilefarm-worker") { [logFormat, logLevel] label in
            var handler = FarmLogHandler(label: label, format: logFormat)
            handler.logLevel = logLevel
            return handler
        }

        var settings = WorkerSettings(
            endpoint: try endpoint(),
            name: name ?? Self.defaultName,
            lanes: lanes ?? min(Machine.cores, WireLimits.lanes),
            kernels: try KernelEnvironment.kernels(),
            model: source)
        settings.parent = exitWithParent
        settings.words = Wording.words(for:)
        settings.handshakeWords = Wording.words(for:keys:)

        do { settings.keys = try keys.map { try WorkerKeys(path: $0) } } catch {
            throw ValidationError("--keys: \(Wording.words(for: error))")
        }
        if let keys = settings.keys { settings.name = keys.name }

        if let connections {
            try TerminationSignals.watch { _, _ in _exit(0) }
            return try Self.end(EchoSwarm(connections: connections, settings: settings, logger: logger).run())
        }

        let link = try FarmLink(settings, logger: logger)
        try TerminationSignals.watch { signal, count in
            guard count == 1 else { _exit(130) }
            link.drain(reason: signal)
        }
        try Self.end(link.run())
    }

    /// Throws an ending that ends the process with another code than 0.
    private static func end(_ ending: WorkerEnding?) throws {
        switch ending {
        case .refused(let reason), .failed(let reason): throw Failure(description: reason)
        case .drained, .stopped, nil: break
        }
    }

    private var source: ModelSource {
        if echo || echoSeconds > 0 { return .loaded(Echo(seconds: echoSeconds)) }
        if let model { return .folder(URL(filePath: model), load: ModelSource.load) }
        return .store(
            ModelStore(folder: cache.map { URL(filePath: $0) } ?? ModelStore.defaultFolder), load: ModelSource.load)
    }

    private static var defaultName: String { "\(Machine.name.prefix(64))-\(getpid())" }

    struct Failure: Error, CustomStringConvertible {
        var description: String
    }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}
extension FarmLogHandler.Format: ExpressibleByArgument {}

@main
enum Main {
    static func main() {
        // OpenBLAS chooses its kernels when it is loaded, which is before this line: a better choice needs a new start.
        KernelEnvironment.reexecIfNeeded()
        TerminationSignals.block()
        run()
    }

    private static func run() {
        do {
            try TileFarmWorker.parse().run()
        } catch {
            switch TileFarmWorker.exitCode(for: error) {
            case .success:
                TileFarmWorker.exit(withError: error)
            case .validationFailure:
                complain(TileFarmWorker.message(for: error), code: 2)
            default:
                complain("\(error)", code: 1)
            }
        }
    }

    private static func complain(_ message: String, code: Int32) -> Never {
        let line = message.split(separator: "\n").joined(separator: " ")
        try? FileHandle.standardError.write(contentsOf: Data("tilefarm-worker: \(line)\n".utf8))
        exit(code)
    }
}
