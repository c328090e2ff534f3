import Engine
import Logging
import Protocol

/// Tasks and blobs: taken, kept, answered.
extension FarmLoop {
    func take(_ task: FarmTask, _ inputs: [Frame]) {
        guard let membership = session.membership else { return }
        guard let served = membership.models[task.model] else {
            return fail(task.id, "the task is of model \(task.model.short), which this worker was not told to prepare")
        }
        // In the order of the messages, by which the coordinator knows what is still here.
        link.blobs.use(task.task.blobs.map(\.id))
        if membership.begins(job: task.id.job) {
            logger.info("job started", metadata: ["job": "\(task.id.job)", "model": "\(task.model.short)"])
        }
        submit(Lanes.Assignment(session: session.id, task: task, inputs: inputs, model: served.model))
    }

    private func submit(_ assignment: Lanes.Assignment) {
        if departure != nil || !link.lanes.submit(assignment) {
            connection.post(.failure(assignment.task.id, .returned))
        }
    }

    func fail(_ task: TaskID, _ reason: String) {
        counts.failures += 1
        logger.warning("task failed", metadata: ["task": "\(task)", "error": "\(reason)"])
        connection.post(.failure(task, .error(reason)))
    }

    func takeFinished() {
        for finished in link.lanes.collect() {
            counts.secondsBusy += finished.seconds
            guard finished.assignment.session == session.id, let membership = session.membership else {
                counts.dropped += 1
                continue
            }
            switch finished.outcome {
            case .answered(let result):
                counts.tiles += 1
                membership.tiles += 1
                connection.post(.result(result))
            case .missing(let blob):
                park(finished.assignment, missing: blob, membership)
            case .failed(let reason):
                fail(finished.assignment.task.id, reason)
            }
        }
    }

    // MARK: - Blobs

    /// Has a task wait until its blobs have come.
    private func park(_ assignment: Lanes.Assignment, missing blob: BlobID, _ membership: Membership) {
        let task = assignment.task, blobs = task.task.blobs
        let missing = link.blobs.missing(of: blobs.map(\.id))
        // It may have come while the task was tried.
        guard missing.contains(blob) else { return submit(assignment) }
        let bytes = BlobStore.cost(of: blobs)
        guard bytes <= link.blobs.capacity else {
            return fail(task.id, "the task's blobs take \(bytes) bytes, this worker keeps \(link.blobs.capacity)")
        }
        guard departure == nil, membership.parked.count < link.lanes.credit else {
            return connection.post(.failure(task.id, .returned))
        }
        membership.parked.park(assignment, missing: missing)
        connection.post(.missing(task.id, blobs: missing))
    }

    /// Takes a blob, and has the tasks done that have waited for it.
    func take(_ id: BlobID, _ bytes: Frame) {
        guard let membership = session.membership else { return }
        let pinned = membership.parked.pinned(capacity: link.blobs.capacity)
        do {
            try link.blobs.put(id, bytes, keeping: pinned)
        } catch {
            logger.warning("blob dropped", metadata: ["blob": "\(id)", "reason": "\(error)"])
            // Without room the tasks are for another worker, or for later. Wrong bytes may be followed by the right
            // ones.
            if case .noRoom = error {
                for assignment in membership.parked.take(waitingFor: id) {
                    connection.post(.failure(assignment.task.id, .returned))
                }
            }
            return
        }
        for assignment in membership.parked.arrived(id) { submit(assignment) }
    }
}
