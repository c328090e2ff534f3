import Engine
import Foundation
import Protocol

/// A lane's own denoiser, workspace included; it stays on the lane's thread.
///
/// The sample is window.height x window.width x channels (nil: noise from the seed), the conditioning source.height x
/// source.width x 3, the answer what `request.answer` says.
package typealias LaneDenoiser = (_ request: DenoiseRequest, _ sample: Frame?, _ conditioning: Frame) throws -> Frame

/// A model in memory, shared by all lanes.
package final class LoadedModel: Sendable {
    let makeLane: @Sendable () -> LaneDenoiser

    package init(makeLane: @escaping @Sendable () -> LaneDenoiser) {
        self.makeLane = makeLane
    }

    /// Answers with zeros at once: what is left is the coordinator's own cost and the wire's.
    package static let echo = LoadedModel {
        { request, _, _ in Frame(zeros: request.answerFloatCount) }
    }
}

/// Where a worker has the job's model from.
package enum ModelSource: Sendable {
    /// From the coordinator, kept in a store.
    case store(ModelStore, load: @Sendable (URL) throws -> LoadedModel)
    /// The user's copy; a job with another model is refused.
    case folder(URL, load: @Sendable (URL) throws -> LoadedModel)
    /// No files are needed.
    case loaded(LoadedModel)
}
