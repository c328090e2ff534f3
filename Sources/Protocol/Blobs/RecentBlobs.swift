package import Engine

/// The names of the blobs that fit into so many bytes; what was used longest ago goes first.
///
/// A worker keeps its blobs by it, and a coordinator follows by it what a worker keeps: both see the same blobs and
/// tasks in the same order.
package struct RecentBlobs: Sendable {
    private struct Entry {
        let cost: Int
        var use: UInt64
    }

    package let capacity: Int
    /// Bytes that all of them count.
    package private(set) var byteCount = 0
    private var entries: [BlobID: Entry] = [:]
    /// The uses in their order from `first` on. Those that a later use of the same blob has overtaken are passed over.
    private var uses: [(id: BlobID, use: UInt64)] = []
    private var first = 0
    private var clock: UInt64 = 0

    package init(capacity: Int) { self.capacity = capacity }

    package var count: Int { entries.count }

    package func contains(_ id: BlobID) -> Bool { entries[id] != nil }

    /// Bytes that a blob counts: more than it has, so that the smallest are bounded too.
    package static func cost(of bytes: Int) -> Int {
        let (cost, overflow) = bytes.addingReportingOverflow(WireLimits.blobOverhead)
        return overflow ? .max : cost
    }

    /// A blob was named; nothing where it is not among these.
    package mutating func use(_ id: BlobID) {
        guard entries[id] != nil else { return }
        clock += 1
        entries[id]?.use = clock
        uses.append((id, clock))
        if uses.count - first > 2 * entries.count + 64 { dropOvertaken() }
    }

    /// Takes a blob in, which counts as used.
    /// - Parameter pinned: blobs that must not go for it.
    /// - Returns: the blobs that went for it; nil where it does not fit, and then none went.
    package mutating func insert(_ id: BlobID, bytes: Int, keeping pinned: Set<BlobID> = []) -> [BlobID]? {
        guard entries[id] == nil else {
            use(id)
            return []
        }
        let cost = Self.cost(of: bytes)
        let kept = pinned.reduce(0) { $0 + (entries[$1]?.cost ?? 0) }
        guard cost <= capacity, kept <= capacity - cost else { return nil }
        var gone: [BlobID] = []
        var passedOver: [(id: BlobID, use: UInt64)] = []
        while byteCount > capacity - cost, first < uses.count {
            let oldest = uses[first]
            first += 1
            guard entries[oldest.id]?.use == oldest.use else { continue }
            if pinned.contains(oldest.id) {
                passedOver.append(oldest)
            } else {
                remove(oldest.id)
                gone.append(oldest.id)
            }
        }
        for use in passedOver.reversed() {
            first -= 1
            uses[first] = use
        }
        entries[id] = Entry(cost: cost, use: 0)
        byteCount += cost
        use(id)
        return gone
    }

    package mutating func remove(_ id: BlobID) {
        guard let entry = entries.removeValue(forKey: id) else { return }
        byteCount -= entry.cost
    }

    private mutating func dropOvertaken() {
        uses = uses[first...].filter { entries[$0.id]?.use == $0.use }
        first = 0
    }
}
