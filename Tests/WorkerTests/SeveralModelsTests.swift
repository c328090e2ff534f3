import Engine
import Foundation
import Protocol
import Testing
import Worker

/// One session with several models and jobs.
@Suite("A worker with several models", .serialized) struct SeveralModelsTests {
    let farmer: Farmer
    let model, other: TestModel

    init() throws {
        farmer = try Farmer()
        model = try TestModel()
        other = try TestModel(bytes: 77)
    }

    private func unfit() throws -> (model: ModelDigest, reason: String) {
        try farmer.next { if case .unfit(let model, let reason) = $1 { (model, reason) } else { nil } }
    }

    @Test("tasks of two jobs and two models are answered in one session, and one model at a time holds its networks")
    func interleaved() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.welcome().peer
        // Both at once: the second is made ready after the first.
        try farmer.send(model.preparation(), to: peer)
        try farmer.send(other.preparation(.bfloat16), to: peer)
        for each in [model, other] {
            try farmer.serve(each, fetches: each.fetches)
            #expect(try farmer.ready() == each.manifest.digest)
        }
        for tile in 0..<6 {
            let task = farmer.task(tile % 2 == 0 ? model : other, job: UInt64(7 + tile % 2), tile: tile)
            try farmer.send(task, to: peer)
            let result = try farmer.result()
            #expect(result.task == task.task.id && result.answer.floats[59] == Float(tile * 100 + 60))
        }
        let loads = hand.loads.models.withLock { $0 }
        #expect(loads.map(\.precision) == [.float32, .bfloat16])
        #expect(loads.map(\.folder) == [model.manifest.digest.hex, other.manifest.digest.hex])
        // Six tasks in turns: whoever follows has the other let go.
        #expect(loads.map { $0.model.releases.load(ordering: .relaxed) } == [3, 2])
        try hand.drain()
    }

    @Test("a model that is released is not served any more, and loaded still when it is asked for again")
    func released() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        try farmer.prepare(other, at: peer)
        try farmer.send(.release(other.manifest.digest), to: peer)
        let refused = farmer.task(other, tile: 1)
        try farmer.send(refused, to: peer)
        #expect(try farmer.failure().task == refused.task.id)
        try farmer.send(farmer.task(model, tile: 2), to: peer)
        #expect(try farmer.result().task.tile == 2)
        other.isFetched = false
        try farmer.prepare(other, at: peer)
        try farmer.send(farmer.task(other, tile: 3), to: peer)
        #expect(try farmer.result().task.tile == 3)
        #expect(hand.loads.count == 2)
        try hand.drain()
    }

    @Test("a model that is released on its way is not fetched to the end")
    func releasedOnItsWay() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.welcome().peer
        try farmer.send(model.preparation(), to: peer)
        for _ in 0..<model.fetches {
            _ = try farmer.next { if case .fetch = $1 { true } else { nil } }
        }
        try farmer.send(.release(model.manifest.digest), to: peer)
        try farmer.prepare(other, at: peer)
        try farmer.send(farmer.task(other, tile: 3), to: peer)
        #expect(try farmer.result().task.tile == 3)
        #expect(hand.loads.count == 1)
        try hand.drain()
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: model.cache.path) == [other.manifest.digest.hex])
    }

    @Test("a model in another precision is loaded anew, without another fetch")
    func precisions() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        try farmer.send(model.preparation(.bfloat16), to: peer)
        let precision = try farmer.next { if case .ready(_, let precision) = $1 { precision } else { nil } }
        #expect(precision == .bfloat16)
        #expect(hand.loads.models.withLock { $0.map(\.precision) } == [.float32, .bfloat16])
        // What is ready is ready at once.
        try farmer.send(model.preparation(.bfloat16), to: peer)
        #expect(try farmer.ready() == model.manifest.digest)
        #expect(hand.loads.count == 2)
        try hand.drain()
    }

    @Test("a worker that cannot serve one model says so and goes on with the others")
    func unfitForOne() throws {
        let hand = try Hand(farmer.endpoint, model, source: .folder(model.folder))
        model.isFetched = false
        let peer = try farmer.employ(model).peer
        let third = try TestModel(bytes: 99)
        for each in [other, third] { try farmer.send(each.preparation(), to: peer) }
        for each in [other, third] {
            let unfit = try unfit()
            #expect(unfit.model == each.manifest.digest)
            #expect(unfit.reason.contains(model.folder.path) && unfit.reason.contains("--model"))
        }
        try farmer.send(farmer.task(model, tile: 2), to: peer)
        #expect(try farmer.result().task.tile == 2)
        try hand.drain()
    }

    @Test("a session has room for so many models and no more")
    func tooMany() throws {
        let hand = try Hand(farmer.endpoint, model, source: .loaded)
        let peer = try farmer.welcome().peer
        for number in 0...WireLimits.preparedModels {
            let file = ModelManifest.File(name: "config.json", size: number, sha256: ContentDigest(of: Data()))
            let manifest = try ModelManifest(files: [file])
            try farmer.send(.prepare(Preparation(manifest: manifest, precision: .float32)), to: peer)
            if number < WireLimits.preparedModels {
                #expect(try farmer.ready() == manifest.digest)
            } else {
                #expect(try unfit().model == manifest.digest)
            }
        }
        try hand.drain()
    }

    @Test("what is wrong with a model's cache is said to the coordinator and the user, with the option that helps")
    func unwritableCache() throws {
        try FileManager.default.createDirectory(
            at: model.cache.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data().write(to: model.cache)
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.welcome().peer
        try farmer.send(model.preparation(), to: peer)
        let (digest, reason) = try unfit()
        #expect(digest == model.manifest.digest && reason.contains("--cache") && reason.contains("cannot be written"))
        #expect(try hand.end() == .failed(reason: reason))
    }
}
