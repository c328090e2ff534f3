public import Engine

/// Blobs that a coordinator has sent a worker and the worker still keeps, if it does as it announced.
///
/// It may be wrong in either direction, and only time depends on that: a worker that lacks a blob says so, one that is
/// sent a blob twice keeps one.
public struct BlobLedger: Sendable {
    private var held: RecentBlobs

    /// - Parameter capacity: bytes that the worker keeps blobs in
    public init(capacity: Int) { held = RecentBlobs(capacity: capacity) }

    /// Records that a task is sent which names these blobs.
    /// - Returns: the blobs to be sent before it, in this order.
    public mutating func toSend(before blobs: [(id: BlobID, bytes: Int)]) -> [BlobID] {
        var lacking: [BlobID] = []
        // One that is sent may push out another that the same task names.
        while let next = blobs.first(where: { !held.contains($0.id) && !lacking.contains($0.id) }) {
            lacking.append(next.id)
            sent(next.id, bytes: next.bytes)
        }
        for blob in blobs { held.use(blob.id) }
        return lacking
    }

    /// Records that a blob is sent: one that the worker has asked for.
    public mutating func sent(_ id: BlobID, bytes: Int) { _ = held.insert(id, bytes: bytes) }

    /// Whether the worker should have a blob.
    package func holds(_ id: BlobID) -> Bool { held.contains(id) }
}
