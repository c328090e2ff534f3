public import Engine
import Synchronization

/// A worker's blobs, of no more bytes than it has announced; what was named longest ago goes first. Any thread may use
/// it.
public final class BlobStore: Sendable {
    private struct State {
        var recent: RecentBlobs
        var frames: [BlobID: Frame] = [:]
    }

    /// Bytes that blobs may take, each counted with `WireLimits.blobOverhead`.
    public let capacity: Int
    private let state: Mutex<State>

    public init(capacity: Int) {
        self.capacity = capacity
        state = Mutex(State(recent: RecentBlobs(capacity: capacity)))
    }

    /// Bytes that blobs count in a store, each once. Sizes are within `TaskLimits`.
    public static func cost(of blobs: [(id: BlobID, bytes: Int)]) -> Int {
        var seen: Set<BlobID> = []
        return blobs.reduce(0) { $0 + (seen.insert($1.id).inserted ? RecentBlobs.cost(of: $1.bytes) : 0) }
    }

    /// Bytes that all blobs here count.
    public var byteCount: Int { state.withLock { $0.recent.byteCount } }

    /// Why a blob is not kept.
    public enum Refusal: Error, Hashable, CustomStringConvertible {
        /// The bytes are not those that the name is of.
        case otherDigest
        /// It does not fit beside those that must stay.
        case noRoom(bytes: Int, capacity: Int)

        public var description: String {
            switch self {
            case .otherDigest: "its bytes have another SHA-256 than its name"
            case .noRoom(let bytes, let capacity): "it has \(bytes) bytes, there is room for \(capacity)"
            }
        }
    }

    /// Keeps a blob, for which others may have to go.
    /// - Parameter pinned: blobs that must stay.
    /// - Throws: `Refusal`; then nothing of it is kept.
    public func put(_ id: BlobID, _ bytes: Frame, keeping pinned: Set<BlobID> = []) throws(Refusal) {
        guard bytes.byteCount <= capacity else { throw .noRoom(bytes: bytes.byteCount, capacity: capacity) }
        guard bytes.blobID == id else { throw .otherDigest }
        let isKept = state.withLock { state in
            guard let gone = state.recent.insert(id, bytes: bytes.byteCount, keeping: pinned) else { return false }
            for id in gone { state.frames[id] = nil }
            state.frames[id] = bytes
            return true
        }
        guard isKept else { throw .noRoom(bytes: bytes.byteCount, capacity: capacity) }
    }

    /// The bytes of a blob; nil where it is not here (any more). Looking is no use of it: uses have the order of the
    /// messages.
    public func bytes(of id: BlobID) -> Frame? { state.withLock { $0.frames[id] } }

    /// A task that names these blobs has come.
    public func use(_ ids: some Sequence<BlobID>) {
        state.withLock { state in
            for id in ids { state.recent.use(id) }
        }
    }

    /// Those of the blobs that are not here, each once.
    public func missing(of ids: some Sequence<BlobID>) -> [BlobID] {
        state.withLock { state in
            ids.reduce(into: []) { if state.frames[$1] == nil, !$0.contains($1) { $0.append($1) } }
        }
    }

    public func removeAll() { state.withLock { $0 = State(recent: RecentBlobs(capacity: capacity)) } }
}
