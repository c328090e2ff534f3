import Engine
import Foundation
import Logging
import Protocol

/// How a worker comes by the models of jobs, one after the other.
extension FarmLoop {
    /// Times that a model is fetched anew when it arrives damaged.
    private static let attempts = 3

    /// A model that tasks are going to name.
    /// - Returns: why the worker ends, where it does.
    func prepare(_ preparation: Preparation) throws -> WorkerEnding? {
        guard let membership = session.membership, departure == nil else { return nil }
        let model = preparation.manifest.digest
        if let served = membership.models[model], served.precision == preparation.precision {
            connection.post(.ready(model: model, preparation.precision))
            return nil
        }
        if case .loading(preparation, _) = membership.preparing {
            membership.preparing = .loading(preparation, isWanted: true)
            return nil
        }
        // The same, said again.
        if membership.preparing?.preparation == preparation || membership.waiting.contains(preparation) { return nil }
        guard membership.models.count + membership.waiting.count < WireLimits.preparedModels else {
            connection.post(.unfit(model: model, reason: "more models than a worker prepares"))
            return nil
        }
        membership.waiting.append(preparation)
        return try prepareNext(membership)
    }

    /// No task names a model any more.
    func release(_ model: ModelDigest) throws -> WorkerEnding? {
        guard let membership = session.membership else { return nil }
        membership.models[model] = nil
        membership.waiting.removeAll { $0.manifest.digest == model }
        guard let preparing = membership.preparing, preparing.preparation.manifest.digest == model else { return nil }
        switch preparing {
        case .loading(let preparation, _):
            membership.preparing = .loading(preparation, isWanted: false)
            return nil
        case .fetching:
            membership.preparing = nil
            return try prepareNext(membership)
        }
    }

    /// Begins with the model that waits longest, unless another is being made ready.
    private func prepareNext(_ membership: Membership) throws -> WorkerEnding? {
        while membership.preparing == nil, !membership.waiting.isEmpty {
            let preparation = membership.waiting.removeFirst()
            if let model = loaded[preparation] {
                serve(preparation, model, membership)
                continue
            }
            // Memory for it: what this session does not serve goes.
            loaded.keep(only: membership.models.values)
            if membership.models.isEmpty { link.lanes.forgetModel() }
            try find(preparation, membership)
        }
        return nil
    }

    /// Looks for a model and loads it.
    private func find(_ preparation: Preparation, _ membership: Membership) throws {
        let (manifest, precision) = (preparation.manifest, preparation.precision)
        switch settings.model {
        case .loaded(let model):
            serve(preparation, model, membership)
        case .folder(let folder, let load):
            let words = settings.words
            try self.load(preparation, membership) {
                guard ModelStore.matches(manifest, folder: folder) else {
                    let other = OtherModel(folder: folder.path, wanted: manifest.digest)
                    return .unfit(.refused(reason: words(other)))
                }
                return .loaded(try load(folder, precision))
            }
        case .store(let store, let load):
            try self.load(preparation, membership) {
                try store.find(manifest).map { .loaded(try load($0, precision)) } ?? .absent
            }
        }
    }

    /// Does what takes its time with a model on a thread of its own, so that heartbeats go on.
    private func load(
        _ preparation: Preparation, _ membership: Membership,
        _ work: @escaping @Sendable () throws -> FarmLink.LoadOutcome
    ) throws {
        membership.preparing = .loading(preparation, isWanted: true)
        let (link, session) = (link, membership.id)
        _ = try OSThread(name: "model", stackBytes: 16 << 20) {
            let outcome: FarmLink.LoadOutcome
            do { outcome = try work() } catch {
                outcome = .unfit(.failed(reason: link.settings.words(error)))
            }
            link.inbox.withLock { $0.prepared.append((session, outcome)) }
            link.wakeup.wake()
        }
    }

    /// Goes on with what came of looking for a model, or of loading it.
    /// - Returns: why the worker ends, where it does.
    func finishLoading(_ outcome: FarmLink.LoadOutcome) throws -> WorkerEnding? {
        guard let membership = session.membership, case .loading(let preparation, let isWanted) = membership.preparing
        else { return nil }
        membership.preparing = nil
        switch outcome {
        case .loaded(let model):
            loaded[preparation] = model
            if isWanted { serve(preparation, model, membership) }
        case _ where !isWanted:
            break
        case .absent:
            return try fetch(preparation, attempt: 1, membership)
        case .unfit(let ending):
            return try unfit(preparation, ending, membership)
        }
        return try prepareNext(membership)
    }

    /// From here on tasks may name the model.
    private func serve(_ preparation: Preparation, _ model: any TaskModel, _ membership: Membership) {
        let digest = preparation.manifest.digest
        membership.models[digest] = ServedModel(model: model, precision: preparation.precision)
        guard departure == nil else { return }
        connection.post(.ready(model: digest, preparation.precision))
        logger.info(
            "model ready", metadata: ["model": "\(digest.short)", "precision": "\(preparation.precision.rawValue)"])
    }

    /// A worker that serves other models goes on with them; one that has none is of no use.
    private func unfit(
        _ preparation: Preparation, _ ending: WorkerEnding, _ membership: Membership
    ) throws -> WorkerEnding? {
        let digest = preparation.manifest.digest
        connection.post(.unfit(model: digest, reason: ending.reason))
        membership.preparing = nil
        guard !membership.models.isEmpty || !membership.waiting.isEmpty else { return end(ending) }
        logger.warning(
            "model cannot be served", metadata: ["model": "\(digest.short)", "reason": "\(ending.reason)"])
        return try prepareNext(membership)
    }

    // MARK: - Fetching

    /// - Returns: why the worker ends, where it does.
    private func fetch(
        _ preparation: Preparation, attempt: Int, _ membership: Membership
    ) throws -> WorkerEnding? {
        guard case .store(let store, _) = settings.model else { return nil }
        let fetch: ModelFetch
        do {
            let download = try store.download(preparation.manifest)
            fetch = ModelFetch(preparation: preparation, download: download, attempt: attempt)
        } catch {
            return try unfit(preparation, .failed(reason: settings.words(error)), membership)
        }
        membership.preparing = .fetching(fetch)
        try proceed(with: fetch, membership)
        return nil
    }

    /// Asks for more of a model, or installs it when all of it is here.
    private func proceed(with fetch: ModelFetch, _ membership: Membership) throws {
        for request in fetch.download.requests() { connection.post(request) }
        if fetch.download.isComplete { try install(fetch, membership) }
    }

    /// Takes a piece of a model.
    /// - Returns: why the worker ends, where it does.
    func take(_ model: ModelDigest, file: Int, offset: Int, _ bytes: Frame) throws -> WorkerEnding? {
        guard let membership = session.membership, case .fetching(var fetch) = membership.preparing,
            fetch.preparation.manifest.digest == model
        else { return nil }
        fetch.lastPiece = .now
        membership.preparing = .fetching(fetch)
        do {
            try fetch.download.receive(file: file, offset: offset, bytes)
        } catch ModelFileError.unexpectedPiece {
            // Asked for before the download began anew.
            return nil
        } catch ModelFileError.damaged(let name) where fetch.attempt < Self.attempts {
            logger.warning(
                "model arrived damaged, fetching it again",
                metadata: ["file": "\(name)", "attempt": "\(fetch.attempt)"])
            return try self.fetch(fetch.preparation, attempt: fetch.attempt + 1, membership)
        } catch {
            return try unfit(fetch.preparation, .failed(reason: settings.words(error)), membership)
        }
        try proceed(with: fetch, membership)
        return nil
    }

    private func install(_ fetch: ModelFetch, _ membership: Membership) throws {
        guard case .store(_, let load) = settings.model else { return }
        logger.info(
            "model fetched",
            metadata: [
                "model": "\(fetch.preparation.manifest.digest.short)", "bytes": "\(fetch.download.receivedBytes)",
                "seconds": "\(Self.format(ContinuousClock.now - fetch.began))",
            ])
        let precision = fetch.preparation.precision
        // Handed to the thread that starts here, and not used by this one again. Where another worker of this machine
        // was faster, its copy is read and hashed there.
        nonisolated(unsafe) let download = fetch.download
        try self.load(fetch.preparation, membership) { .loaded(try load(download.install(), precision)) }
    }
}
