import Protocol

/// Why a command cannot be carried out, in words for its user.
package enum CommandError: Error, Equatable, CustomStringConvertible {
    case noWorkerProgram(String)
    case notForUpscaling(model: String)
    case outputTooLarge(width: Int, height: Int)
    case outputNeedsMemory(needed: Int, machine: Int)
    case modelNeedsMemory(needed: Int, machine: Int)
    case scale(String)
    case scaleOfModel(String, scale: Int)
    case inputTooSmall(width: Int, height: Int, least: Int)
    case noiseLevel(Int, most: Int)
    case windowTooLarge(option: String, bytes: Int)
    case optionOfOtherModels(String, model: String)
    case inputIsOutput(String)
    case openEndpoint(String)
    case localWorkers(String)
    case tileFailed(step: String, tile: Int, reason: String, saved: String?)
    case cannotSend(String)
    case cancelled(done: Int, of: Int)
    /// A job that can be resumed.
    case interrupted(done: Int, of: Int, folder: String)
    case cancelledWriting
    case interruptedWriting(folder: String)
    case outputInPyramid(String)
    case diskTooSmall(path: String, needed: Int, free: Int)
    case verificationFailed(Int)

    package var description: String {
        switch self {
        case .noWorkerProgram(let path):
            "\(path): the worker program is not there; build it with `swift build -c release` and keep it beside tilefarm"
        case .notForUpscaling(let model):
            "--model \(model): the folder does not say how it enlarges images (no tilefarm.json with \"task\": \"super-resolution\"); use a super-resolution model"
        case .outputTooLarge(let width, let height):
            "the output would be \(width)x\(height) pixels, over the limit of 1048576 a side: choose a smaller --scale"
        case .outputNeedsMemory(let needed, let machine):
            "the output needs \(PlanCommand.size(needed)) of memory and this machine has \(PlanCommand.size(machine)): choose a smaller --scale or a part of the picture"
        case .modelNeedsMemory(let needed, let machine):
            "a job with this model needs \(PlanCommand.size(needed)) on this machine, which has \(PlanCommand.size(machine)): choose fewer --workers, --precision float16, or workers elsewhere (--bind)"
        case .scale(let scale):
            "--scale \(scale): must be from 1 to 64"
        case .scaleOfModel(let scale, let own):
            "--scale \(scale): this model enlarges by \(own), leave --scale out"
        case .inputTooSmall(let width, let height, let least):
            "the output would be \(width)x\(height) pixels, and this model needs \(least) a side at least: choose a larger picture or --scale"
        case .noiseLevel(let level, let most):
            "--noise-level \(level): this model was trained up to \(most), choose no more"
        case .windowTooLarge(let option, let bytes):
            "\(option): a window of this model would be sent as \(PlanCommand.size(bytes)), over the limit of \(PlanCommand.size(WireLimits.tensorBytes)): choose a smaller one"
        case .optionOfOtherModels(let option, let model):
            "\(option) means nothing to this kind of model (\(model)): leave it out"
        case .inputIsOutput(let path):
            "-o \(path): is the input itself; choose another file"
        case .openEndpoint(let endpoint):
            "--bind \(endpoint): anybody who reaches this address could join or read the job; give --keys FILE (`tilefarm keygen` makes it), bind to 127.0.0.1, or say --insecure on a network that you trust"
        case .localWorkers(let reason):
            "\(reason)"
        case .tileFailed(let step, let tile, let reason, let saved):
            "tile \(tile) of step \(step) failed on every try: \(reason)"
                + (saved.map { "; its task is in \($0)" } ?? "")
        case .cannotSend(let reason):
            "a task cannot be sent (\(reason)): choose a smaller --tile"
        case .interrupted(let done, let total, let folder):
            "stopped: \(done) of \(total) tiles were done; `tilefarm resume \(folder)` goes on from the last checkpoint"
        case .interruptedWriting(let folder):
            "stopped while the output was being written: it was not kept; `tilefarm resume \(folder)` writes it"
        case .outputInPyramid(let path):
            "-o \(path): lies in the folder of the pyramid (--deepzoom), which is made anew: choose another place"
        case .diskTooSmall(let path, let needed, let free):
            "\(path): the job needs \(PlanCommand.size(needed)) of disk there and \(PlanCommand.size(free)) are free: make room, put it elsewhere (--job), or store the canvas as float16 (--storage)"
        case .cancelledWriting:
            "stopped while the output was being written: it was not kept"
        case .cancelled(let done, let total):
            "stopped: \(done) of \(total) tiles were done and are lost, no output was written"
        case .verificationFailed(let count):
            "\(count) tensor\(count == 1 ? " is" : "s are") outside the tolerance"
        }
    }

    /// What was typed, rather than what failed.
    var isUsage: Bool {
        switch self {
        case .outputTooLarge, .outputNeedsMemory, .modelNeedsMemory, .scaleOfModel, .inputTooSmall, .noiseLevel,
            .windowTooLarge, .optionOfOtherModels, .inputIsOutput, .outputInPyramid, .diskTooSmall:
            true
        default: false
        }
    }
}
