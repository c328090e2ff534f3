import Engine
import Foundation
import Logging
import Protocol

/// Messages of the coordinator and of other threads.
extension FarmLoop {
    /// - Returns: why the worker ends, where it does.
    func receive(_ frames: [Frame]) throws -> WorkerEnding? {
        let message: CoordinatorMessage
        do {
            message = try CoordinatorMessage(frames: frames, operations: settings.operations)
        } catch WireError.version(let theirs, let ours) {
            return .refused(reason: "\(WireError.version(theirs: theirs, ours: ours))")
        } catch WireError.unreadableTask(let task, let cause) {
            connection.heard()
            if case .joined = session { fail(task, "\(cause)") }
            return nil
        } catch {
            logger.warning("message not understood", metadata: ["error": "\(error)"])
            return nil
        }
        connection.heard()
        switch message {
        case .welcome(let welcome):
            guard welcome.session == session.id, case .seeking = session else { return nil }
            return welcomed(welcome)
        case .refused(let reason):
            return .refused(reason: reason)
        case .prepare(let preparation):
            return try prepare(preparation)
        case .release(let model):
            return try release(model)
        case .task(let task, let inputs):
            take(task, inputs)
        case .blob(let id, let bytes):
            take(id, bytes)
        case .chunk(let model, let file, let offset, let bytes):
            return try take(model, file: file, offset: offset, bytes)
        case .heartbeat:
            break
        case .introduceYourself:
            // Leaving is over for a coordinator that has forgotten us; what still runs would be dropped there.
            guard departure == nil, case .joined = session else { return nil }
            logger.info("coordinator does not know this worker, joining anew")
            beginSession()
        case .stop(let reason):
            return stop(reason)
        }
        return nil
    }

    private func welcomed(_ welcome: Welcome) -> WorkerEnding? {
        if let required = welcome.requiredKernels, required != settings.kernels {
            return .refused(
                reason: "the farm takes kernels '\(required)' only, this worker has '\(settings.kernels)'")
        }
        join(welcome)
        logger.info("connected", metadata: ["endpoint": "\(settings.endpoint)"])
        return nil
    }

    /// The farm is over. Another may come, but not at once: this coordinator is about to close.
    private func stop(_ reason: String) -> WorkerEnding? {
        if settings.parent != nil { return .stopped(reason: reason) }
        // Else the connection's end was seen first.
        if let membership = session.membership {
            logger.info(
                "job over, waiting for the next", metadata: ["reason": "\(reason)", "tiles": "\(membership.tiles)"])
            beginSession(greets: false)
        }
        connection.expectSilence()
        return nil
    }

    /// Takes what other threads have for this one.
    /// - Returns: why the worker ends, where it does.
    func takeInbox() throws -> WorkerEnding? {
        let (reason, prepared) = link.inbox.withLock { inbox in
            defer { inbox.prepared = [] }
            return (inbox.leaving, inbox.prepared.filter { $0.session == session.id })
        }
        for prepared in prepared {
            if let ending = try finishLoading(prepared.outcome) { return ending }
        }
        if let reason, departure == nil { return leave(reason) }
        return nil
    }
}
