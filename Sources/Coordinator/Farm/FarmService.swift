import Engine
import Foundation
import Logging
import Protocol
import Synchronization

/// A farm and its job: they run on a thread of their own, because sockets belong to threads.
final class FarmService: Sendable {
    struct JobSettings: Sendable {
        var id: UInt64
        var plan: JobPlan
        var input: InputImage
        var storage: PlaneStorage
        var model: ModelServer
        /// Seconds between checkpoints, where the storage is a job folder.
        var checkpointSeconds: Double
        var output: RenderRequest.Output
    }

    private let configuration: Farm.Configuration
    private let settings: JobSettings
    private let stop: StopRequest
    private let logger: Logger
    private let outcome = Mutex<Result<FarmSummary, any Error>?>(nil)

    init(configuration: Farm.Configuration, job: JobSettings, stop: StopRequest, logger: Logger) {
        self.configuration = configuration
        settings = job
        self.stop = stop
        self.logger = logger
    }

    /// Errors are kept for `summary()`, so that local workers are stopped first, whatever happened.
    func run() async {
        await withCheckedContinuation { continuation in
            let work: @Sendable () -> Void = { [self] in
                let result = Result { try render() }
                outcome.withLock { $0 = result }
                continuation.resume()
            }
            do { _ = try OSThread(name: "farm", work) } catch {
                outcome.withLock { $0 = .failure(error) }
                continuation.resume()
            }
        }
    }

    /// - Parameter folder: where the job can be resumed; nil where it is lost
    /// - Throws: why there is no picture.
    func summary(folder: String?) throws -> FarmSummary {
        do {
            guard let outcome = outcome.withLock({ $0 }) else { throw OutputError.cancelled }
            return try outcome.get()
        } catch OutputError.cancelled {
            throw RunError.cancelledWriting(folder: folder)
        } catch let failure as Farm.Failure {
            switch failure {
            case .stopped(.cancelled, let done, let total):
                throw RunError.cancelled(done: done, total: total, folder: folder)
            case .stopped(.failed(let reason), _, _): throw RunError.localWorkers(reason)
            case .tileFailed(let pass, let tile, let reason, let saved):
                throw RunError.tileFailed(pass: pass, tile: tile, reason: reason, saved: saved)
            case .cannotSend(let reason): throw RunError.cannotSend(reason)
            }
        }
    }

    private func render() throws -> FarmSummary {
        let checkpointer = settings.storage.folder.map {
            Checkpointer(folder: $0, interval: settings.checkpointSeconds, logger: logger, now: Clock.now)
        }
        var isFinished = false
        // What is being written is written or given up.
        defer { checkpointer?.close(isFinished: isFinished) }
        let context = try SocketContext()
        let (summary, picture) = try farmOut(context, checkpointer)
        try OutputImage.write(picture, to: settings.output, stop: stop, logger: logger)
        isFinished = true
        return summary
    }

    /// The farm ends here, its socket with it: nobody reads while the output is written, and whoever comes finds the
    /// door closed.
    private func farmOut(
        _ context: SocketContext, _ checkpointer: Checkpointer?
    ) throws -> (FarmSummary, FinishedPicture) {
        let checkpoint = settings.storage.folder?.checkpoint, first = checkpoint?.pass ?? 0
        let pipeline = settings.plan.pipeline
        let job = Job(
            id: settings.id, plan: settings.plan,
            planes: try PlaneStore(
                pipeline, input: settings.input, storage: settings.storage, checkpoint: checkpoint),
            model: settings.model, checkpointer: checkpointer, failedTile: settings.output.png + ".failed-tile",
            startingAt: first, logger: logger)
        let farm = try Farm(
            configuration, serving: job, startingAt: first, context: context, stop: stop, logger: logger)
        let summary = try farm.serve()
        guard let canvas = job.planes.canvas(pipeline.output, before: pipeline.passes.count) else {
            throw PlaneError.gone(plane: pipeline.planes[pipeline.output].name)
        }
        return (summary, FinishedPicture(settings.plan.picture, input: settings.input, canvas: canvas))
    }
}
