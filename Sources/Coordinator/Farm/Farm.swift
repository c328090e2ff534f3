import DequeModule
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
    /// Silence after which either side counts as dead. Bytes of a message that is not whole yet break it, so the size
    /// of frames does not matter.
    static let silenceSeconds = 5.0
    /// What a worker may have under way before it has tasks: requests for the model, heartbeats.
    static let idleBytesInFlight = 256 << 10

    /// Tiles requeued between two ticks that have a line each in the log.
    static let mostRequeuesTold = 100

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

    let configuration: Configuration
    let plan: RenderPlan
    let logger: Logger
    let stopRequest: StopRequest
    let socket: RouterSocket
    var scheduler: Scheduler
    let rendering: Rendering
    let checkpointer: Checkpointer?
    /// Phases up to this one have been written in.
    var lastWritten = -1
    var summary = FarmSummary()
    var copying = SampledTime()
    var jobProgress: JobProgress
    let tilesBefore: Int
    var progress: ProgressLine

    var workers = WorkerRoster()
    var tiles = TilesInHand()
    var fetches = FetchQueue()
    /// What happened while commands were carried out.
    var pending: Deque<Scheduler.Event> = []
    /// Since the last tick.
    var requeues = 0
    var outcome: Result<Void, CommandError>?
    var strangers = StrangerLog()
    let start = Clock.now
    lazy var lastTick = start
    lazy var lastBeat = start
    /// Those of the first worker that was ready.
    var firstKernels: String?
    var hasMixedKernels = false
    /// The answer that the scheduler is just being told of.
    var arriving: (frame: Frame, note: String?)?
    var isCarryingOut = false

    /// - Parameters:
    ///   - context: lives longer than the farm, whose last words may take a while
    ///   - checkpointer: nil where there are no checkpoints
    init(
        _ configuration: Configuration, context: SocketContext, checkpointer: Checkpointer?, stop: StopRequest,
        logger: Logger
    ) throws {
        self.configuration = configuration
        self.checkpointer = checkpointer
        self.logger = logger
        plan = configuration.plan
        stopRequest = stop
        let checkpoint = configuration.storage.folder?.checkpoint
        scheduler = Scheduler(
            steps: plan.phases.count, startingAt: checkpoint?.phase ?? 0, leases: configuration.leases
        ) { [plan] in plan.step($0) }
        tilesBefore = scheduler.mergedTiles
        jobProgress = JobProgress(plan, startingAt: scheduler.currentStep)
        rendering = try Rendering(
            plan: plan, input: configuration.input, stores: configuration.stores, storage: configuration.storage,
            checkpoint: checkpoint)
        progress = ProgressLine(job: configuration.job, steps: plan.steps, total: scheduler.totalTiles)
        socket = try RouterSocket(
            context, bind: configuration.endpoint, maximumFrameBytes: max(plan.largestFrame, WireLimits.headerBytes),
            keys: configuration.keys)
    }

    /// Renders the whole job; afterwards `picture` is there.
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

    var picture: FinishedPicture { rendering.picture }

    // MARK: Time

    func tick(_ now: Double) {
        // After a pause of our own (a suspended process, a long blend) what the workers said meanwhile is still unread,
        // answers among it.
        let wasAway = now - lastTick > 2 * Self.heartbeatSeconds
        if wasAway { for worker in workers.all { worker.lastHeard = now } }
        lastTick = now
        for worker in workers.all {
            if silence(of: worker, at: now) > Self.silenceSeconds {
                expel(worker, reason: "silent for \(Int(Self.silenceSeconds)) s")
                beat()
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
        if requeues > Self.mostRequeuesTold {
            logger.info("more tiles requeued", metadata: ["tiles": "\(requeues - Self.mostRequeuesTold)"])
        }
        requeues = 0
        checkpoint(now)
        noteIncidents()
        strangers.report(to: logger, now: now)
        progress.update(
            done: scheduler.mergedTiles, share: jobProgress.share,
            phase: plan.phases[min(scheduler.currentStep, plan.phases.count - 1)],
            inFlight: scheduler.inFlight, retried: scheduler.repeats, copies: scheduler.speculations,
            workers: scheduler.workerCount, inQuarantine: scheduler.quarantinedWorkers,
            waiting: configuration.workersAreLocal ? nil : socket.endpoint,
            slowest: workers.slowest,
            elapsed: now - start, logger: logger)
    }

    /// Says that we live, when it is time to.
    func beat() {
        let now = Clock.now
        guard now - lastBeat >= 0.9 * Self.heartbeatSeconds else { return }
        lastBeat = now
        for worker in workers.all { send(.heartbeat, to: worker.number) }
    }

    /// Chooses the phase of the next checkpoint when it is time for one.
    func checkpoint(_ now: Double) {
        guard let checkpointer else { return }
        checkpointer.collect(now)
        let phase = max(lastWritten + 1, scheduler.currentStep)
        guard checkpointer.isDue(now), phase < plan.phases.count, phase > checkpointer.safe?.phase ?? 0 else { return }
        rendering.prepareCheckpoint(at: phase, keeping: checkpointer.safe)
        checkpointer.await(phase: phase)
        if scheduler.currentStep == phase { writeCheckpoint(phase) }
    }

    func writeCheckpoint(_ phase: Int) {
        let (checkpoint, files) = rendering.checkpoint(at: phase, job: configuration.job)
        checkpointer?.write(checkpoint, files: files, isLast: phase == plan.phases.count)
    }

    /// Seconds since the worker's last word, or part of one.
    func silence(of worker: WorkerPeer, at now: Double) -> Double {
        let silence = now - worker.lastHeard
        // Asked of the kernel only when it matters.
        return silence > Self.silenceSeconds
            ? min(silence, socket.secondsSinceData(worker.connection) ?? silence) : silence
    }

    func noteIncidents() {
        for incident in socket.takeIncidents() { strangers.note(incident.address, incident.what) }
    }

    func farewell() {
        configuration.onOver()
        let reason: String
        switch outcome {
        case .success, nil: reason = "the job is finished"
        case .failure(.cancelled): reason = "the job was cancelled"
        case .failure: reason = "the job failed"
        }
        for worker in workers.all { send(.stop(reason: reason), to: worker.number) }
    }

    // MARK: Sending

    func send(_ message: CoordinatorMessage, to number: Int) {
        guard let worker = workers[number] else { return }
        let before = summary.bytesSent
        switch sendDirectly(message, to: worker.peer) {
        case .sent: worker.bytesSent += summary.bytesSent - before
        case .peerGone: remove(number, reason: "connection lost")
        case .wouldBlock:
            expel(worker, reason: "takes nothing more although it has credit")
        }
    }

    @discardableResult
    func sendDirectly(_ message: CoordinatorMessage, to peer: Peer) -> RouterSocket.Sent {
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
