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
        var model: LoadedModel
    }

    struct Finished: Sendable {
        var session: UInt64
        var task: TaskID
        var seconds: Double
        var outcome: Result<LaneAnswer, TaskFailure>
        /// CRC-32C of the answer, made on the lane's thread.
        var checksum: UInt32 = 0
    }

    struct TaskFailure: Error {
        var reason: String
    }

    private struct State {
        var waiting: [Assignment] = []
        var running: [Int: TaskID] = [:]
        var finished: [Finished] = []
        var progress: UInt64 = 0
        /// What each lane works with, as long as it works.
        var models: [Int: (model: LoadedModel, perform: LaneWork)] = [:]
        var isStopped = false
    }

    let count: Int
    /// Tasks that may wait or run: one running and one prefetched for every lane.
    var credit: Int { 2 * count }

    private let condition = NSCondition()
    private var state = State()
    private let wakeup: Wakeup
    private var threads: [OSThread] = []

    /// - Parameter wakeup: called when a task is finished.
    init(count: Int, wakeup: Wakeup) {
        self.count = count
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

    /// What the lanes are at, and a number that grows whenever one begins or ends, and while they compute.
    var heartbeat: Heartbeat {
        condition.withLock {
            Heartbeat(
                progress: state.progress &+ ComputeProgress.count,
                running: state.running.sorted { $0.key < $1.key }.map(\.value))
        }
    }

    /// No task waits, runs, or is finished and not collected.
    var isIdle: Bool {
        condition.withLock { state.waiting.isEmpty && state.running.isEmpty && state.finished.isEmpty }
    }

    /// Lets go of models that no lane is at: an idle lane would hold its last one until its next task.
    func forgetModels() {
        condition.withLock { state.models = state.models.filter { state.running[$0.key] != nil } }
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

    private func work(_ number: Int) {
        while let assignment = next(number) {
            let start = ContinuousClock.now
            let outcome: Result<LaneAnswer, TaskFailure>
            var checksum: UInt32 = 0
            do {
                let perform = condition.withLock { () -> LaneWork in
                    if let lane = state.models[number], lane.model === assignment.model { return lane.perform }
                    let perform = assignment.model.makeLane()
                    state.models[number] = (assignment.model, perform)
                    return perform
                }
                let answer = try perform(assignment.task.work, assignment.inputs)
                let sum = answer.frame.checksum(of: assignment.task.work.answerElements)
                checksum = sum.crc32c
                // The coordinator would take it for a lie.
                outcome =
                    sum.isFinite
                    ? .success(answer)
                    : .failure(
                        TaskFailure(
                            reason: "the answer has values that are not finite, or too large for the canvas's storage"))
            } catch {
                outcome = .failure(TaskFailure(reason: "\(error)"))
            }
            let seconds = (ContinuousClock.now - start) / .seconds(1)
            condition.withLock {
                state.running[number] = nil
                state.progress += 1
                state.finished.append(
                    Finished(
                        session: assignment.session, task: assignment.task.id, seconds: seconds, outcome: outcome,
                        checksum: checksum))
            }
            wakeup.wake()
        }
    }

    private func next(_ lane: Int) -> Assignment? {
        condition.withLock {
            while state.waiting.isEmpty && !state.isStopped { condition.wait() }
            guard !state.isStopped else { return nil }
            let assignment = state.waiting.removeFirst()
            state.running[lane] = assignment.task.id
            state.progress += 1
            return assignment
        }
    }
}
