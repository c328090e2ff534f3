/// The work of workers, how long it takes them, and what becomes of those who do not get on.
extension Scheduler {
    /// Makes a worker wait for its turn if it takes tasks.
    mutating func offer(_ worker: Worker) {
        guard let state = fleet[worker] else { return }
        // What it would be given next, as far as one can tell.
        let pass = readyTiles.first?.pass ?? state.tasks.last?.tile.pass ?? min(currentPass, traits.count - 1)
        fleet.offer(worker, seconds: leases.seconds(of: state, kind: traits[pass].kind) ?? 0)
    }

    /// Takes a task off a worker's list; nil when it was not on it.
    mutating func takeBack(_ tile: Tile, from worker: Worker, at now: Double) -> Fleet.Assignment? {
        guard let task = fleet.takeBack(tile, from: worker) else { return nil }
        beginTasks(of: worker, at: now)
        offer(worker)
        return task
    }

    /// Begins the leases of the tasks that the worker's lanes have come to.
    mutating func beginTasks(of worker: Worker, at now: Double) {
        guard let state = fleet[worker] else { return }
        var open = state.openLanes
        for (index, task) in state.tasks.enumerated() where !task.isOverdue {
            guard open > 0 else { break }
            open -= 1
            guard task.started == nil else { continue }
            let finish = now + (leases.seconds(of: state, kind: task.kind) ?? 0)
            fleet.update(worker) {
                $0.tasks[index].started = now
                $0.tasks[index].backoff = state.backoff
                $0.tasks[index].finish = finish
            }
            leases.begin(task, of: state, worker, at: now)
            expect(task.tile)
        }
    }

    /// An answer tells how long the worker takes, and that it gets on.
    mutating func measure(_ task: Fleet.Assignment, of worker: Worker, at now: Double, _ commands: inout [Command]) {
        let seconds = now - (task.started ?? task.sent)
        leases.measure(seconds, kind: task.kind)
        fleet.update(worker) {
            $0.times[task.kind].add(seconds)
            $0.backoff = 0
        }
        fleet.updateRecord(of: worker) { $0.failuresInRow = 0 }
        recover(worker, at: now, &commands)
    }

    mutating func hear(
        _ worker: Worker, progress: UInt64, isWorking: Bool, at now: Double, _ commands: inout [Command]
    ) {
        guard let state = fleet[worker] else { return }
        if !isWorking || progress != state.progress {
            fleet.update(worker) { $0.progress = progress }
            recover(worker, at: now, &commands)
        } else if !state.isHung, let first = state.tasks.first(where: { $0.started != nil }) {
            let seconds = now - max(state.progressed, first.started ?? now)
            guard seconds > leases.duration(of: state, kind: first.kind) else { return }
            fleet.update(worker) { $0.isHung = true }
            commands.append(.hung(worker, seconds: seconds))
            for task in state.tasks { lose(task.tile, from: worker, cause: "the worker hangs", &commands) }
            offer(worker)
        }
    }

    private mutating func recover(_ worker: Worker, at now: Double, _ commands: inout [Command]) {
        let wasHung = fleet[worker]?.isHung == true
        fleet.update(worker) {
            $0.progressed = now
            $0.isHung = false
        }
        guard wasHung else { return }
        commands.append(.recovered(worker))
        offer(worker)
    }

    mutating func expire(_ deadline: Leases.Deadline, at now: Double, _ commands: inout [Command]) {
        let worker = deadline.worker
        guard var state = fleet[worker], let index = state.tasks.firstIndex(where: { $0.number == deadline.number })
        else { return }
        state.tasks[index].isOverdue = true
        // Leases that ran beside one another are overrun together: they count once.
        state.backoff = max(state.backoff, state.tasks[index].backoff + 1)
        fleet.update(worker) { $0 = state }
        lose(state.tasks[index].tile, from: worker, cause: "no answer within the lease", &commands)
        if state.openLanes == 0 {
            // What waits there would wait for ever.
            for task in state.tasks where !task.isOverdue {
                lose(task.tile, from: worker, cause: "the worker's lanes do not answer", &commands)
            }
        }
        beginTasks(of: worker, at: now)
        offer(worker)
    }

    /// Computes when a tile should be answered, if it is out once: only then a second copy may be worth it. Not of
    /// what somebody has kept a part of: whoever has not would begin anew.
    mutating func expect(_ tile: Tile, notBefore least: Double = 0) {
        guard let holders = pendingTasks[tile]?.holders else { return }
        let number = leases.renumber()
        pendingTasks[tile]?.expectation = number
        if let worker = affinity.lastWorker(tile), fleet[worker] != nil { return }
        guard holders.count == 1, leases.policy.sendsCopies,
            let task = fleet[holders[0]]?.tasks.first(where: { $0.tile == tile })
        else { return }
        leases.expect(tile, at: max(task.finish, least), number: number)
    }
}
