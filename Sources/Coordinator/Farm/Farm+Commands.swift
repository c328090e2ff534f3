import DequeModule
import Engine
import Logging
import Protocol

/// The scheduler's commands, carried out.
extension Farm {
    /// Tells the scheduler and carries out what it says, and so on until nothing more happens.
    /// - Parameter answer: what was answered, where the event is an answer
    func happened(_ event: Scheduler.Event, answer: TileAnswer? = nil) {
        pending.append(Happening(event: event, answer: answer))
        guard !isCarryingOut else { return }
        isCarryingOut = true
        defer { isCarryingOut = false }
        while let happening = pending.popFirst() {
            for command in scheduler.handle(happening.event, at: Clock.now) {
                carryOut(command, answer: happening.answer)
            }
        }
        workers.forgetDeparted()
    }

    private func carryOut(_ command: Scheduler.Command, answer: TileAnswer?) {
        switch command {
        case .cutAndSend(let tile, let number):
            do {
                send(tile, attempt: 0, try job.cut(tile), to: number)
            } catch {
                outcome = outcome ?? .failure(tileFailed(tile, reason: "\(error)"))
            }
        case .resend(let tile, let number, let attempt):
            if let task = job.tiles.task(of: tile) { send(tile, attempt: attempt, task, to: number) }
        case .accept(let tile):
            if let answer { job.accept(answer, of: tile) }
        case .drop(let tile, let number):
            logger.debug("late answer dropped", metadata: facts(of: tile, number))
        case .merge(let tile):
            job.merge(tile)
        case .compute(let tile):
            job.compute(tile) { beat() }
        case .requeued(let tile, let number, let cause):
            // When a thousand workers are lost at once, writing of each tile would hold up those that are left.
            requeues += 1
            guard requeues <= Self.maxRequeuesLogged else { return }
            var facts = facts(of: tile, number)
            facts["reason"] = "\(cause)"
            logger.info("tile requeued", metadata: facts)
        case .hung(let number, let seconds):
            logger.warning(
                "worker hangs, it gets nothing until it moves",
                metadata: ["worker": "\(workers.name(number))", "seconds": "\(Int(seconds))"])
            if let worker = workers[number] { configuration.onStuck(worker.hello.name, worker.lastHeard) }
        case .recovered(let number):
            logger.info("worker gets on again", metadata: ["worker": "\(workers.name(number))"])
        case .quarantined(let number, let tile, let reason):
            var facts: Logger.Metadata = ["worker": "\(workers.name(number))", "reason": "\(reason)"]
            // Nobody is left to show that the tile can be done.
            if scheduler.workerCount == 0, let tile, let path = job.saveTask(of: tile, reason: reason) {
                facts["task"] = "\(path)"
            }
            logger.warning("worker in quarantine, it gets nothing more of this job", metadata: facts)
        case .finishedPass(let pass):
            job.finish(pass: pass)
        case .finishedJob:
            outcome = .success(())
        case .gaveUp(let tile, let reason):
            outcome = .failure(tileFailed(tile, reason: reason))
        }
    }

    func tileFailed(_ tile: Scheduler.Tile, reason: String) -> Failure {
        .tileFailed(
            pass: job.name(of: tile), tile: tile.index, reason: reason, saved: job.saveTask(of: tile, reason: reason))
    }

    /// The log's facts of a tile and a worker.
    func facts(of tile: Scheduler.Tile, _ number: Int) -> Logger.Metadata {
        let pass = job.pipeline.passes[tile.pass]
        var facts: Logger.Metadata = [
            "worker": "\(workers.name(number))", "tile": "\(tile.index)", "pass": "\(pass.name)",
        ]
        if let step = pass.step { facts["step"] = "\(step + 1)" }
        return facts
    }

    /// Sends a task, and before it what it names and the worker has not been sent.
    private func send(_ tile: Scheduler.Tile, attempt: Int, _ pending: PendingTiles.PendingTask, to number: Int) {
        for blob in workers[number]?.blobs.toSend(before: pending.task.blobs) ?? [] {
            sendBlob(blob, for: tile, to: number)
        }
        let id = TaskID(job: job.id, pass: tile.pass, tile: tile.index, attempt: attempt)
        send(
            .task(FarmTask(id: id, model: job.model.manifest.digest, task: pending.task), inputs: pending.frames),
            to: number)
    }

    /// Sends a blob that the task of a tile names.
    func sendBlob(_ blob: BlobID, for tile: Scheduler.Tile, to number: Int) {
        do {
            guard let bytes = try job.bytes(of: blob, for: tile) else { return }
            send(.blob(blob, bytes), to: number)
        } catch {
            outcome = outcome ?? .failure(tileFailed(tile, reason: "\(error)"))
        }
    }
}
