import DequeModule
import Logging
import Protocol

/// What the scheduler says.
extension Farm {
    /// Tells the scheduler and carries out what it says, and so on until nothing more happens.
    func happened(_ event: Scheduler.Event) {
        pending.append(event)
        guard !isCarryingOut else { return }
        isCarryingOut = true
        defer { isCarryingOut = false }
        while let event = pending.popFirst() {
            for command in scheduler.handle(event, at: Clock.now) { carryOut(command) }
        }
        workers.forgetDeparted()
    }

    func carryOut(_ command: Scheduler.Command) {
        switch command {
        case .cutAndSend(let tile, let number):
            do {
                let work = try plan.work(phase: tile.step, tile: tile.index)
                let task = TilesInHand.Task(
                    work: work, inputs: copying.time { rendering.inputs(of: work, phase: tile.step, tile: tile.index) })
                tiles.keep(task, of: tile)
                send(tile, attempt: 0, task, to: number)
            } catch {
                outcome = outcome ?? .failure(tileFailed(tile, reason: "\(error)"))
            }
        case .resend(let tile, let number, let attempt):
            if let task = tiles.task(of: tile) { send(tile, attempt: attempt, task, to: number) }
        case .accept(let tile):
            guard let arriving else { return }
            tiles.accept(arriving.frame, of: tile)
            if let note = arriving.note {
                let isNegative = plan.phases[tile.step] == .encodeText && tile.index == 1
                logger.warning("\(note)", metadata: isNegative ? ["prompt": "negative"] : [:])
            }
        case .drop(let tile, let number):
            logger.debug(
                "late answer dropped",
                metadata: ["worker": "\(workers.name(number))", "tile": "\(tile.index)", "step": "\(stepName(tile))"])
        case .merge(let tile):
            guard let (work, answer) = tiles.takeAnswer(of: tile) else { return }
            lastWritten = max(lastWritten, tile.step)
            copying.time { rendering.merge(answer, of: work, phase: tile.step, tile: tile.index) }
            jobProgress.merged(phase: tile.step)
        case .requeued(let tile, let number, let cause):
            // When a thousand workers are lost at once, writing of each tile would hold up those that are left.
            requeues += 1
            guard requeues <= Self.mostRequeuesTold else { return }
            logger.info(
                "tile requeued",
                metadata: [
                    "tile": "\(tile.index)", "step": "\(stepName(tile))", "worker": "\(workers.name(number))",
                    "reason": "\(cause)",
                ])
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
            if scheduler.workerCount == 0, let tile, let path = save(tile, reason: reason) { facts["task"] = "\(path)" }
            logger.warning("worker in quarantine, it gets nothing more of this job", metadata: facts)
        case .finishedStep(let step):
            rendering.finish(phase: step) { beat() }
            // The last one is always worth it: the output may take long to write.
            if let checkpointer, checkpointer.wants(step + 1) || step + 1 == plan.phases.count {
                writeCheckpoint(step + 1)
            }
        case .finishedJob:
            outcome = .success(())
        case .gaveUp(let tile, let reason):
            outcome = .failure(tileFailed(tile, reason: reason))
        }
    }

    func tileFailed(_ tile: Scheduler.Tile, reason: String) -> CommandError {
        .tileFailed(step: stepName(tile), tile: tile.index, reason: reason, saved: save(tile, reason: reason))
    }

    /// Keeps the task of a tile that failed.
    /// - Returns: where; nil when there is none, or it cannot be written.
    func save(_ tile: Scheduler.Tile, reason: String) -> String? {
        guard let task = tiles.task(of: tile) else { return nil }
        let id = TaskID(job: configuration.job, stage: 0, step: tile.step, tile: tile.index, attempt: 0)
        do {
            try FailedTile.save(
                FarmTask(id: id, model: configuration.model.manifest.digest, work: task.work), inputs: task.inputs,
                reason: reason,
                to: configuration.failedTile)
            return configuration.failedTile
        } catch {
            logger.warning(
                "the failed tile's task cannot be kept",
                metadata: ["file": "\(configuration.failedTile)", "error": "\(error)"])
            return nil
        }
    }

    /// What people call the step of a tile: its number in the sampler's loop, or the phase.
    func stepName(_ tile: Scheduler.Tile) -> String {
        if case .denoise(let step) = plan.phases[tile.step] { "\(step)" } else { plan.phases[tile.step].name }
    }

    func send(_ tile: Scheduler.Tile, attempt: Int, _ task: TilesInHand.Task, to number: Int) {
        let id = TaskID(job: configuration.job, stage: 0, step: tile.step, tile: tile.index, attempt: attempt)
        send(
            .task(FarmTask(id: id, model: configuration.model.manifest.digest, work: task.work), inputs: task.inputs),
            to: number)
    }
}
