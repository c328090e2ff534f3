import ArgumentParser
import Engine
import Foundation
import Logging
import Protocol
import ServiceLifecycle
import Synchronization

struct UpscaleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "upscale", abstract: "Enlarge a picture on local workers, or on workers from anywhere (--bind).")

    @OptionGroup var options: UpscaleOptions

    @Option(name: .shortAndLong, help: "The enlarged picture, a PNG of the input's kind. Replaced only when the whole picture is there.")
    var output: String

    @Option(help: "Local worker processes to start; they share the cores. Default: one process that uses every core.")
    var workers: Int?

    @OptionGroup var door: DoorOptions
    private var bind: String? { door.bind }

    @Option(help: "Admit only workers with these kernels (avx512, avx2, baseline), whose bytes are the same.")
    var kernels: String?

    @Option(help: "The log's format.")
    var logFormat = FarmLogHandler.Format.logfmt

    @Flag(help: .hidden)
    var echo = false

    func validate() throws {
        if let workers {
            guard (1...256).contains(workers) else { throw ValidationError("--workers \(workers): must be from 1 to 256") }
            if bind != nil { throw ValidationError("--workers starts local workers and --bind waits for others: choose one") }
        }
        if let kernels, KernelSet(rawValue: String(kernels.prefix { $0 != " " })) == nil {
            throw ValidationError("--kernels \(kernels): must be one of \(KernelSet.allCases.map(\.rawValue).joined(separator: ", "))")
        }
    }

    func run() async throws {
        let logger = Logger(label: "tilefarm") { [logFormat] label in FarmLogHandler(label: label, format: logFormat) }
        let input = try InputImage(path: options.input)
        guard URL(filePath: options.input).resolvingSymlinksInPath() != URL(filePath: output).resolvingSymlinksInPath() else {
            throw CommandError.inputIsOutput(output)
        }
        let folder = try modelFolder(options.model)
        let plan = try options.plan(folder, inputHeight: input.image.height, inputWidth: input.image.width)
        let needed = plan.coordinatorBytes(lanes: ProcessInfo.processInfo.activeProcessorCount)
        let machine = Int(clamping: ProcessInfo.processInfo.physicalMemory)
        guard needed < machine else { throw CommandError.outputNeedsMemory(needed: needed, machine: machine) }
        try OutputImage.check(path: output, plan: plan, like: input, logger: logger)
        let keys = try door.readKeys()
        let model = try ModelServer(folder: folder.url, manifest: .of(folder: folder.url, files: folder.files.map(\.name)))

        let socketFolder = bind == nil ? try PrivateSocketFolder() : nil
        defer { socketFolder?.remove() }
        let endpoint = try Endpoint(bind ?? socketFolder?.endpoint ?? "")
        let stop = try StopRequest()
        let lanes = Self.lanes(workers: workers ?? 1, cores: ProcessInfo.processInfo.activeProcessorCount)
        let workerBytes = lanes.compactMap { plan.workerBytes(lanes: $0, machine: machine) }
        if bind == nil, !workerBytes.isEmpty {
            let all = workerBytes.reduce(plan.coordinatorBytes(lanes: lanes.reduce(0, +)), +)
            guard all < machine else { throw CommandError.modelNeedsMemory(needed: all, machine: machine) }
        }
        let local = bind != nil ? nil : try LocalWorkers(
            endpoint: endpoint.description, lanes: lanes, extraArguments: ["--model", folder.url.path] + (echo ? ["--echo"] : []), logger: logger
        ) { stop.stop(.failed(.localWorkers($0))) }

        let job = UInt64.random(in: 1...99_999)
        logger.info(
            "job started",
            metadata: [
                "job": "\(job)", "input": "\(plan.inputWidth)x\(plan.inputHeight)", "output": "\(plan.outputWidth)x\(plan.outputHeight)",
                "steps": "\(plan.steps)", "tile": "\(plan.tiling.tile)", "seed": "\(plan.seed)", "model": "\(model.manifest.digest.hex.prefix(12))",
            ])
        let service = FarmService(
            configuration: Farm.Configuration(
                endpoint: endpoint, keys: keys, plan: plan, input: input.image, model: model, requiredKernels: kernels, job: job,
                workersAreLocal: bind == nil, onProgress: { local?.progressed() }, onOver: { local?.jobIsOver() }),
            output: output, like: input, stop: stop, logger: logger)
        let services: [any Service] = (local.map { [$0] } ?? []) + [service]
        let group = ServiceGroup(
            configuration: .init(
                services: services.map { .init(service: $0, successTerminationBehavior: .gracefullyShutdownGroup) },
                logger: Logger(label: "services") { _ in SwiftLogNoOpLogHandler() }))
        try TerminationSignals.watch { name, count in
            if count > 1 {
                socketFolder?.remove()
                _exit(130)
            }
            logger.info("stopping", metadata: ["reason": "\(name)"])
            stop.stop(.cancelled)
        }
        try await group.run()
        let summary = try service.summary()
        logger.info("job finished", metadata: Self.facts(of: summary, job: job, plan: plan, lanes: lanes.reduce(0, +)))
        print("\(output): \(plan.outputWidth)x\(plan.outputHeight)")
    }

    /// The cores, shared out among the workers; each has one lane at least.
    static func lanes(workers: Int, cores: Int) -> [Int] {
        (0..<workers).map { max(1, cores / workers + ($0 < cores % workers ? 1 : 0)) }
    }

    private static func facts(of summary: FarmSummary, job: UInt64, plan: RenderPlan, lanes: Int) -> Logger.Metadata {
        func format(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
        let microseconds = 1e6 / Double(max(summary.tiles, 1))
        return [
            "job": "\(job)", "tiles": "\(summary.tiles)", "elapsed": "\(format(summary.elapsed, 3))s",
            "rate": "\(format(Double(summary.tiles) / max(summary.elapsed, 1e-9), 2))/s", "workers": "\(summary.workers)",
            "retried": "\(summary.repeats)", "dropped": "\(summary.dropped)",
            "compute": "\(format(summary.computeSeconds, 3))s", "sent": "\(summary.bytesSent)", "received": "\(summary.bytesReceived)",
            "cpu_per_tile": "\(format(summary.processorSeconds * microseconds, 1))us", "copy_per_tile": "\(format(summary.copySeconds * microseconds, 1))us",
            "peak_memory": "\(ProcessUsage.peakMemoryBytes >> 20)MiB",
        ]
    }
}

/// A folder that only this user can enter, for the socket of local workers.
struct PrivateSocketFolder {
    let path: String

    init() throws {
        // A socket's path is at most 107 bytes long, so a long TMPDIR will not do.
        path = "/tmp/tilefarm-\(getpid())-\(UInt32.random(in: 0...(.max)))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    }

    var endpoint: String { "ipc://\(path)/socket" }

    func remove() { try? FileManager.default.removeItem(atPath: path) }
}

/// The farm as a service: it runs on a thread of its own, because sockets belong to threads.
final class FarmService: Service {
    private let configuration: Farm.Configuration
    private let output: String
    private let like: InputImage
    private let stop: StopRequest
    private let logger: Logger
    private let outcome = Mutex<Result<FarmSummary, any Error>?>(nil)

    init(configuration: Farm.Configuration, output: String, like: InputImage, stop: StopRequest, logger: Logger) {
        self.configuration = configuration
        self.output = output
        self.like = like
        self.stop = stop
        self.logger = logger
    }

    /// Errors are kept for `summary()`: the group shall end gracefully, so that local workers are stopped, whatever happened.
    func run() async throws {
        await withGracefulShutdownHandler {
            await withCheckedContinuation { continuation in
                let work: @Sendable () -> Void = { [self] in
                    let result = Result { try render() }
                    outcome.withLock { $0 = result }
                    continuation.resume()
                }
                do { _ = try OSThread(name: "farm", work) } catch {
                    outcome.withLock { $0 = .failure(error) }
                    continuation.resume()
                }
            }
        } onGracefulShutdown: { [stop] in
            stop.stop(.cancelled)
        }
    }

    func summary() throws -> FarmSummary {
        guard let outcome = outcome.withLock({ $0 }) else { throw CommandError.cancelled(done: 0, of: 0) }
        return try outcome.get()
    }

    private func render() throws -> FarmSummary {
        let farm = try Farm(configuration, stop: stop, logger: logger)
        let summary = try farm.render()
        try OutputImage.write(path: output, plan: configuration.plan, like: like, stop: stop) { try farm.finishedRows($0) }
        return summary
    }
}
