import Engine
import Protocol

/// Tasks that wait for blobs, in the order in which they began to wait.
struct ParkedTasks {
    private struct ParkedTask {
        let assignment: Lanes.Assignment
        var missing: Set<BlobID>
    }

    private var tasks: [ParkedTask] = []

    var count: Int { tasks.count }

    mutating func park(_ assignment: Lanes.Assignment, missing: [BlobID]) {
        tasks.append(ParkedTask(assignment: assignment, missing: Set(missing)))
    }

    /// Whether a task waits for a blob.
    func needs(_ id: BlobID) -> Bool { tasks.contains { $0.missing.contains(id) } }

    /// A blob has come.
    /// - Returns: the tasks that have waited for nothing else.
    mutating func arrived(_ id: BlobID) -> [Lanes.Assignment] {
        for index in tasks.indices { tasks[index].missing.remove(id) }
        defer { tasks.removeAll { $0.missing.isEmpty } }
        return tasks.filter(\.missing.isEmpty).map(\.assignment)
    }

    /// Takes those that wait for a blob.
    mutating func take(waitingFor id: BlobID) -> [Lanes.Assignment] {
        defer { tasks.removeAll { $0.missing.contains(id) } }
        return tasks.filter { $0.missing.contains(id) }.map(\.assignment)
    }

    mutating func takeAll() -> [Lanes.Assignment] {
        defer { tasks = [] }
        return tasks.map(\.assignment)
    }

    /// The blobs that must stay for tasks that wait: those of the oldest tasks, as many as fit together. So the oldest
    /// gets all of its blobs in the end, and then the next.
    func pinned(capacity: Int) -> Set<BlobID> {
        var pinned: Set<BlobID> = [], bytes = 0
        for task in tasks {
            let more = task.assignment.task.task.blobs.filter { !pinned.contains($0.id) }
            let cost = BlobStore.cost(of: more)
            guard cost <= capacity - bytes else { break }
            bytes += cost
            pinned.formUnion(more.map(\.id))
        }
        return pinned
    }
}
