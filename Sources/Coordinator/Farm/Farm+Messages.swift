import Engine
import Foundation
import Logging
import Protocol

/// Messages of workers.
extension Farm {
    func take(_ received: RouterSocket.Received) {
        let peer = received.peer
        // What a stranger left behind; a worker's last words count.
        if received.isOrphan, workers[peer] == nil { return }
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
            if case .unreadableAnswer(let id, let cause) = error, let worker = workers[peer], worker.isReady {
                misbehaved(worker.number, tile(of: id), "\(cause)")
            }
            return useless(received, "\(error)")
        }
        if case .hello(let hello) = message { return greet(hello, received) }
        guard let worker = workers[peer] else {
            sendDirectly(.introduceYourself, to: peer)
            if case .result = message { summary.dropped += 1 }
            // An honest worker says this after a restart of ours, so it is not told of.
            return socket.nuisance(
                received.connection, cost: StrangerLog.cost(bytes), "messages before a hello")
        }
        let number = worker.number
        let wasAsked = wasAsked(for: message, number)
        defer {
            if !isUseful(message, wasAsked: wasAsked) {
                socket.nuisance(received.connection, cost: StrangerLog.cost(bytes), "more than a worker says")
            }
        }
        worker.lastHeard = Clock.now
        switch message {
        case .hello: break
        case .ready(let model, _): ready(number, model: model)
        case .unfit(_, let reason): remove(number, reason: reason)
        case .result(let result): answered(number, result)
        case .failure(let id, let kind):
            guard let tile = tile(of: id) else { return }
            switch kind {
            case .returned: happened(.returned(number, tile))
            case .error(let reason): happened(.failed(number, tile, reason: reason))
            }
        case .missing(let id, let blobs):
            guard let tile = tile(of: id), scheduler.has(number, tile) else { return }
            let named = job.tiles.task(of: tile)?.task.blobs ?? []
            for blob in named where blobs.contains(blob.id) {
                worker.blobs.sent(blob.id, bytes: blob.bytes)
                sendBlob(blob.id, for: tile, to: number)
            }
        case .heartbeat(let heartbeat):
            happened(.alive(number, progress: heartbeat.progress, isWorking: !heartbeat.running.isEmpty))
        case .fetch(let model, let file, let offset, let length):
            guard model == job.model.manifest.digest else {
                return expel(worker, reason: "asked for a model that no job has")
            }
            recordFetches(of: number, at: Clock.now)
            guard fetches.add(.init(worker: number, file: file, offset: offset, length: length)) else {
                return expel(worker, reason: "asked for more of the model than it takes")
            }
            serveFetches()
        case .leaving(let reason):
            worker.leaving = reason
            happened(.draining(number))
        }
        // A worker that leaves has finished what it was at.
        if let reason = workers[number]?.leaving, scheduler.tasks(of: number) == 0 { remove(number, reason: reason) }
    }

    /// Whether a worker was given the task that a message is about.
    private func wasAsked(for message: WorkerMessage, _ number: Int) -> Bool {
        switch message {
        case .result(let result): tile(of: result.task).map { scheduler.has(number, $0) } ?? false
        case .missing(let id, _): tile(of: id).map { scheduler.has(number, $0) } ?? false
        default: false
        }
    }

    func recordFetches(of number: Int, at now: Double) {
        guard let worker = workers[number] else { return }
        fetches.record(
            number, sent: worker.bytesSent, confirmed: socket.bytesAcknowledged(worker.connection), at: now)
    }

    /// Sends pieces of the model, as many as may be on their way.
    func serveFetches() {
        while let fetch = fetches.next() {
            guard let worker = workers[fetch.worker] else { continue }
            do {
                send(
                    try job.model.chunk(file: fetch.file, offset: fetch.offset, length: fetch.length), to: fetch.worker)
            } catch {
                sendDirectly(.refused("\(error)"), to: worker.peer)
                remove(fetch.worker, reason: "asked for a part of the model that cannot be read: \(error)")
            }
        }
    }

    /// Counts a message that no worker of ours would send.
    func useless(_ received: RouterSocket.Received, _ what: String) {
        if let worker = workers[received.peer] {
            strangers.count(worker.name, what)
        } else {
            strangers.count(received.address ?? "local", what)
        }
        socket.nuisance(
            received.connection, cost: StrangerLog.cost(received.frames.reduce(0) { $0 + $1.byteCount }), what)
    }

    /// Whether a message got the job on: these may come as fast as they can.
    private func isUseful(_ message: WorkerMessage, wasAsked: Bool) -> Bool {
        switch message {
        case .result, .missing: wasAsked
        case .fetch(_, _, _, let length): length >= 64 << 10
        case .hello, .ready, .unfit, .failure, .heartbeat, .leaving: false
        }
    }

    /// The scheduler counts answers from those alone who were given the task, and only workers that are ready are given
    /// any.
    private func answered(_ number: Int, _ result: TaskResult) {
        // Nobody was asked for anything before that, so nobody lies either.
        guard workers[number]?.isReady == true else {
            summary.dropped += 1
            return
        }
        let id = result.task
        guard let tile = tile(of: id) else {
            return misbehaved(number, nil, "an answer to a task that this job does not have, \(id)")
        }
        let attempts = scheduler.attempts(of: tile)
        if attempts > 0, id.attempt >= attempts {
            return misbehaved(
                number, tile, "an answer to try \(id.attempt) of a tile that was sent \(attempts) times")
        }
        // Without its task it comes too late, or from somebody who was not asked.
        if attempts > 0, let task = job.tiles.task(of: tile)?.task,
            let flaw = task.flaw(of: result.outputs, checksums: result.checksums)
        {
            return misbehaved(number, tile, flaw)
        }
        workers[number]?.add(tile: result.seconds)
        summary.computeSeconds += result.seconds
        happened(.answered(number, tile), answer: TileAnswer(outputs: result.outputs, note: result.note))
        configuration.onProgress()
    }

    func misbehaved(_ number: Int, _ tile: Scheduler.Tile?, _ reason: String) {
        // Whoever is in quarantine has been spoken of.
        guard !scheduler.isQuarantined(number) else { return }
        var facts = tile.map { self.facts(of: $0, number) } ?? ["worker": "\(workers.name(number))"]
        facts["reason"] = "\(reason)"
        logger.warning("bad result dropped", metadata: facts)
        happened(.misbehaved(number, tile, reason: reason))
    }

    /// The tile that a worker speaks of, nil when it is not of this job.
    func tile(of id: TaskID) -> Scheduler.Tile? {
        guard id.job == job.id, job.pipeline.passes.indices.contains(id.pass) else { return nil }
        return Scheduler.Tile(pass: id.pass, index: id.tile)
    }
}
