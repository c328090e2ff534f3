import Engine
import Foundation
import Protocol

/// What a lane answers: the frame, and what the user should know of it, if anything.
package struct LaneAnswer: Sendable {
    package var frame: Frame
    package var note: String?

    package init(_ frame: Frame, note: String? = nil) {
        self.frame = frame
        self.note = note
    }
}

/// A lane's own way of doing work, workspace included; it stays on the lane's thread. The inputs are what
/// `Work.inputByteCounts` says, the answer's size is `Work.answerByteCount`.
package typealias LaneWork = (_ work: Work, _ inputs: [Frame]) throws -> LaneAnswer

/// A model in memory, shared by all lanes.
package final class LoadedModel: Sendable {
    package let makeLane: @Sendable () -> LaneWork

    package init(makeLane: @escaping @Sendable () -> LaneWork) {
        self.makeLane = makeLane
    }

    /// Answers with zeros, after so many seconds in which the processor is not used: what is left is the coordinator's
    /// own cost and the wire's, or what unequal workers do to a job.
    package static func echo(seconds: Double) -> LoadedModel {
        LoadedModel {
            { work, _ in
                let end = ContinuousClock.now + .seconds(seconds)
                while ContinuousClock.now < end {
                    ComputeProgress.advance()
                    Thread.sleep(forTimeInterval: min(0.1, (end - ContinuousClock.now) / .seconds(1)))
                }
                return LaneAnswer(Frame(zeroBytes: work.answerByteCount))
            }
        }
    }
}

/// Where a worker has the job's model from.
package enum ModelSource: Sendable {
    package typealias Load = @Sendable (URL, Precision) throws -> LoadedModel

    /// From the coordinator, kept in a store.
    case store(ModelStore, load: Load)
    /// The user's copy; a job with another model is refused.
    case folder(URL, load: Load)
    /// No files are needed.
    case loaded(LoadedModel)
}
