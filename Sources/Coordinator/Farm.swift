import Engine
import Foundation
import Logging
import Protocol

/// The shell around the scheduler: carries its commands out on one socket and one canvas, and tells it what happens.
///
/// Everything runs on the thread that calls `render`; nothing in it waits but the socket.
final class Farm {
    /// How often either side says that it lives.
    static let heartbeatSeconds = 1.0
    /// Silence after which either side counts as dead. Bytes of a message that is not whole yet break it, so the size of frames does not matter.
    static let silenceSeconds = 5.0
    /// What a worker may have under way before it has tasks: requests for the model, heartbeats.
    static let idleBytesInFlight = 256 << 10

    /// Tasks that one worker may have: they have to fit the socket's queue.
    static let mostCredit = 480

    struct Configuration: Sendable {
        var endpoint: Endpoint
        /// Admits workers on its allow-list alone; nil admits every one.
        var keys: CoordinatorKeys?
        var plan: RenderPlan
        var input: InputImage
        var stores: [RenderPlan.Store]
        var storage: CanvasStorage
        /// Seconds between checkpoints, where the storage is a job folder.
        var checkpointSeconds: Double?
        var model: ModelServer
        var requiredKernels: String?
        var job: UInt64
        var leases: Scheduler.LeasePolicy
        var workersAreLocal: Bool { !leases.othersMayCome }
        /// Where the task of a tile is kept that nobody can compute.
        var failedTile: String
        var onProgress: @Sendable () -> Void
        /// Called with the name of a worker that does not get on, and when it last said something.
        var onStuck: @Sendable (String, Double) -> Void
        /// Called before the workers are told that the job is over.
        var onOver: @Sendable () -> Void
    }

    private let configuration: Configuration
    private let plan: RenderPlan
    private let logger: Logger
    private let stopRequest: StopRequest
    private let socket: RouterSocket
    private var scheduler: Scheduler
    private let rendering: Rendering
    private let checkpointer: Checkpointer?
    /// Phases up to this one have been written in.
    private var lastWritten = -1
    private var summary = FarmSummary()
    private var copying = SampledTime()
    private var jobProgress: JobProgress
    private let tilesBefore: Int
    private var progress: ProgressLine

    private var workers = WorkerRoster()
    private var tiles = TilesInHand()
    private var fetches = FetchQueue()
    /// What happened while commands were carried out.
    private var pending: [Scheduler.Event] = []
    private var outcome: Result<Void, CommandError>?
    private var strangers = StrangerLog()
    private let start = Clock.now
    private lazy var lastTick = start
    private lazy var lastBeat = start
    private var hasMixedKernels = false

    init(_ configuration: Configuration, stop: StopRequest, logger: Logger) throws {
        self.configuration = configuration
        self.logger = logger
        plan = configuration.plan
        stopRequest = stop
        let checkpoint = configuration.storage.folder?.checkpoint
        scheduler = Scheduler(steps: plan.phases.count, startingAt: checkpoint?.phase ?? 0, leases: configuration.leases) { [plan] in plan.step($0) }
        tilesBefore = scheduler.mergedTiles
        jobProgress = JobProgress(plan, startingAt: scheduler.currentStep)
        rendering = try Rendering(
            plan: plan, input: configuration.input, stores: configuration.stores, storage: configuration.storage, checkpoint: checkpoint)
        if let folder = configuration.storage.folder, let seconds = configuration.checkpointSeconds {
            checkpointer = Checkpointer(folder: folder, interval: seconds, logger: logger, now: start)
        } else {
            checkpointer = nil
        }
        progress = ProgressLine(job: configuration.job, steps: plan.steps, total: scheduler.totalTiles)
        socket = try RouterSocket(
            SocketContext(), bind: configuration.endpoint, maximumFrameBytes: max(plan.largestFrame, WireLimits.headerBytes), keys: configuration.keys)
    }

    /// Renders the whole job; afterwards `finishedRows` has the picture.
    ///
    /// - Throws: `CommandError` when the job is stopped or cannot be finished, `SocketError`.
    func render() throws -> FarmSummary {
        let processorAtStart = Clock.threadProcessor
        if !configuration.workersAreLocal {
            logger.info("waiting for workers", metadata: ["endpoint": "\(socket.endpoint)"])
        }
        var nextTick = Clock.now
        defer { FarmLogHandler.showBar("") }
        if scheduler.isOver { outcome = .success(()) }
        while outcome == nil {
            if let reason = stopRequest.reason {
                switch reason {
                case .cancelled: outcome = .failure(.cancelled(done: scheduler.mergedTiles, of: scheduler.totalTiles))
                case .failed(let error): outcome = .failure(error)
                }
                break
            }
            let now = Clock.now
            if now >= nextTick {
                tick(now)
                nextTick = now + Self.heartbeatSeconds
            }
            _ = try socket.wait(stopRequest.wakeup, milliseconds: max(1, Int((nextTick - Clock.now) * 1000)))
            // Bounded, so that a flood holds up neither ticks nor the stop.
            for _ in 0..<256 {
                guard outcome == nil, let received = try socket.receive() else { break }
                take(received)
            }
        }
        farewell()
        // Nobody reads while the output is written: whoever comes finds the door closed.
        socket.stopListening()
        noteIncidents()
        strangers.report(to: logger, now: .infinity)
        summary.tiles = scheduler.mergedTiles
        summary.tilesOfRun = scheduler.mergedTiles - tilesBefore
        summary.elapsed = Clock.now - start
        summary.repeats = scheduler.repeats
        summary.copies = scheduler.speculations
        summary.dropped += scheduler.dropped
        summary.bad = scheduler.bad
        summary.processorSeconds = Clock.threadProcessor - processorAtStart
        summary.copySeconds = copying.seconds
        try outcome?.get()
        return summary
    }

    /// A checkpoint that is being written is written or given up.
    /// - Parameter isFinished: the output is there.
    func close(isFinished: Bool) { checkpointer?.close(isFinished: isFinished) }

    /// Rows of the finished picture in [0, 1].
    func finishedRows(_ rows: Range<Int>) throws -> [Float] { try rendering.finishedRows(rows) }
    func finishedAlpha(_ rows: Range<Int>) throws -> [Float] { try rendering.finishedAlpha(rows) }

    // MARK: Time

    private func tick(_ now: Double) {
        // After a pause of our own (a suspended process, a long blend) what the workers said meanwhile is still unread, answers among it.
        let wasAway = now - lastTick > 2 * Self.heartbeatSeconds
        if wasAway { for worker in workers.all { workers[worker.number]?.lastHeard = now } }
        lastTick = now
        for worker in workers.all {
            if silence(of: worker, at: now) > Self.silenceSeconds {
                expel(worker, reason: "silent for \(Int(Self.silenceSeconds)) s")
            }
        }
        beat()
        for number in fetches.workers {
            noteFetches(of: number, at: now)
            if let worker = workers[number], fetches.isStuck(number, at: now) {
                expel(worker, reason: "took nothing of the model for \(Int(FetchQueue.patience)) s")
            }
        }
        serveFetches()
        if !wasAway { happened(.tick) }
        checkpoint(now)
        noteIncidents()
        strangers.report(to: logger, now: now)
        progress.update(
            done: scheduler.mergedTiles, share: jobProgress.share, phase: plan.phases[min(scheduler.currentStep, plan.phases.count - 1)],
            inFlight: scheduler.inFlight, retried: scheduler.repeats, copies: scheduler.speculations,
            workers: scheduler.workerCount, inQuarantine: workers.all.count { scheduler.isQuarantined($0.number) }, waiting: configuration.workersAreLocal ? nil : socket.endpoint,
            slowest: workers.slowest,
            elapsed: now - start, logger: logger)
    }

    /// Says that we live, when it is time to.
    private func beat() {
        let now = Clock.now
        guard now - lastBeat >= 0.9 * Self.heartbeatSeconds else { return }
        lastBeat = now
        for worker in workers.all { send(.heartbeat, to: worker.number) }
    }

    /// Chooses the phase of the next checkpoint when it is time for one.
    private func checkpoint(_ now: Double) {
        guard let checkpointer else { return }
        checkpointer.collect(now)
        let phase = max(lastWritten + 1, scheduler.currentStep)
        guard checkpointer.isDue(now), phase < plan.phases.count, phase > checkpointer.safe?.phase ?? 0 else { return }
        rendering.prepareCheckpoint(at: phase, keeping: checkpointer.safe)
        checkpointer.await(phase: phase)
        if scheduler.currentStep == phase { writeCheckpoint(phase) }
    }

    private func writeCheckpoint(_ phase: Int) {
        let (checkpoint, files) = rendering.checkpoint(at: phase, job: configuration.job)
        checkpointer?.write(checkpoint, files: files, isLast: phase == plan.phases.count)
    }

    /// Seconds since the worker's last word, or part of one.
    private func silence(of worker: WorkerPeer, at now: Double) -> Double {
        let silence = now - worker.lastHeard
        // Asked of the kernel only when it matters.
        return silence > Self.silenceSeconds ? min(silence, socket.secondsSinceData(worker.connection) ?? silence) : silence
    }

    private func noteIncidents() {
        for incident in socket.takeIncidents() { strangers.note(incident.address, incident.what) }
    }

    private func farewell() {
        configuration.onOver()
        let reason: String
        switch outcome {
        case .success, nil: reason = "the job is finished"
        case .failure(.cancelled): reason = "the job was cancelled"
        case .failure: reason = "the job failed"
        }
        for worker in workers.all { send(.stop(reason: reason), to: worker.number) }
    }

    // MARK: Messages

    private func take(_ received: RouterSocket.Received) {
        let peer = received.peer
        // What a stranger left behind; a worker's last words count.
        if received.isOrphan, workers.number(of: peer) == nil { return }
        let bytes = received.frames.reduce(0) { $0 + $1.byteCount }
        summary.bytesReceived += bytes
        let message: WorkerMessage
        do {
            guard received.droppedParts == 0 else { return useless(received, "a message of too many parts") }
            message = try WorkerMessage(frames: received.frames)
        } catch {
            if case .version = error {
                sendDirectly(.refused("\(error); use the same version of tilefarm on every machine"), to: peer)
            }
            return useless(received, "\(error)")
        }
        if case .hello(let hello) = message { return greet(hello, received) }
        guard let number = workers.number(of: peer) else {
            sendDirectly(.introduceYourself, to: peer)
            if case .result = message { summary.dropped += 1 }
            // An honest worker says this after a restart of ours, so it is not told of.
            return socket.nuisance(received.connection, cost: StrangerLog.cost(bytes), "messages before a hello")
        }
        let wasAsked = if case .result(let id, _, _, _, _) = message { tile(of: id).map { scheduler.has(number, $0) } ?? false } else { false }
        defer { if !isUseful(message, wasAsked: wasAsked) { socket.nuisance(received.connection, cost: StrangerLog.cost(bytes), "more than a worker says") } }
        workers[number]?.lastHeard = Clock.now
        switch message {
        case .hello:
            break
        case .ready(let credit, let model):
            ready(number, credit: credit, model: model)
        case .result(let id, let seconds, let frame, let checksum, let note):
            result(number, id, seconds: seconds, frame, checksum: checksum, note: note)
        case .failure(let id, let kind):
            guard let tile = tile(of: id) else { return }
            switch kind {
            case .returned: happened(.returned(number, tile))
            case .error(let reason): happened(.failed(number, tile, reason: reason))
            }
        case .heartbeat(let heartbeat):
            happened(.alive(number, progress: heartbeat.progress, isWorking: !heartbeat.running.isEmpty))
        case .fetch(let file, let offset, let length):
            noteFetches(of: number, at: Clock.now)
            guard fetches.add(.init(worker: number, file: file, offset: offset, length: length)) else {
                if let worker = workers[number] { expel(worker, reason: "asked for more of the model than it takes") }
                return
            }
            serveFetches()
        case .leaving(let reason):
            workers[number]?.leaving = reason
            happened(.draining(number))
        }
        // A worker that leaves has finished what it was at.
        if let reason = workers[number]?.leaving, scheduler.tasks(of: number) == 0 { remove(number, reason: reason) }
    }

    private func noteFetches(of number: Int, at now: Double) {
        guard let worker = workers[number] else { return }
        fetches.note(number, sent: worker.bytesSent, confirmed: socket.bytesAcknowledged(worker.connection), at: now)
    }

    /// Sends pieces of the model, as many as may be on their way.
    private func serveFetches() {
        while let fetch = fetches.next() {
            guard let worker = workers[fetch.worker] else { continue }
            do {
                send(try configuration.model.chunk(file: fetch.file, offset: fetch.offset, length: fetch.length), to: fetch.worker)
            } catch {
                sendDirectly(.refused("\(error)"), to: worker.peer)
                remove(fetch.worker, reason: "asked for a part of the model that cannot be read: \(error)")
            }
        }
    }

    /// Counts a message that no worker of ours would send.
    private func useless(_ received: RouterSocket.Received, _ what: String) {
        if let worker = workers.number(of: received.peer).flatMap({ workers[$0] }) {
            strangers.note(worker.name, what)
        } else {
            strangers.note(received.address ?? "local", what)
        }
        socket.nuisance(received.connection, cost: StrangerLog.cost(received.frames.reduce(0) { $0 + $1.byteCount }), what)
    }

    /// Whether a message got the job on: these may come as fast as they can.
    private func isUseful(_ message: WorkerMessage, wasAsked: Bool) -> Bool {
        switch message {
        case .result: wasAsked
        case .fetch(_, _, let length): length >= 64 << 10
        case .hello, .ready, .failure, .heartbeat, .leaving: false
        }
    }

    private func greet(_ hello: Hello, _ received: RouterSocket.Received) {
        let peer = received.peer
        var bytesSent = 0
        if let number = workers.number(of: peer) {
            // A worker that begins one session after another has a reason each time, and takes its time.
            socket.nuisance(received.connection, cost: workers[number]?.hello == hello ? 1 : 10, "hellos without end")
            // The same hello said again: the welcome was lost or is on its way.
            guard workers[number]?.hello != hello else { return welcome(hello, to: number) }
            bytesSent = workers[number]?.bytesSent ?? 0
            remove(number, reason: "began a new session")
        }
        if let old = workers.first(session: hello.session, user: received.user) {
            remove(old.number, reason: "connected anew")
        }
        // With keys nobody chooses a name.
        let ownName = received.user ?? hello.name
        // The first word names our own kernels; a second may be there for OpenBLAS's.
        if let required = configuration.requiredKernels, required != hello.kernels, required[...] != bits(hello.kernels).prefix(while: { $0 != " " }) {
            sendDirectly(.refused("this job takes only workers with \(required) kernels, not \(hello.kernels)"), to: peer)
            return useless(received, "\(ownName) has \(hello.kernels) kernels, not \(required)")
        }
        if let needed = plan.workerBytes(lanes: hello.lanes, machine: hello.memoryBytes), hello.memoryBytes > 0, needed > hello.memoryBytes {
            let reason = "the job's model takes \(PlanCommand.size(needed)) with \(hello.lanes) lanes and this machine has "
                + "\(PlanCommand.size(hello.memoryBytes)): start it with fewer --lanes, or the job with --precision float16"
            sendDirectly(.refused(reason), to: peer)
            return useless(received, "\(ownName) cannot hold the model: \(reason)")
        }
        let number = workers.add(
            hello, peer: peer, connection: received.connection, user: received.user, bytesSent: bytesSent, at: Clock.now)
        socket.admit(received.connection, bytesInFlight: Self.idleBytesInFlight)
        welcome(hello, to: number)
    }

    /// The kernels that a worker has, as far as they decide this job's bytes: dot products of bfloat16 serve jobs of that precision alone.
    private func bits(_ kernels: String) -> String {
        plan.precision == .bfloat16 ? kernels : kernels.replacingOccurrences(of: KernelSet.avx512bf16.rawValue, with: KernelSet.avx512.rawValue)
    }

    private func welcome(_ hello: Hello, to number: Int) {
        send(
            .welcome(
                Welcome(
                    session: hello.session, job: configuration.job, manifest: configuration.model.manifest,
                    requiredKernels: configuration.requiredKernels.map { _ in hello.kernels }, heartbeatMilliseconds: Int(Self.heartbeatSeconds * 1000),
                    silenceMilliseconds: Int(Self.silenceSeconds * 1000),
                    precision: plan.precision)),
            to: number)
    }

    private func ready(_ number: Int, credit: Int, model: ModelDigest) {
        guard let worker = workers[number], !worker.isReady else { return }
        guard model == configuration.model.manifest.digest else {
            sendDirectly(.refused("this worker has another model than the job: start it without --model, or with the job's"), to: worker.peer)
            return remove(number, reason: "has another model")
        }
        workers[number]?.isReady = true
        fetches.forget(number)
        let tasks = min(credit, Self.mostCredit)
        socket.admit(
            worker.connection, bytesInFlight: Self.idleBytesInFlight + tasks * (plan.largestFrame + WireLimits.headerBytes), isAtWork: true)
        summary.workers += 1
        logger.info(
            "worker joined",
            metadata: [
                "worker": "\(worker.name)", "host": "\(worker.hello.host)", "lanes": "\(worker.hello.lanes)", "kernels": "\(worker.hello.kernels)",
            ])
        if !hasMixedKernels, workers.contains(where: { $0.isReady && bits($0.hello.kernels) != bits(worker.hello.kernels) }) {
            hasMixedKernels = true
            logger.warning("workers with different kernels: the output's bytes depend on which tiles they take; --kernels KIND admits one kind")
        }
        happened(
            .joined(
                number, lanes: worker.hello.lanes, credit: tasks, identity: worker.user ?? "\(worker.hello.name) on \(worker.hello.host)"))
    }

    /// The scheduler counts answers from those alone who were given the task, and only workers that are ready are given any.
    private func result(_ number: Int, _ id: TaskID, seconds: Double, _ frame: Frame, checksum: UInt32, note: String?) {
        // Nobody was asked for anything before that, so nobody lies either.
        guard workers[number]?.isReady == true else {
            summary.dropped += 1
            return
        }
        guard let tile = tile(of: id) else { return misbehaved(number, nil, "an answer to a task that this job does not have, \(id)") }
        let attempts = scheduler.attempts(of: tile)
        if attempts > 0, id.attempt >= attempts { return misbehaved(number, tile, "an answer to try \(id.attempt) of a tile that was sent \(attempts) times") }
        // Without its task it comes too late, or from somebody who was not asked.
        if attempts > 0, let flaw = tiles.task(of: tile)?.work.flaw(of: frame, checksum: checksum) { return misbehaved(number, tile, flaw) }
        if let worker = workers[number] {
            workers[number]?.tiles += 1
            workers[number]?.smoothedSeconds = worker.tiles == 0 ? seconds : worker.smoothedSeconds * 0.9 + seconds * 0.1
        }
        summary.computeSeconds += seconds
        arriving = (frame, note)
        happened(.answered(number, tile))
        arriving = nil
        configuration.onProgress()
    }

    private func misbehaved(_ number: Int, _ tile: Scheduler.Tile?, _ reason: String) {
        // Whoever is in quarantine has been spoken of.
        guard !scheduler.isQuarantined(number) else { return }
        var facts: Logger.Metadata = ["worker": "\(workers.name(number))", "reason": "\(reason)"]
        if let tile { (facts["tile"], facts["step"]) = ("\(tile.index)", "\(stepName(tile))") }
        logger.warning("bad result dropped", metadata: facts)
        happened(.misbehaved(number, tile, reason: reason))
    }

    /// The answer that the scheduler is just being told of.
    private var arriving: (frame: Frame, note: String?)?

    /// The tile that a worker speaks of, nil when it is not of this job.
    private func tile(of id: TaskID) -> Scheduler.Tile? {
        guard id.job == configuration.job, id.stage == 0, id.step < plan.phases.count else { return nil }
        return Scheduler.Tile(step: id.step, index: id.tile)
    }

    /// Ends the connection of a worker that does not get on.
    private func expel(_ worker: WorkerPeer, reason: String) {
        socket.cut(worker.connection, reason: nil)
        configuration.onStuck(worker.hello.name, worker.lastHeard)
        remove(worker.number, reason: reason)
    }

    private func remove(_ number: Int, reason: String) {
        guard let worker = workers.remove(number) else { return }
        fetches.forget(number)
        if worker.isReady {
            logger.info("worker left", metadata: ["worker": "\(worker.name)", "tiles": "\(worker.tiles)", "reason": "\(reason)"])
        } else {
            strangers.note(worker.name, "left before it was ready: \(reason)")
        }
        happened(.left(number, reason: reason))
    }

    // MARK: Commands

    /// Tells the scheduler and carries out what it says, and so on until nothing more happens.
    private func happened(_ event: Scheduler.Event) {
        pending.append(event)
        guard !isCarryingOut else { return }
        isCarryingOut = true
        defer { isCarryingOut = false }
        while !pending.isEmpty {
            for command in scheduler.handle(pending.removeFirst(), at: Clock.now) { carryOut(command) }
        }
    }

    private var isCarryingOut = false

    private func carryOut(_ command: Scheduler.Command) {
        switch command {
        case .cutAndSend(let tile, let number):
            do {
                let work = try plan.work(phase: tile.step, tile: tile.index)
                let task = TilesInHand.Task(work: work, inputs: copying.time { rendering.inputs(of: work, phase: tile.step, tile: tile.index) })
                tiles.keep(task, of: tile)
                send(tile, attempt: 0, task, to: number)
            } catch {
                outcome = outcome ?? .failure(tileFailed(tile, reason: "\(error)"))
            }
        case .resend(let tile, let number, let attempt):
            if let task = tiles.task(of: tile) { send(tile, attempt: attempt, task, to: number) }
        case .accept(let tile):
            tiles.accept(arriving?.frame, of: tile)
            if let note = arriving?.note {
                let isNegative = plan.phases[tile.step] == .encodeText && tile.index == 1
                logger.warning("\(note)", metadata: isNegative ? ["prompt": "negative"] : [:])
            }
        case .drop(let tile, let number):
            logger.debug("late answer dropped", metadata: ["worker": "\(workers.name(number))", "tile": "\(tile.index)", "step": "\(stepName(tile))"])
        case .merge(let tile):
            guard let (task, answer) = tiles.takeMerged(tile) else { return }
            lastWritten = max(lastWritten, tile.step)
            copying.time { rendering.merge(answer, of: task.work, phase: tile.step, tile: tile.index) }
            jobProgress.merged(phase: tile.step)
        case .requeued(let tile, let number, let cause):
            logger.info("tile requeued", metadata: ["tile": "\(tile.index)", "step": "\(stepName(tile))", "worker": "\(workers.name(number))", "reason": "\(cause)"])
        case .hung(let number, let seconds):
            logger.warning("worker hangs, it gets nothing until it moves", metadata: ["worker": "\(workers.name(number))", "seconds": "\(Int(seconds))"])
            if let worker = workers[number] { configuration.onStuck(worker.hello.name, worker.lastHeard) }
        case .recovered(let number):
            logger.info("worker gets on again", metadata: ["worker": "\(workers.name(number))"])
        case .quarantined(let number, let tile, let reason):
            var facts: Logger.Metadata = ["worker": "\(workers.name(number))", "reason": "\(reason)"]
            // Nobody is left to show that the tile can be done.
            if scheduler.workerCount == 0, let tile, let path = save(tile, reason: reason) { facts["task"] = "\(path)" }
            logger.warning("worker in quarantine, it gets nothing more of this job", metadata: facts)
        case .finishedStep(let step):
            rendering.finish(phase: step) { beat() }
            // The last one is always worth it: the output may take long to write.
            if let checkpointer, checkpointer.wants(step + 1) || step + 1 == plan.phases.count { writeCheckpoint(step + 1) }
        case .finishedJob:
            outcome = .success(())
        case .gaveUp(let tile, let reason):
            outcome = .failure(tileFailed(tile, reason: reason))
        }
    }

    private func tileFailed(_ tile: Scheduler.Tile, reason: String) -> CommandError {
        .tileFailed(step: stepName(tile), tile: tile.index, reason: reason, saved: save(tile, reason: reason))
    }

    /// Keeps the task of a tile that failed.
    /// - Returns: where; nil when there is none, or it cannot be written.
    private func save(_ tile: Scheduler.Tile, reason: String) -> String? {
        guard let task = tiles.task(of: tile) else { return nil }
        let id = TaskID(job: configuration.job, stage: 0, step: tile.step, tile: tile.index, attempt: 0)
        do {
            try FailedTile.save(
                FarmTask(id: id, model: configuration.model.manifest.digest, work: task.work), inputs: task.inputs, reason: reason,
                to: configuration.failedTile)
            return configuration.failedTile
        } catch {
            logger.warning("the failed tile's task cannot be kept", metadata: ["file": "\(configuration.failedTile)", "error": "\(error)"])
            return nil
        }
    }

    /// What people call the step of a tile: its number in the sampler's loop, or the phase.
    private func stepName(_ tile: Scheduler.Tile) -> String {
        if case .denoise(let step) = plan.phases[tile.step] { "\(step)" } else { plan.phases[tile.step].name }
    }

    private func send(_ tile: Scheduler.Tile, attempt: Int, _ task: TilesInHand.Task, to number: Int) {
        let id = TaskID(job: configuration.job, stage: 0, step: tile.step, tile: tile.index, attempt: attempt)
        send(.task(FarmTask(id: id, model: configuration.model.manifest.digest, work: task.work), inputs: task.inputs), to: number)
    }

    private func send(_ message: CoordinatorMessage, to number: Int) {
        guard let worker = workers[number] else { return }
        let before = summary.bytesSent
        switch sendDirectly(message, to: worker.peer) {
        case .sent: workers[number]?.bytesSent += summary.bytesSent - before
        case .peerGone: remove(number, reason: "connection lost")
        case .wouldBlock:
            expel(worker, reason: "takes nothing more although it has credit")
        }
    }

    @discardableResult
    private func sendDirectly(_ message: CoordinatorMessage, to peer: Peer) -> RouterSocket.Sent {
        do {
            let frames = try message.frames()
            let sent = try socket.send(frames, to: peer)
            if sent == .sent { summary.bytesSent += frames.reduce(0) { $0 + $1.byteCount } }
            return sent
        } catch {
            // Trying again would change nothing.
            outcome = outcome ?? .failure(.cannotSend("\(error)"))
            return .peerGone
        }
    }
}
