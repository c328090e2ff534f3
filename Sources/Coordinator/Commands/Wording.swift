import ArgumentParser
import Engine
import Foundation
import Protocol

/// Errors of the libraries in words for the user of these commands: what, why, and which option to change. One line.
enum Wording {
    static func words(for error: any Error) -> String {
        switch error {
        case let error as RequestError: words(for: error)
        case let error as RunError: words(for: error)
        case let error as TilingError: words(for: error)
        case let error as JobFolderError: words(for: error)
        case let error as PipelineError:
            "the method's pipeline contradicts itself (\(error)): this is a fault of tilefarm"
        case let error as StorageError: words(for: error)
        case let error as NoiseScheduleError: "\(error)"
        case let error as KeyFileError: words(for: error)
        default: "\(error)"
        }
    }

    /// Whether what was typed is wrong, rather than something that failed: exit code 2.
    static func isUsage(_ error: any Error) -> Bool {
        switch error {
        case let error as RequestError:
            switch error {
            case .notForUpscaling, .laterVersion: false
            default: true
            }
        case is TilingError: true
        case let error as KeyFileError:
            switch error {
            case .exists, .badName, .nameTaken, .otherRole: true
            case .unreadable, .openToOthers, .badLine, .missing, .notWritten: false
            }
        case let error as RunError:
            switch error {
            case .inputIsOutput, .outputInPyramid, .diskTooSmall, .outputNeedsMemory, .modelNeedsMemory: true
            case .noWorkerProgram, .localWorkers, .tileFailed, .cannotSend, .cancelled, .cancelledWriting: false
            }
        default: false
        }
    }

    /// Whether the user has ended it: exit code 130.
    static func isInterrupt(_ error: any Error) -> Bool {
        switch error as? RunError {
        case .cancelled, .cancelledWriting: true
        default: false
        }
    }

    /// Remarks of a farm about options that its users can change.
    static let farm = Farm.FarmWords(
        tooLittleMemory: { needed, lanes, machine in
            "the job's model takes \(ByteCount(needed)) with \(lanes) lanes and this machine has "
                + "\(ByteCount(machine)): start it with fewer --lanes, or the job with --precision float16"
        },
        mixedKernels:
            "workers with different kernels: the output's bytes depend on which tiles they take; "
            + "--kernels KIND admits one kind")

    // MARK: Requests

    private static func words(for error: RequestError) -> String {
        switch error {
        case .notForUpscaling(let model):
            "--model \(model): the folder does not say how it enlarges images (no tilefarm.json with \"task\": "
                + "\"super-resolution\"); use a super-resolution model"
        case .unknownMethod(let name, let known):
            "there is no method '\(name)': choose one of \(known.joined(separator: ", "))"
        case .unknownSampler(let name, let known):
            "--sampler \(name): there is none of this name, choose one of \(known.joined(separator: ", "))"
        case .laterVersion(let version):
            "the request is of version \(version) and this program knows \(RenderRequest.version): "
                + "use the tilefarm that made it, or a later one"
        case .notOfModel(let field, let model):
            "\(option(field)) means nothing to this kind of model (\(model)): leave it out"
        case .outputTooLarge(let width, let height, let most):
            "the output would be \(width)x\(height) pixels, over the limit of \(most) a side: choose a smaller --scale"
        case .outputTooSmall(let width, let height, let least):
            "the output would be \(width)x\(height) pixels, and this model needs \(least) a side at least: "
                + "choose a larger picture or --scale"
        case .scaleOfModel(let scale, let own):
            "--scale \(scale): this model enlarges by \(own), leave --scale out"
        case .noiseLevel(let level, let most):
            "--noise-level \(level): this model was trained up to \(most), choose no more"
        case .windowTooLarge(let field, let bytes, let most):
            "\(option(field)): a window of this model would be sent as \(ByteCount(bytes)), over the limit of "
                + "\(ByteCount(most)): choose a smaller one"
        case .impossibleTask(let pass, let error):
            "a tile of the pass \(pass) is not to be sent (\(words(for: error))): choose a smaller --tile or --vae-tile"
        }
    }

    private static func words(for error: FieldError) -> String {
        switch error {
        case .malformed: "it cannot be read"
        case .missing(let field): "\(field) is missing"
        case .outOfRange(let field, let value, let allowed): "\(field) is \(value), allowed is \(allowed)"
        case .notFinite(let field): "\(field) is not finite"
        }
    }

    private static func option(_ field: RequestError.Field) -> String {
        switch field {
        case .prompt: "--prompt"
        case .negativePrompt: "--negative-prompt"
        case .guidanceScale: "--guidance-scale"
        case .noiseLevel: "--noise-level"
        case .strength: "--strength"
        case .precision: "--precision"
        case .tile: "--tile"
        case .autoencoderTile: "--vae-tile"
        case .scale: "--scale"
        }
    }

    private static func words(for error: TilingError) -> String {
        switch error {
        case .unalignedTile(let tile, let alignment):
            "--tile \(tile) is not a positive multiple of the model's alignment, \(alignment): "
                + "try \(error.nearest(tile, alignment))"
        case .unalignedHalo(let halo, let alignment):
            "--halo \(halo) is not a multiple of the model's alignment, \(alignment): "
                + "try \(error.nearest(halo, alignment))"
        case .unalignedOverlap(let width, let alignment):
            "--overlap-width \(width) is not a multiple of the model's alignment, \(alignment): "
                + "try \(error.nearest(width, alignment))"
        case .haloTooWide(let halo, let tile):
            "--halo \(halo) leaves nothing of a tile of \(tile) to write: choose a halo below \(tile / 2)"
        case .overlapTooWide(let width, let tile):
            "--overlap-width \(width) does not leave a tile of \(tile) room to advance: choose less than \(tile)"
        case .offsetRange(let range, let tile):
            "--offset-range \(range) is outside 1...\(tile): choose a range no larger than the tile"
        case .unalignedCanvas: "\(error)"
        }
    }

    // MARK: Runs

    private static func words(for error: RunError) -> String {
        switch error {
        case .inputIsOutput(let path): "-o \(path): is the input itself; choose another file"
        case .outputInPyramid(let path):
            "-o \(path): lies in the folder of the pyramid (--deepzoom), which is made anew: choose another place"
        case .diskTooSmall(let path, let needed, let free):
            "\(path): the job needs \(ByteCount(needed)) of disk there and \(ByteCount(free)) are free: make room, "
                + "put it elsewhere (--job), or store the canvas as float16 (--storage)"
        case .outputNeedsMemory(let needed, let machine):
            "the output needs \(ByteCount(needed)) of memory and this machine has \(ByteCount(machine)): "
                + "choose a smaller --scale or a part of the picture"
        case .modelNeedsMemory(let needed, let machine):
            "a job with this model needs \(ByteCount(needed)) on this machine, which has \(ByteCount(machine)): "
                + "choose fewer --workers, --precision float16, or workers elsewhere (--bind)"
        case .noWorkerProgram(let path):
            "\(path): the worker program is not there; build it with `swift build -c release` and keep it beside "
                + "tilefarm"
        case .localWorkers(let reason): reason
        case .tileFailed(let pass, let tile, let reason, let saved):
            "tile \(tile) of step \(pass) failed on every try: \(reason)"
                + (saved.map { "; its task is in \($0)" } ?? "")
        case .cannotSend(let reason): "a task cannot be sent (\(reason)): choose a smaller --tile"
        case .cancelled(let done, let total, nil):
            "stopped: \(done) of \(total) tiles were done and are lost, no output was written"
        case .cancelled(let done, let total, let folder?):
            "stopped: \(done) of \(total) tiles were done; `tilefarm resume \(folder.shellQuoted)` goes on from the "
                + "last checkpoint"
        case .cancelledWriting(nil): "stopped while the output was being written: it was not kept"
        case .cancelledWriting(let folder?):
            "stopped while the output was being written: it was not kept; "
                + "`tilefarm resume \(folder.shellQuoted)` writes it"
        }
    }

    private static func words(for error: StorageError) -> String {
        if case .tooLarge(let path) = error {
            "\(path): the job's canvas is larger than any disk: choose a smaller --scale"
        } else {
            "\(error)"
        }
    }

    private static func words(for error: JobFolderError) -> String {
        switch error {
        case .missing(let path): "\(path): there is no job here; a job folder is made by `tilefarm upscale --job`"
        case .hasJob(let path):
            "--job \(path): holds a job already: `tilefarm resume \(path.shellQuoted)` goes on with it, "
                + "or choose another folder"
        case .notEmpty(let path):
            "--job \(path): holds other files: choose a folder that is empty or not there yet"
        case .inUse(let path): "\(path): another tilefarm is at work on this job; stop that one first"
        case .unusable(let path, let reason): "\(path): cannot be used as a job folder: \(reason)"
        case .otherVersion(let path, let format):
            "\(path): was made by another version of tilefarm (format \(format), this one has \(JobFolder.format)): "
                + "resume it with that version, or start anew"
        case .damaged(let path, let reason):
            "\(path): is damaged (\(reason)): the job cannot be resumed, start it anew"
        case .changed(let path, let what):
            "\(path): \(words(for: what)) not what the job was started with: bring that back, or start anew"
        case .finished(let path, let output): "\(path): this job is finished, its output is \(output)"
        case .claimed(let path, let kind):
            "\(option(kind)) \(path): the job folder has a file of this name for itself: choose another"
        case .cannotWrite(let path, let code): "\(path): cannot be written: \(String(cString: strerror(code)))"
        }
    }

    private static func words(for change: JobChange) -> String {
        switch change {
        case .input: "its \(JobFolder.inputName) is"
        case .model(let path): "the model \(path ?? "that comes with tilefarm") is"
        case .plan: "what this version of tilefarm makes of its request is"
        }
    }

    private static func option(_ path: RequestPath) -> String {
        switch path {
        case .input: "the input"
        case .output: "-o"
        case .pyramid: "--deepzoom"
        }
    }

    // MARK: Keys

    private static func words(for error: KeyFileError) -> String {
        switch error {
        case .unreadable: "\(error); `tilefarm keygen` makes them"
        case .badLine: "\(error); mend it or make new keys with `tilefarm keygen`"
        case .missing: "\(error); make new keys with `tilefarm keygen`"
        case .otherRole: "\(error); make them with `tilefarm keygen FILE`"
        case .badName: "\(error); choose one with --name"
        case .nameTaken: "\(error); choose another with --name, or take that line out"
        case .openToOthers, .exists, .notWritten: "\(error)"
        }
    }

    /// Remarks in a coordinator's file of keys.
    static let coordinatorKeys = """
        TileFarm: the keys of a coordinator. Who can read this file can pass for it; keep it where `tilefarm` runs.
        A line `allow NAME PUBLIC-KEY` for each worker that may join. `tilefarm keygen n1.keys --for THIS-FILE` makes a
        worker's keys and adds its line. Lines that are added or taken away count at once, also while a job runs.
        """

    /// Remarks in a worker's file of keys.
    static let workerKeys = """
        TileFarm: the keys of a worker. Move this file to the worker's machine and start `tilefarm-worker --keys FILE` \
        there.
        """
}

/// A mistake in what was typed, in words.
