import Engine
import Foundation
import Protocol

/// The threads that compute, one tile each at a time, and the tasks that wait for them.
///
/// Sendable without the compiler's proof: what changes is in `state`, touched under `condition` alone, and `threads`,
/// which the one thread that calls `start` and `stop` touches.
final class Lanes: @unchecked Sendable {
    struct Assignment: Sendable {
        var session: UInt64
        var task: FarmTask
        var inputs: [Frame]
        var model: any TaskModel
    }

    struct Finished: Sendable {
        enum Outcome: Sendable {
            case answered(TaskResult)
            case failed(reason: String)
            /// The task waits for a blob that is not here.
            case missing(BlobID)
        }

        var assignment: Assignment
        var seconds: Double
        var outcome: Outcome
    }

    private struct State {
        var waiting: [Assignment] = []
        var running: [Int: (task: TaskID, model: any TaskModel)] = [:]
        var finished: [Finished] = []
        var progress: UInt64 = 0
        /// The model of the task that was begun last: it stays in memory, others go with their last task.
        var model: (any TaskModel)?
        var isStopped = false

        /// A model that nobody is at any more and that is not the last one.
        func idle(_ model: (any TaskModel)?) -> (any TaskModel)? {
            guard let model, model !== self.model, !running.values.contains(where: { $0.model === model }) else {
                return nil
            }
            return model
        }
    }

    let count: Int
    /// Tasks that may wait or run: one running and one prefetched for every lane.
    var credit: Int { 2 * count }

    private let condition = NSCondition()
    private var state = State()
    private let blobs: BlobStore
    private let wakeup: Wakeup
    private var threads: [OSThread] = []

    /// - Parameter wakeup: called when a task is finished.
    init(count: Int, blobs: BlobStore, wakeup: Wakeup) {
        self.count = count
        self.blobs = blobs
        self.wakeup = wakeup
    }

    /// Starts the threads; they live until `stop`.
    func start() throws {
        for lane in 0..<count {
            threads.append(try OSThread(name: "lane-\(lane)", stackBytes: 16 << 20) { [self] in work(lane) })
        }
    }

    /// - Returns: false when the coordinator sends more than its credit.
    func submit(_ assignment: Assignment) -> Bool {
        condition.withLock {
            // One more a lane than the credit: every lane may still be at a task of a session that has ended, which
            // this coordinator does not count.
            guard state.waiting.count + state.running.count < credit + count else { return false }
            state.waiting.append(assignment)
            condition.signal()
            return true
        }
    }

    /// Takes back the tasks that no lane has begun.
    func takeBack() -> [Assignment] {
        condition.withLock {
            defer { state.waiting = [] }
            return state.waiting
        }
    }

    func collect() -> [Finished] {
        condition.withLock {
            defer { state.finished = [] }
            return state.finished
        }
    }

    /// The tasks that the lanes are at, and a number that grows whenever one begins or ends, and while they compute.
    var heartbeat: Heartbeat {
        condition.withLock {
            Heartbeat(
                progress: state.progress &+ ComputeProgress.count,
                running: state.running.sorted { $0.key < $1.key }.map(\.value.task))
        }
    }

    /// No task waits, runs, or is finished and not collected.
    var isIdle: Bool {
        condition.withLock { state.waiting.isEmpty && state.running.isEmpty && state.finished.isEmpty }
    }

    /// Lets go of the model of the last task, unless a lane is at it.
    func forgetModel() {
        let idle = condition.withLock {
            let last = state.model
            state.model = nil
            return state.idle(last)
        }
        idle?.release()
    }

    /// Forgets what waits; the threads end with the tasks they run.
    func stop() {
        condition.withLock {
            state.isStopped = true
            state.waiting = []
            condition.broadcast()
        }
        for thread in threads { thread.join() }
    }

    // MARK: - A lane

    /// Memory that a lane computes in, for as long as it stays with one model. It holds the model no longer than a
    /// task.
    private struct Desk {
        weak var model: (any TaskModel)?
        var workspace = Workspace()
    }

    private func work(_ lane: Int) {
        var desk = Desk()
        while let assignment = next(lane) {
            if desk.model !== assignment.model { desk = Desk(model: assignment.model) }
            let start = ContinuousClock.now
            let outcome = perform(assignment, desk.workspace, since: start)
            let seconds = (ContinuousClock.now - start) / .seconds(1)
            let idle = condition.withLock {
                state.running[lane] = nil
                state.progress += 1
                state.finished.append(Finished(assignment: assignment, seconds: seconds, outcome: outcome))
                return state.idle(assignment.model)
            }
            idle?.release()
            wakeup.wake()
        }
    }

    private func perform(
        _ assignment: Assignment, _ workspace: Workspace, since start: ContinuousClock.Instant
    ) -> Finished.Outcome {
        let task = assignment.task
        let frames = TaskFrames(task.task, inputs: assignment.inputs, blobs: blobs)
        do {
            let note =
                if let performer = assignment.model as? any TaskPerformer {
                    try performer.perform(task, frames, workspace: workspace)
                } else {
                    try task.task.operation.perform(on: assignment.model, frames, workspace: workspace)
                }
            let (outputs, checksums) = try frames.answer()
            return .answered(
                TaskResult(
                    task: task.id, seconds: (ContinuousClock.now - start) / .seconds(1), outputs: outputs,
                    checksums: checksums, note: note))
        } catch let missing as MissingInput {
            return .missing(missing.blob)
        } catch let failure as TaskFailure {
            return .failed(reason: failure.reason)
        } catch {
            return .failed(reason: "\(error)")
        }
    }

    private func next(_ lane: Int) -> Assignment? {
        let (assignment, idle) = condition.withLock { () -> (Assignment?, (any TaskModel)?) in
            while state.waiting.isEmpty && !state.isStopped { condition.wait() }
            guard !state.isStopped else { return (nil, nil) }
            let assignment = state.waiting.removeFirst()
            let former = state.model
            state.running[lane] = (assignment.task.id, assignment.model)
            state.model = assignment.model
            state.progress += 1
            return (assignment, state.idle(former))
        }
        idle?.release()
        return assignment
    }
}
