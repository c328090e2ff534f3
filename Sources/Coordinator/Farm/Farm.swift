import DequeModule
import Engine
import Foundation
import Logging
import Protocol

/// Sockets and workers: carries the scheduler's commands out on one socket and one job's planes, and tells the
/// scheduler what happens.
///
/// Everything runs on the thread that calls `serve`; nothing in it waits but the socket.
package final class Farm {
    /// How often either side says that it lives.
    static let heartbeatSeconds = 1.0
    /// Silence after which either side counts as dead. Bytes of a message that is not whole yet break it, so the size
    /// of frames does not matter.
    static let silenceSeconds = 5.0
    /// Bytes that a worker may have under way before it has tasks: requests for the model, heartbeats.
    static let idleBytesInFlight = 256 << 10
    /// Tiles requeued between two ticks that have a line each in the log.
    static let maxRequeuesLogged = 100
    /// Tasks that one worker may have: they have to fit the socket's queue.
    static let maxCredit = 480

    struct Configuration: Sendable {
        var endpoint: Endpoint
        /// Admits workers on its allow-list alone; nil admits every one.
        var keys: CoordinatorKeys?
        var requiredKernels: String?
        var leases: Scheduler.LeasePolicy
        var hasBarrier: Bool
        /// Bytes that inputs and outputs of tiles at workers may take.
        var memoryForTiles: Int
        var words: FarmWords
        /// Called when a tile is done.
        var onProgress: @Sendable () -> Void
        /// Called with the name of a worker that does not get on, and when it last said something.
        var onStuck: @Sendable (String, Double) -> Void
        /// Called before the workers are told that the job is over.
        var onOver: @Sendable () -> Void

        var workersAreLocal: Bool { !leases.othersMayCome }
    }

    /// Words for a user who can choose other options: the program's commands know these.
    package struct FarmWords: Sendable {
        /// Bytes that are needed, lanes, and bytes that the worker's machine has.
        var tooLittleMemory: @Sendable (_ needed: Int, _ lanes: Int, _ machine: Int) -> String
        var mixedKernels: String

        package init(
            tooLittleMemory: @escaping @Sendable (_ needed: Int, _ lanes: Int, _ machine: Int) -> String,
            mixedKernels: String
        ) {
            self.tooLittleMemory = tooLittleMemory
            self.mixedKernels = mixedKernels
        }
    }

    /// Why a farm ends without a picture.
    enum Failure: Error, Equatable {
        case stopped(StopRequest.Reason, done: Int, total: Int)
        case tileFailed(pass: String, tile: Int, reason: String, saved: String?)
        case cannotSend(String)
    }

    let configuration: Configuration
    let job: Job
    let logger: Logger
    let stopRequest: StopRequest
    let socket: RouterSocket
    var scheduler: Scheduler
    var summary = FarmSummary()
    let tilesBefore: Int
    var progress: ProgressLine

    var workers = WorkerRoster()
    var fetches = FetchQueue()
    /// Events while commands were carried out.
    var pending: Deque<Happening> = []
    /// Tiles requeued since the last tick.
    var requeues = 0
    var outcome: Result<Void, Failure>?
    var strangers = StrangerLog()
    let start = Clock.now
    lazy var lastTick = start
    lazy var lastBeat = start
    /// The kernels of the first worker that was ready.
    var firstKernels: String?
    var hasMixedKernels = false
    var isCarryingOut = false

    /// An event and, where it is an answer, what was answered.
    struct Happening {
        var event: Scheduler.Event
        var answer: TileAnswer?
    }

    /// - Parameters:
    ///   - context: lives longer than the farm, whose last words may take a while
    ///   - first: the job's passes before it are done
    init(
        _ configuration: Configuration, serving job: Job, startingAt first: Int, context: SocketContext,
        stop: StopRequest, logger: Logger
    ) throws {
        self.configuration = configuration
        self.job = job
        self.logger = logger
        stopRequest = stop
        let sizes = job.plan.sizes, memory = configuration.memoryForTiles
        scheduler = Scheduler(
            pipeline: job.pipeline, startingAt: first, leases: configuration.leases,
            hasBarrier: configuration.hasBarrier,
            // A few in any case.
            maxInFlight: { max(16, memory / max(sizes.tileBytes[$0], 1)) })
        tilesBefore = scheduler.mergedTiles
        progress = ProgressLine(job: job.id, pipeline: job.pipeline, total: scheduler.totalTiles)
        socket = try RouterSocket(
            context, bind: configuration.endpoint, maximumFrameBytes: max(sizes.largestOutput, WireLimits.headerBytes),
            keys: configuration.keys)
    }

    /// Serves the job until it is done; afterwards its planes hold the picture.
    /// - Throws: `Failure`, `SocketError`.
    func serve() throws -> FarmSummary {
        let processorAtStart = Clock.threadProcessor
        if !configuration.workersAreLocal {
            logger.info("waiting for workers", metadata: ["endpoint": "\(socket.endpoint)"])
        }
        var nextTick = Clock.now
        defer { FarmLogHandler.showBar("") }
        if scheduler.isOver { outcome = .success(()) }
        while outcome == nil {
            if let reason = stopRequest.reason {
                outcome = .failure(.stopped(reason, done: scheduler.mergedTiles, total: scheduler.totalTiles))
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
        logIncidents()
        strangers.report(to: logger, now: .infinity)
        summary.tiles = scheduler.mergedTiles
        summary.tilesOfRun = scheduler.mergedTiles - tilesBefore
        summary.elapsed = Clock.now - start
        summary.repeats = scheduler.repeats
        summary.copies = scheduler.speculations
        summary.dropped += scheduler.dropped
        summary.bad = scheduler.bad
        summary.processorSeconds = Clock.threadProcessor - processorAtStart
        summary.copySeconds = job.copying.seconds
        try outcome?.get()
        return summary
    }

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
            recordFetches(of: number, at: now)
            if let worker = workers[number], fetches.isStuck(number, at: now) {
                expel(worker, reason: "took nothing of the model for \(Int(FetchQueue.patience)) s")
            }
        }
        serveFetches()
        if !wasAway { happened(.tick) }
        if requeues > Self.maxRequeuesLogged {
            logger.info("more tiles requeued", metadata: ["tiles": "\(requeues - Self.maxRequeuesLogged)"])
        }
        requeues = 0
        job.tick(now)
        logIncidents()
        strangers.report(to: logger, now: now)
        progress.update(
            ProgressLine.Snapshot(
                done: scheduler.mergedTiles, fraction: job.progress.fraction, pass: scheduler.currentPass,
                inFlight: scheduler.inFlight, retried: scheduler.repeats, copies: scheduler.speculations,
                workers: scheduler.workerCount, inQuarantine: scheduler.quarantinedWorkers,
                waiting: configuration.workersAreLocal ? nil : socket.endpoint, slowest: workers.slowest,
                elapsed: now - start),
            logger: logger)
    }

    /// Says that we live, when it is time to.
    func beat() {
        let now = Clock.now
        guard now - lastBeat >= 0.9 * Self.heartbeatSeconds else { return }
        lastBeat = now
        for worker in workers.all { send(.heartbeat, to: worker.number) }
    }

    /// Seconds since the worker's last word, or part of one.
    func silence(of worker: WorkerPeer, at now: Double) -> Double {
        let silence = now - worker.lastHeard
        // Asked of the kernel only when it matters.
        return silence > Self.silenceSeconds
            ? min(silence, socket.secondsSinceData(worker.connection) ?? silence) : silence
    }

    func logIncidents() {
        for incident in socket.takeIncidents() { strangers.count(incident.address, incident.what) }
    }

    func farewell() {
        configuration.onOver()
        let reason: String
        switch outcome {
        case .success, nil: reason = "the job is finished"
        case .failure(.stopped(.cancelled, _, _)): reason = "the job was cancelled"
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
