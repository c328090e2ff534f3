import Engine
import Foundation
import Protocol
import Testing
import Worker

/// Inputs that are sent once and named afterwards.
@Suite("A worker's blobs", .serialized) struct WorkerBlobTests {
    let farmer: Farmer
    let model: TestModel
    /// Low-resolution pixels of 2x2, the first of them 10, 20, 30.
    let blobs = [10, 20, 30].map { first in Frame(floats: [first] + [Float](repeating: 0, count: 11)) }
    /// Bytes that one of them counts in a store.
    static let cost = 48 + WireLimits.blobOverhead

    init() throws {
        farmer = try Farmer()
        model = try TestModel()
    }

    /// A task whose pixels are a blob: it adds one and the blob's first number.
    private func task(_ tile: Int, _ blob: Frame) -> (task: FarmTask, inputs: [Frame]) {
        farmer.task(model, tile: tile, pixels: .blob(blob.blobID))
    }

    /// The first number of the next answer, and the task it answers; nil where a worker says that it misses something.
    private func answer() throws -> (tile: Int, value: Float)? {
        try farmer.next { (_, message) -> (tile: Int, value: Float)?? in
            switch message {
            case .result(let result): (result.task.tile, result.outputs[0].floats[0])
            case .missing: .some(nil)
            default: nil
            }
        }
    }

    private func missing() throws -> (task: TaskID, blobs: [BlobID]) {
        try farmer.next { if case .missing(let task, let blobs) = $1 { (task, blobs) } else { nil } }
    }

    @Test("a blob is sent once and serves every task that names it")
    func sentOnce() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        try farmer.send(.blob(blobs[0].blobID, blobs[0]), to: peer)
        for tile in 0..<5 {
            try farmer.send(task(tile, blobs[0]), to: peer)
            let (answered, value) = try #require(try answer())
            #expect(answered == tile && value == Float(100 * tile) + 11)
        }
        try hand.drain()
    }

    @Test("a blob that is not here is asked for, and the task done once it has come; others go on meanwhile")
    func askedFor() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        let waiting = task(1, blobs[0])
        try farmer.send(waiting, to: peer)
        #expect(try missing() == (waiting.task.id, [blobs[0].blobID]))
        try farmer.send(farmer.task(model, tile: 2), to: peer)
        #expect(try farmer.result().task.tile == 2)
        try farmer.send(.blob(blobs[0].blobID, blobs[0]), to: peer)
        let (answered, value) = try #require(try answer())
        #expect(answered == 1 && value == 111)
        try hand.drain()
    }

    @Test("bytes with another SHA-256 than their name are never used; the right ones are, after them")
    func otherDigest() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        try farmer.send(.blob(blobs[0].blobID, blobs[1]), to: peer)
        try farmer.send(task(1, blobs[0]), to: peer)
        _ = try missing()
        try farmer.send(.blob(blobs[0].blobID, blobs[2]), to: peer)
        try farmer.send(.blob(blobs[0].blobID, blobs[0]), to: peer)
        #expect(try #require(try answer()).value == 111)
        try hand.drain()
    }

    @Test("a blob of another size than the input that it is named for is a failure in words")
    func otherSize() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        let long = Frame(zeros: 13)
        try farmer.send(.blob(long.blobID, long), to: peer)
        try farmer.send(task(1, long), to: peer)
        let words = "blob \(long.blobID) has 52 bytes, the task's input 48"
        #expect(try farmer.failure().kind == .error(words))
        try hand.drain()
    }

    @Test("what was named longest ago goes first, and is asked for when a task names it again")
    func evicted() throws {
        let hand = try Hand(farmer.endpoint, model, blobBytes: 2 * Self.cost)
        let peer = try farmer.employ(model).peer
        for blob in blobs.prefix(2) { try farmer.send(.blob(blob.blobID, blob), to: peer) }
        try farmer.send(task(1, blobs[0]), to: peer)
        #expect(try #require(try answer()).value == 111)
        try farmer.send(.blob(blobs[2].blobID, blobs[2]), to: peer)
        for (tile, blob) in [(2, blobs[0]), (3, blobs[2])] {
            try farmer.send(task(tile, blob), to: peer)
            #expect(try #require(try answer()).tile == tile)
        }
        try farmer.send(task(4, blobs[1]), to: peer)
        #expect(try missing().blobs == [blobs[1].blobID])
        try farmer.send(.blob(blobs[1].blobID, blobs[1]), to: peer)
        #expect(try #require(try answer()).value == 421)
        try hand.drain()
    }

    @Test("a task whose blobs a worker cannot keep fails in words, and the worker goes on")
    func tooLarge() throws {
        let hand = try Hand(farmer.endpoint, model, blobBytes: Self.cost - 1)
        let peer = try farmer.employ(model).peer
        try farmer.send(.blob(blobs[0].blobID, blobs[0]), to: peer)
        try farmer.send(task(1, blobs[0]), to: peer)
        let words = "the task's blobs take \(Self.cost) bytes, this worker keeps \(Self.cost - 1)"
        #expect(try farmer.failure().kind == .error(words))
        try farmer.send(farmer.task(model, tile: 2), to: peer)
        #expect(try farmer.result().task.tile == 2)
        try hand.drain()
    }

    @Test("a blob that has no room beside what an older task waits with gives its own task back")
    func noRoom() throws {
        let samples = (0..<2).map { first in Frame(floats: (0..<60).map { Float(100 * first + $0) }) }
        let hand = try Hand(farmer.endpoint, model, lanes: 2, blobBytes: 240 + WireLimits.blobOverhead + Self.cost)
        let peer = try farmer.employ(model).peer
        for tile in 0..<2 {
            var task = farmer.task(model, tile: tile).task
            task.task.sources = [.blob(samples[tile].blobID), .blob(blobs[tile].blobID)]
            try farmer.send(.task(task, inputs: []), to: peer)
            #expect(try missing() == (task.id, [samples[tile].blobID, blobs[tile].blobID]))
        }
        try farmer.send(.blob(samples[0].blobID, samples[0]), to: peer)
        try farmer.send(.blob(samples[1].blobID, samples[1]), to: peer)
        let (returned, kind) = try farmer.failure()
        #expect(returned.tile == 1 && kind == .returned)
        try farmer.send(.blob(blobs[0].blobID, blobs[0]), to: peer)
        #expect(try #require(try answer()) == (0, 11))
        try hand.drain()
    }

    @Test("tasks that wait for blobs are given back when the worker leaves")
    func leaves() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        let waiting = task(1, blobs[0])
        try farmer.send(waiting, to: peer)
        _ = try missing()
        hand.link.drain(reason: "SIGTERM")
        #expect(try farmer.failure() == (waiting.task.id, .returned))
        #expect(try hand.end() == .drained)
    }

    @Test("a new session has no blobs: the coordinator that it is with knows of none")
    func newSession() throws {
        let hand = try Hand(farmer.endpoint, model)
        let first = try farmer.employ(model).peer
        try farmer.send(.blob(blobs[0].blobID, blobs[0]), to: first)
        try farmer.send(task(1, blobs[0]), to: first)
        #expect(try #require(try answer()).tile == 1)
        try farmer.send(.introduceYourself, to: first)
        model.isFetched = false
        let second = try farmer.employ(model).peer
        try farmer.send(task(2, blobs[0]), to: second)
        #expect(try missing().task.tile == 2)
        try hand.drain()
    }
}
