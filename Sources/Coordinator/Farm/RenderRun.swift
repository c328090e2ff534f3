import Engine
import Foundation
import Logging
import Protocol

/// A request from its plan to its output, on a farm that serves it alone.
package struct RenderRun {
    let request: RenderRequest
    let settings: FarmSettings
    let words: Farm.FarmWords
    /// The methods and samplers that the request may name.
    package var methods = MethodTable.standard
    package var samplers = SamplerTable.standard
    /// Whether SIGINT and SIGTERM end it: they belong to one run of a process.
    package var endsAtSignals = true
    /// Where the job is kept; nil for one that cannot be resumed.
    var folder: JobFolder?
    /// The folder's description of a job that is resumed.
    var description: JobFolder.Description?

    package init(request: RenderRequest, settings: FarmSettings, words: Farm.FarmWords) {
        self.request = request
        self.settings = settings
        self.words = words
    }

    /// The parts of a job.
    package struct Parts {
        let reader: PNGReader
        let model: ModelFolder
        let plan: JobPlan
        let keys: CoordinatorKeys?
    }

    /// Looks at what needs no rendering to be seen to be wrong.
    /// - Parameter jobFolder: where the job is going to be kept
    package func check(jobFolder: String?) throws -> Parts {
        let (input, output) = (URL(filePath: request.input), request.output)
        let target = URL(filePath: followingLinks(output.png) ?? output.png)
        guard input.resolvingSymlinksInPath() != target.resolvingSymlinksInPath() else {
            throw RunError.inputIsOutput(output.png)
        }
        if let pyramid = output.deepZoom, Self.path(output.png, liesIn: pyramid) {
            throw RunError.outputInPyramid(output.png)
        }
        if let jobFolder {
            let paths: [(RequestPath, String?)] = [
                (.input, request.input), (.output, output.png), (.pyramid, output.deepZoom),
            ]
            for (kind, path) in paths {
                if let path, JobFolder.claims(path, in: jobFolder) {
                    throw JobFolderError.claimed(path: path, by: kind)
                }
            }
        }
        return try parts(input: request.input)
    }

    /// - Parameter input: the request's, or the job folder's copy of it
    func parts(input: String) throws -> Parts {
        let reader = try InputImage.reader(input)
        let model = try ModelFolder(url: request.model.map { URL(filePath: $0) } ?? DefaultModel.url)
        try model.checkWeights()
        let context = PlanContext(
            model: model, inputHeight: reader.height, inputWidth: reader.width, samplers: samplers)
        return Parts(
            reader: reader, model: model, plan: try methods.plan(request, context),
            keys: try settings.keys.map { try CoordinatorKeys(path: $0) })
    }

    /// Whether a file lies below a folder, as it is named or by the links that it is reached through.
    private static func path(_ path: String, liesIn folder: String) -> Bool {
        let outer = URL(filePath: folder)
        return [path, followingLinks(path) ?? path].map { URL(filePath: $0) }.contains { file in
            file.standardizedFileURL.pathComponents.starts(with: outer.standardizedFileURL.pathComponents)
                || file.deletingLastPathComponent().resolvingSymlinksInPath().pathComponents
                    .starts(with: outer.resolvingSymlinksInPath().pathComponents)
        }
    }

    /// - Throws: `RunError`, `JobFolderError`, `StorageError`, `SocketError` and what is wrong with the output.
    package func run(_ parts: Parts, _ logger: Logger) async throws {
        let (reader, model, plan) = (parts.reader, parts.model, parts.plan)
        let cores = ProcessInfo.processInfo.activeProcessorCount
        let machine = Int(clamping: ProcessInfo.processInfo.physicalMemory)
        let place = try self.place(of: plan, reader, machine: machine)
        let coordinatorBytes = try checkMemory(plan, reader, place, cores: cores, machine: machine)

        let socketFolder = settings.bind == nil ? try PrivateSocketFolder() : nil
        defer { socketFolder?.remove() }
        let endpoint = try Endpoint(settings.bind ?? socketFolder?.endpoint ?? "")
        let stop = try StopRequest()
        let lanes = Self.lanes(workers: settings.workers ?? 1, cores: cores)
        if settings.bind == nil {
            let all = lanes.compactMap { plan.workerBytes(lanes: $0, machine: machine) }.reduce(coordinatorBytes, +)
            guard all < machine else { throw RunError.modelNeedsMemory(needed: all, machine: machine) }
        }
        let local =
            settings.bind != nil
            ? nil
            : try LocalWorkers(
                endpoint: endpoint.description, lanes: lanes,
                extraArguments: ["--model", model.url.path] + (settings.echoes ? ["--echo"] : []), logger: logger
            ) { stop.stop(.failed($0)) }

        let isNew = !place.storage.isMemory && description == nil
        try OutputImage.check(
            request.output, plan: plan, format: reader.format, kept: isNew ? (place.path, place.bytes) : nil,
            logger: logger)
        let samples = try place.storage.values("input", .uint8, count: InputImage.bytes(of: reader))
        let input = try InputImage(reading: reader, into: samples)
        let server = try ModelServer(
            folder: model.url, manifest: .of(folder: model.url, files: model.files.map(\.name)))
        // Whatever can refuse the job has been asked: from here on it is one that can be resumed.
        let present = try begin(plan: plan, model: server)

        var leases = Scheduler.LeasePolicy(for: plan)
        leases.sendsCopies = settings.sendsCopies
        (leases.othersMayCome, leases.identities) = (local == nil, local == nil ? 0 : lanes.count)
        log(plan, present, server, place, logger)
        let service = FarmService(
            configuration: Farm.Configuration(
                endpoint: endpoint, keys: parts.keys, requiredKernels: settings.kernels, leases: leases,
                hasBarrier: settings.hasBarrier, memoryForTiles: machine / 4, words: words,
                onProgress: { local?.progressed() }, onStuck: { local?.replace($0, heard: $1) },
                onOver: { local?.jobIsOver() }),
            job: FarmService.JobSettings(
                id: present.job, plan: plan, input: input, storage: place.storage, model: server,
                checkpointSeconds: settings.checkpointSeconds ?? 600, output: request.output),
            stop: stop, logger: logger)
        if endsAtSignals {
            try TerminationSignals.watch { name, count in
                if count > 1 {
                    socketFolder?.remove()
                    _exit(130)
                }
                logger.info("stopping", metadata: ["reason": "\(name)"])
                stop.stop(.cancelled)
            }
        }
        local?.start()
        await service.run()
        local?.stop()
        let summary = try service.summary(folder: folder?.url.path)
        do { try folder?.finish(present) } catch {
            logger.warning(
                "the job's folder could not be tidied: the output is there, the folder can be removed",
                metadata: ["reason": "\(error)"])
        }
        logger.info("job finished", metadata: summary.facts(job: present.job))
        print("\(request.output.png): \(plan.picture.outputWidth)x\(plan.picture.outputHeight)")
    }

    // MARK: Memory and disk

    /// Where the planes lie, and what they and the input take there.
    private struct Place {
        var storage: PlaneStorage
        var path: String
        var bytes: Int
    }

    private func place(of plan: JobPlan, _ reader: PNGReader, machine: Int) throws -> Place {
        let bytes = InputImage.bytes(of: reader) + plan.arrayBytes(hasCheckpoints: folder != nil)
        let output = followingLinks(request.output.png) ?? request.output.png
        let outputFolder = URL(filePath: output).deletingLastPathComponent().path
        let storage: PlaneStorage =
            if let folder {
                .job(folder)
            } else if bytes > settings.memoryBytes ?? machine / 2 {
                .unnamedFiles(folder: outputFolder)
            } else {
                .memory
            }
        let path = folder?.url.path ?? outputFolder
        if !storage.isMemory, description == nil, let free = PNGWriter.freeBytes(for: path + "/"), free < bytes {
            throw RunError.diskTooSmall(path: path, needed: bytes, free: free)
        }
        return Place(storage: storage, path: path, bytes: bytes)
    }

    /// - Returns: what the coordinator is going to hold.
    private func checkMemory(
        _ plan: JobPlan, _ reader: PNGReader, _ place: Place, cores: Int, machine: Int
    ) throws -> Int {
        let files = plan.arrays(hasCheckpoints: folder != nil).flatMap { plane, count in
            Array(repeating: plan.pipeline.planes[plane].arrayBytes, count: count)
        }
        let held =
            place.storage.isMemory
            ? place.bytes : PlaneStorage.residentBytes(of: files + [InputImage.bytes(of: reader)])
        let writing = OutputImage.bytes(request.output, width: plan.picture.outputWidth, format: reader.format)
        let needed = plan.coordinatorBytes(lanes: cores, kept: held + writing)
        guard needed < machine else { throw RunError.outputNeedsMemory(needed: needed, machine: machine) }
        return needed
    }

    // MARK: The job folder

    /// Writes down what the job is, or checks that it still is that.
    private func begin(plan: JobPlan, model: ModelServer) throws -> JobFolder.Description {
        var present =
            description ?? JobFolder.Description(job: .random(in: 1...99_999), request: request, farm: settings)
        guard let folder else { return present }
        present.inputDigest = try ContentDigest(file: folder.path(JobFolder.inputName)).hex
        (present.modelDigest, present.planDigest) = (model.manifest.digest.hex, try plan.digest())
        guard let description else {
            try folder.write(present)
            return present
        }
        let path = folder.url.path
        guard present.inputDigest == description.inputDigest else {
            throw JobFolderError.changed(path: path, what: .input)
        }
        guard present.modelDigest == description.modelDigest else {
            throw JobFolderError.changed(path: path, what: .model(request.model))
        }
        guard present.planDigest == description.planDigest else {
            throw JobFolderError.changed(path: path, what: .plan)
        }
        if let checkpoint = folder.checkpoint {
            guard PlaneStore.accepts(checkpoint, of: plan.pipeline) else {
                throw JobFolderError.damaged(path: path, reason: "its checkpoint is of another plan than its request's")
            }
            try folder.verify(checkpoint)
        }
        return present
    }

    private func log(
        _ plan: JobPlan, _ present: JobFolder.Description, _ server: ModelServer, _ place: Place, _ logger: Logger
    ) {
        let picture = plan.picture
        var facts: Logger.Metadata = [
            "job": "\(present.job)", "input": "\(picture.inputWidth)x\(picture.inputHeight)",
            "output": "\(picture.outputWidth)x\(picture.outputHeight)",
            "steps": "\(plan.steps)", "tile": "\(plan.tiling.tile)", "seed": "\(plan.seed)",
            "model": "\(server.manifest.digest.hex.prefix(12))",
        ]
        if !place.storage.isMemory { facts["canvas"] = "\(ByteCount(place.bytes)) in \(place.path)" }
        if let checkpoint = folder?.checkpoint, plan.pipeline.passes.indices.contains(checkpoint.pass) {
            let pass = plan.pipeline.passes[checkpoint.pass]
            facts["pass"] = "\(pass.name)"
            if let step = pass.step { facts["step"] = "\(step + 1)/\(plan.steps)" }
        }
        logger.info(description == nil ? "job started" : "job resumed", metadata: facts)
    }

    /// The cores, shared out among the workers; each has one lane at least.
    static func lanes(workers: Int, cores: Int) -> [Int] {
        (0..<workers).map { max(1, cores / workers + ($0 < cores % workers ? 1 : 0)) }
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

extension Scheduler.LeasePolicy {
    /// Large networks have to be loaded before they answer for the first time.
    init(for plan: JobPlan) {
        self.init()
        if plan.needs != nil { (unmeasured, least) = (900, 60) }
    }
}
