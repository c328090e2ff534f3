import Engine
import Foundation
import Protocol

/// A model that does tasks in its own way, whatever their operations: echoes, and what tests stand in for a model.
package protocol TaskPerformer: TaskModel {
    /// - Returns: what the user should know of it, in one line; nil if nothing.
    func perform(_ task: FarmTask, _ tensors: any TaskTensors, workspace: Workspace) throws -> String?
}

/// Answers with zeros, after so many seconds in which the processor is not used: what is left is the coordinator's own
/// cost and the wire's, or what unequal workers do to a job.
package final class Echo: TaskPerformer {
    private let seconds: Double

    package init(seconds: Double) { self.seconds = seconds }

    package func perform(_ task: FarmTask, _ tensors: any TaskTensors, workspace: Workspace) throws -> String? {
        let end = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < end {
            ComputeProgress.advance()
            Thread.sleep(forTimeInterval: min(0.1, (end - ContinuousClock.now) / .seconds(1)))
        }
        for (index, slot) in task.task.operation.outputs.enumerated() {
            if slot.element == .float64 {
                tensors.write(index, doubles: Array(repeating: 0, count: slot.count))
            } else {
                let zeros = [Float](repeating: 0, count: slot.count)
                try tensors.write(index) { write in write(zeros.span, 0) }
            }
        }
        return nil
    }
}

/// The user's copy of a model is another one than the job's.
package struct OtherModel: Error, CustomStringConvertible {
    package var folder: String
    package var wanted: ModelDigest

    package var description: String { "the model in \(folder) is not the job's (\(wanted.short))" }
}

/// Where a worker has the models of jobs from.
package enum ModelSource: Sendable {
    package typealias Load = @Sendable (URL, Precision) throws -> any TaskModel

    /// From the coordinator, kept in a store.
    case store(ModelStore, load: Load)
    /// The user's copy; a job with another model is refused.
    case folder(URL, load: Load)
    /// No files are needed.
    case loaded(any TaskModel)

    /// Loads a model as the engine has it.
    /// - Throws: what is wrong with the folder, `ModelFolderError` and others.
    @Sendable
    package static func load(_ folder: URL, precision: Precision) throws -> any TaskModel {
        try ModelFolder(url: folder).load(precision: precision)
    }
}
