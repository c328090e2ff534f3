import Engine
import Foundation
import Logging
import Protocol
import ServiceLifecycle
import Synchronization

/// A job from its options to its output.
struct RenderJob {
    let options: UpscaleOptions
    let output: OutputOptions
    let farm: FarmOptions
    var folder: JobFolder?
    /// Of a job that is resumed.
    var description: JobFolder.Description?
    /// The arguments of a job that is new in its folder.
    var typed: [String] = []

    /// What a job is made of.
    struct Parts {
        let reader: PNGReader
        let model: ModelFolder
        let plan: RenderPlan
        let keys: CoordinatorKeys?
    }

    /// What needs no rendering to be seen to be wrong.
    func check() throws -> Parts {
        guard
            URL(filePath: options.input).resolvingSymlinksInPath()
                != URL(filePath: output.output).resolvingSymlinksInPath()
        else {
            throw CommandError.inputIsOutput(output.output)
        }
        if let deepzoom = output.deepzoom, Self.path(output.output, liesIn: deepzoom) {
            throw CommandError.outputInPyramid(output.output)
        }
        if let job = output.job {
            for (option, path) in [
                ("the input", options.input), ("-o", output.output), ("--deepzoom", output.deepzoom),
            ] {
                if let path, JobFolder.claims(path, in: job) {
                    throw JobFolderError.claimed(path: path, option: option)
                }
            }
        }
        return try parts(input: options.input)
    }

    /// Of a job whose options have been checked.
    func parts(input: String) throws -> Parts {
        let reader = try InputImage.reader(input), model = try modelFolder(options.model)
        return Parts(
            reader: reader, model: model,
            plan: try options.plan(model, inputHeight: reader.height, inputWidth: reader.width),
            keys: try farm.door.readKeys())
    }

    private static func path(_ path: String, liesIn folder: String) -> Bool {
        let (parts, outer) = (
            URL(filePath: path).standardizedFileURL.pathComponents,
            URL(filePath: folder).standardizedFileURL.pathComponents
        )
        return parts.starts(with: outer)
    }

    func run(_ parts: Parts, _ logger: Logger) async throws {
        let (reader, model) = (parts.reader, parts.model)
        var plan = parts.plan
        plan.hasBarrier = farm.barrier
        plan.element = output.storage
        let cores = ProcessInfo.processInfo.activeProcessorCount
        let machine = Int(clamping: ProcessInfo.processInfo.physicalMemory)
        plan.memoryForTiles = machine / 4

        // Where the canvas lies.
        let stores = plan.stores(canvases: folder == nil ? 1 : 3)
        let kept = stores.reduce(InputImage.bytes(of: reader)) { $0 + $1.bytes }
        let outputFolder = URL(filePath: output.output).deletingLastPathComponent().path
        let storage: CanvasStorage =
            if let folder { .job(folder) } else if kept > output.memory?.bytes ?? machine / 2 {
                .unnamedFiles(folder: outputFolder)
            } else { .memory }
        let place = folder?.url.path ?? outputFolder
        if !storage.isMemory, description == nil, let free = PNGWriter.freeBytes(for: place + "/"), free < kept {
            throw CommandError.diskTooSmall(path: place, needed: kept, free: free)
        }
        let held =
            storage.isMemory
            ? kept : CanvasStorage.residentBytes(of: stores.map(\.bytes) + [InputImage.bytes(of: reader)])
        let needed = plan.coordinatorBytes(
            lanes: cores, kept: held + OutputImage.bytes(output.places, width: plan.outputWidth, format: reader.format))
        guard needed < machine else { throw CommandError.outputNeedsMemory(needed: needed, machine: machine) }

        let socketFolder = farm.bind == nil ? try PrivateSocketFolder() : nil
        defer { socketFolder?.remove() }
        let endpoint = try Endpoint(farm.bind ?? socketFolder?.endpoint ?? "")
        let stop = try StopRequest()
        let lanes = Self.lanes(workers: farm.workers ?? 1, cores: cores)
        let workerBytes = lanes.compactMap { plan.workerBytes(lanes: $0, machine: machine) }
        if farm.bind == nil, !workerBytes.isEmpty {
            let all = workerBytes.reduce(needed, +)
            guard all < machine else { throw CommandError.modelNeedsMemory(needed: all, machine: machine) }
        }
        let local =
            farm.bind != nil
            ? nil
            : try LocalWorkers(
                endpoint: endpoint.description, lanes: lanes,
                extraArguments: ["--model", model.url.path] + (farm.echo ? ["--echo"] : []), logger: logger
            ) { stop.stop(.failed(.localWorkers($0))) }

        try OutputImage.check(
            output.places, plan: plan, format: reader.format,
            kept: storage.isMemory || description != nil ? nil : (place, kept), logger: logger)
        let input = try InputImage(reading: reader, storage: storage)
        let server = try ModelServer(
            folder: model.url, manifest: .of(folder: model.url, files: model.files.map(\.name)))
        // Whatever can refuse the job has been asked: from here on it is one that can be resumed.
        let present = try begin(plan: plan, model: server)
        let job = present.job

        var leases = plan.leases
        leases.sendsCopies = farm.copies > 1
        (leases.othersMayCome, leases.identities) = (local == nil, local == nil ? 0 : lanes.count)

        var facts: Logger.Metadata = [
            "job": "\(job)", "input": "\(plan.inputWidth)x\(plan.inputHeight)",
            "output": "\(plan.outputWidth)x\(plan.outputHeight)",
            "steps": "\(plan.steps)", "tile": "\(plan.tiling.tile)", "seed": "\(plan.seed)",
            "model": "\(server.manifest.digest.hex.prefix(12))",
        ]
        if !storage.isMemory { facts["canvas"] = "\(PlanCommand.size(kept)) in \(place)" }
        if let checkpoint = folder?.checkpoint, plan.phases.indices.contains(checkpoint.phase) {
            facts["phase"] = "\(plan.phases[checkpoint.phase].name)"
            if case .denoise(let step) = plan.phases[checkpoint.phase] { facts["step"] = "\(step + 1)/\(plan.steps)" }
        }
        logger.info(description == nil ? "job started" : "job resumed", metadata: facts)
        let service = FarmService(
            configuration: Farm.Configuration(
                endpoint: endpoint, keys: parts.keys, plan: plan, input: input, stores: stores, storage: storage,
                checkpointSeconds: output.checkpointEvery?.value ?? 600, model: server, requiredKernels: farm.kernels,
                job: job,
                leases: leases, failedTile: output.output + ".failed-tile", onProgress: { local?.progressed() },
                onStuck: { local?.replace($0, heard: $1) }, onOver: { local?.jobIsOver() }),
            output: output.places, stop: stop, logger: logger)
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
        let summary: FarmSummary
        do { summary = try service.summary() } catch CommandError.cancelled(let done, let total) where folder != nil {
            throw CommandError.interrupted(done: done, of: total, folder: place)
        } catch CommandError.cancelledWriting where folder != nil {
            throw CommandError.interruptedWriting(folder: place)
        }
        do { try folder?.finish(present) } catch {
            logger.warning(
                "the job's folder could not be tidied: the output is there, the folder can be removed",
                metadata: ["reason": "\(error)"])
        }
        logger.info("job finished", metadata: Self.facts(of: summary, job: job, plan: plan, lanes: lanes.reduce(0, +)))
        print("\(output.output): \(plan.outputWidth)x\(plan.outputHeight)")
    }

    /// Writes down what the job is, or checks that it still is that.
    private func begin(plan: RenderPlan, model: ModelServer) throws -> JobFolder.Description {
        var present =
            description
            ?? JobFolder.Description(
                job: .random(in: 1...99_999), arguments: typed,
                workingDirectory: FileManager.default.currentDirectoryPath, inputDigest: "", modelDigest: "",
                planDigest: "")
        guard let folder else { return present }
        (present.inputDigest, present.modelDigest, present.planDigest) = (
            try ContentDigest(file: folder.path(JobFolder.inputName)).hex, model.manifest.digest.hex, plan.digest
        )
        guard let description else {
            try folder.write(present)
            return present
        }
        let path = folder.url.path
        guard present.inputDigest == description.inputDigest else {
            throw JobFolderError.changed(path: path, what: "its \(JobFolder.inputName) is")
        }
        guard present.modelDigest == description.modelDigest else {
            throw JobFolderError.changed(
                path: path, what: "the model \(options.model ?? "that comes with tilefarm") is")
        }
        guard present.planDigest == description.planDigest else {
            throw JobFolderError.changed(path: path, what: "what this version of tilefarm makes of its options is")
        }
        if let checkpoint = folder.checkpoint {
            guard plan.accepts(checkpoint, canvases: 3) else {
                throw JobFolderError.damaged(
                    path: path, reason: "its checkpoint is of another plan than its options make")
            }
            try folder.verify(checkpoint)
        }
        return present
    }

    /// The cores, shared out among the workers; each has one lane at least.
    static func lanes(workers: Int, cores: Int) -> [Int] {
        (0..<workers).map { max(1, cores / workers + ($0 < cores % workers ? 1 : 0)) }
    }

    private static func facts(of summary: FarmSummary, job: UInt64, plan: RenderPlan, lanes: Int) -> Logger.Metadata {
        func format(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
        let microseconds = 1e6 / Double(max(summary.tilesOfRun, 1))
        return [
            "job": "\(job)", "tiles": "\(summary.tiles)", "elapsed": "\(format(summary.elapsed, 3))s",
            "rate": "\(format(Double(summary.tilesOfRun) / max(summary.elapsed, 1e-9), 2))/s",
            "workers": "\(summary.workers)",
            "retried": "\(summary.repeats)", "copies": "\(summary.copies)", "dropped": "\(summary.dropped)",
            "bad": "\(summary.bad)",
            "compute": "\(format(summary.computeSeconds, 3))s", "sent": "\(summary.bytesSent)",
            "received": "\(summary.bytesReceived)",
            "cpu_per_tile": "\(format(summary.processorSeconds * microseconds, 1))us",
            "copy_per_tile": "\(format(summary.copySeconds * microseconds, 1))us",
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
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    }

    var endpoint: String { "ipc://\(path)/socket" }

    func remove() { try? FileManager.default.removeItem(atPath: path) }
}

/// The farm as a service: it runs on a thread of its own, because sockets belong to threads.
final class FarmService: Service {
    private let configuration: Farm.Configuration
    private let output: OutputPlaces
    private let stop: StopRequest
    private let logger: Logger
    private let outcome = Mutex<Result<FarmSummary, any Error>?>(nil)

    init(configuration: Farm.Configuration, output: OutputPlaces, stop: StopRequest, logger: Logger) {
        self.configuration = configuration
        self.output = output
        self.stop = stop
        self.logger = logger
    }

    /// Errors are kept for `summary()`: the group shall end gracefully, so that local workers are stopped, whatever
    /// happened.
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
        let checkpointer = configuration.storage.folder.flatMap { folder in
            configuration.checkpointSeconds.map {
                Checkpointer(folder: folder, interval: $0, logger: logger, now: Clock.now)
            }
        }
        var isFinished = false
        // What is being written is written or given up.
        defer { checkpointer?.close(isFinished: isFinished) }
        let context = try SocketContext()
        let (summary, picture) = try farmOut(context, checkpointer)
        try OutputImage.write(picture, to: output, stop: stop, logger: logger)
        isFinished = true
        return summary
    }

    /// The farm ends here, its socket with it: nobody reads while the output is written, and whoever comes finds the
    /// door closed.
    private func farmOut(_ context: SocketContext, _ checkpointer: Checkpointer?) throws -> (
        FarmSummary, FinishedPicture
    ) {
        let farm = try Farm(configuration, context: context, checkpointer: checkpointer, stop: stop, logger: logger)
        return (try farm.render(), farm.picture)
    }
}
