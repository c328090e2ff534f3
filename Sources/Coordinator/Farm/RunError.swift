import Engine

/// Why a request cannot be rendered. The program's commands word it.
package enum RunError: Error, Equatable {
    case inputIsOutput(String)
    /// The output lies in the folder of the pyramid, which is made anew.
    case outputInPyramid(String)
    case diskTooSmall(path: String, needed: Int, free: Int)
    case outputNeedsMemory(needed: Int, machine: Int)
    case modelNeedsMemory(needed: Int, machine: Int)
    /// The worker program is not where this one is.
    case noWorkerProgram(String)
    case localWorkers(String)
    case tileFailed(pass: String, tile: Int, reason: String, saved: String?)
    case cannotSend(String)
    /// - Parameter folder: where the job can be resumed; nil where it is lost
    case cancelled(done: Int, total: Int, folder: String?)
    case cancelledWriting(folder: String?)
}
