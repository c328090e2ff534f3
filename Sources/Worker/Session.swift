import Engine
import Protocol

/// A worker's standing with a coordinator. The number names it, new for every session.
enum Session {
    /// Nobody has welcomed us: say hello at every beat.
    case seeking(UInt64)
    case joined(Membership)

    /// A session that nobody knows of yet.
    static func new() -> Session { .seeking(.random(in: 0 ... .max)) }

    var id: UInt64 {
        switch self {
        case .seeking(let id): id
        case .joined(let membership): membership.id
        }
    }

    var membership: Membership? { if case .joined(let membership) = self { membership } else { nil } }
}

/// A worker's part of a session that has begun. The loop's thread alone touches it.
final class Membership {
    let id: UInt64
    let welcome: Welcome
    /// Models that tasks may name.
    var models: [ModelDigest: ServedModel] = [:]
    /// The model that is being made ready; others wait behind it, in the order in which they were asked for.
    var preparing: PreparingModel?
    var waiting: [Preparation] = []
    /// Tasks that wait for blobs.
    var parked = ParkedTasks()
    /// Jobs that the log has spoken of.
    private var jobs: Set<UInt64> = []
    var tiles = 0

    init(id: UInt64, welcome: Welcome) {
        self.id = id
        self.welcome = welcome
    }

    /// Whether a task is the first of its job.
    func begins(job: UInt64) -> Bool {
        // Whoever numbers jobs without end gets no line for each.
        jobs.count < 1000 && jobs.insert(job).inserted
    }
}

/// A model that is ready.
struct ServedModel {
    let model: any TaskModel
    let precision: Precision
}

/// A model on its way to be ready.
enum PreparingModel {
    /// It is looked for or loaded on a thread of its own; where nobody wants it any more, for nothing.
    case loading(Preparation, isWanted: Bool)
    case fetching(ModelFetch)

    var preparation: Preparation {
        switch self {
        case .loading(let preparation, _): preparation
        case .fetching(let fetch): fetch.preparation
        }
    }
}

/// A model whose files come over the wire.
struct ModelFetch {
    let preparation: Preparation
    let download: ModelDownload
    /// Times that it was begun.
    let attempt: Int
    let began = ContinuousClock.now
    /// When the last piece came, or some of one.
    var lastPiece = ContinuousClock.now
}

/// Models that were loaded in this process, so that the next session need not load its own again.
struct LoadedModels {
    private struct Key: Hashable {
        let digest: ModelDigest
        let precision: Precision
    }

    private var models: [Key: any TaskModel] = [:]

    subscript(preparation: Preparation) -> (any TaskModel)? {
        get { models[Key(digest: preparation.manifest.digest, precision: preparation.precision)] }
        set { models[Key(digest: preparation.manifest.digest, precision: preparation.precision)] = newValue }
    }

    /// Forgets all models but those that a session serves.
    mutating func keep(only served: some Sequence<ServedModel>) {
        models = models.filter { entry in served.contains { $0.model === entry.value } }
    }
}
