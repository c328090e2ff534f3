import Engine
import Testing

import Protocol

@Suite("Blobs") struct BlobTests {
    /// A blob of so many bytes, each number another.
    private static func blob(_ number: Int, bytes: Int) -> Frame {
        Frame(copying: (0..<bytes).map { UInt8(truncatingIfNeeded: number >> (8 * ($0 % 4))) })
    }

    private static let overhead = WireLimits.blobOverhead

    @Test("a blob is kept by the SHA-256 of its bytes, and by no other name")
    func checked() throws {
        let store = BlobStore(capacity: 10_000), blob = Self.blob(7, bytes: 100), other = Self.blob(8, bytes: 100)
        #expect(throws: BlobStore.Refusal.otherDigest) { try store.put(blob.blobID, other) }
        #expect(store.bytes(of: blob.blobID) == nil && store.byteCount == 0)
        try store.put(blob.blobID, blob)
        #expect(store.bytes(of: blob.blobID) === blob && store.byteCount == 100 + Self.overhead)
        // The name that everybody can compute: SHA-256 of "abc".
        #expect(
            Frame(copying: Array("abc".utf8)).blobID.bytes.prefix(4) == [0xba, 0x78, 0x16, 0xbf]
                && BlobID(bytes: blob.blobID.bytes) == blob.blobID)
    }

    @Test("what was named longest ago goes first, what is pinned stays")
    func evicts() throws {
        let blobs = (0..<5).map { Self.blob($0, bytes: 100) }, ids = blobs.map(\.blobID)
        let store = BlobStore(capacity: 3 * (100 + Self.overhead))
        for (id, blob) in zip(ids, blobs).prefix(3) { try store.put(id, blob) }
        store.use([ids[0]])
        try store.put(ids[3], blobs[3])
        #expect(store.missing(of: ids + ids) == [ids[1], ids[4]])
        try store.put(ids[4], blobs[4], keeping: [ids[2], ids[0]])
        #expect(store.missing(of: ids) == [ids[1], ids[3]])
        #expect(throws: BlobStore.Refusal.noRoom(bytes: 100, capacity: store.capacity)) {
            try store.put(ids[1], blobs[1], keeping: [ids[0], ids[2], ids[4]])
        }
        #expect(store.missing(of: ids) == [ids[1], ids[3]])
        // Pins are for one call.
        try store.put(ids[1], blobs[1])
        #expect(store.missing(of: ids) == [ids[2], ids[3]])
        store.removeAll()
        #expect(store.byteCount == 0 && store.missing(of: ids) == ids)
    }

    @Test("one that is larger than the store is refused and pushes nothing out")
    func tooLarge() throws {
        let store = BlobStore(capacity: 1000), small = Self.blob(1, bytes: 10), large = Self.blob(2, bytes: 1000)
        try store.put(small.blobID, small)
        #expect(throws: BlobStore.Refusal.noRoom(bytes: 1000, capacity: 1000)) {
            try store.put(large.blobID, large)
        }
        #expect(store.bytes(of: small.blobID) != nil)
    }

    @Test("blobs without a byte do not fill the memory")
    func empty() {
        var recent = RecentBlobs(capacity: 100 * Self.overhead)
        for number in 0..<50_000 {
            var bytes = [UInt8](repeating: 0, count: 32)
            for place in 0..<4 { bytes[place] = UInt8(truncatingIfNeeded: number >> (8 * place)) }
            _ = recent.insert(BlobID(sha256: bytes), bytes: 0)
        }
        #expect(recent.count == 100 && recent.byteCount == recent.capacity)
        var huge = RecentBlobs(capacity: .max)
        #expect(huge.insert(BlobID(sha256: [UInt8](repeating: 1, count: 32)), bytes: .max) == [])
    }

    /// One of the blobs that the random jobs below have.
    private static let shelf = (0..<40).map { number in
        let bytes = number % 7 == 0 ? 0 : 37 * number
        return (frame: blob(number, bytes: bytes), bytes: bytes)
    }

    @Test(
        "a ledger knows what the worker keeps: every blob is here when its task comes",
        arguments: 0..<200 as Range<UInt64>)
    func mirror(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        let capacity = Int.random(in: 0...20_000, using: &random)
        let store = BlobStore(capacity: capacity)
        var ledger = BlobLedger(capacity: capacity)
        var sent = 0, named = 0
        for _ in 0..<300 {
            let task = (0..<Int.random(in: 1...4, using: &random)).map { _ in
                Self.shelf[.random(in: 0..<Self.shelf.count, using: &random)]
            }
            let names = Set(task.map(\.frame.blobID))
            for id in ledger.toSend(before: task.map { ($0.frame.blobID, $0.bytes) }) {
                sent += 1
                let blob = try #require(task.first { $0.frame.blobID == id })
                do { try store.put(id, blob.frame) } catch BlobStore.Refusal.noRoom { continue }
            }
            store.use(task.map(\.frame.blobID))
            named += names.count
            let total = Dictionary(task.map { ($0.frame.blobID, $0.bytes) }) { first, _ in first }.values
                .reduce(0) { $0 + $1 + Self.overhead }
            if total <= capacity { #expect(store.missing(of: names).isEmpty) }
            #expect(store.byteCount <= capacity)
            for blob in Self.shelf {
                #expect(ledger.holds(blob.frame.blobID) == (store.bytes(of: blob.frame.blobID) != nil))
            }
        }
        let whole = Self.shelf.reduce(0) { $0 + $1.bytes + Self.overhead }
        if capacity >= whole { #expect(sent <= Self.shelf.count) }
        #expect(sent <= 4 * named)
    }

    @Test("a worker that says what it misses gets on, whatever it let go of", arguments: 0..<100 as Range<UInt64>)
    func corrected(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        // A worker that keeps less than it says, and at times nothing.
        let store = BlobStore(capacity: Int.random(in: 8_000...12_000, using: &random))
        var ledger = BlobLedger(capacity: 20_000)
        for _ in 0..<200 {
            if Int.random(in: 0..<20, using: &random) == 0 { store.removeAll() }
            let task = (0..<3).map { _ in Self.shelf[.random(in: 0..<Self.shelf.count, using: &random)] }
            let names = Set(task.map(\.frame.blobID))
            for id in ledger.toSend(before: task.map { ($0.frame.blobID, $0.bytes) }) {
                try store.put(id, #require(task.first { $0.frame.blobID == id }).frame)
            }
            store.use(names)
            for id in store.missing(of: names) {
                let blob = try #require(task.first { $0.frame.blobID == id })
                ledger.sent(id, bytes: blob.bytes)
                try store.put(id, blob.frame, keeping: names)
            }
            #expect(store.missing(of: names).isEmpty && store.byteCount <= store.capacity)
        }
    }
}
