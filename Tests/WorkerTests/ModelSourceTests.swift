import Foundation
import Protocol
import Testing
import Worker

/// Where a worker has its model from, and what it does while it gets it.
@Suite("A worker's model", .serialized) struct ModelSourceTests {
    let farmer: Farmer
    let model: TestModel

    init() throws {
        farmer = try Farmer()
        model = try TestModel()
    }

    @Test(
        "a model that another worker has stored meanwhile is used, a damaged one is replaced", arguments: [false, true])
    func storedMeanwhile(isDamaged: Bool) throws {
        let hand = try Hand(farmer.endpoint, model)
        let (peer, _) = try farmer.welcome()
        try farmer.send(model.preparation(), to: peer)
        let entry = model.cache.appending(path: model.manifest.digest.hex)
        try farmer.serve(model, fetches: model.fetches) { [model] file, _, bytes in
            // The first piece that is asked for: the worker has looked into its cache before.
            if file == 0 {
                do {
                    try FileManager.default.copyItem(at: model.folder, to: entry)
                    if isDamaged { try Data("[]".utf8).write(to: entry.appending(path: "config.json")) }
                } catch { Issue.record(error) }
            }
            return bytes
        }
        #expect(try farmer.ready() == model.manifest.digest)
        #expect(ModelStore.matches(model.manifest, folder: entry))
        try farmer.send(farmer.task(model, tile: 1), to: peer)
        #expect(try farmer.result().task.tile == 1)
        hand.link.drain(reason: "enough")
        #expect(try hand.end() == .drained)
    }

    @Test("a worker whose model is in memory serves job after job without asking for files")
    func inMemory() throws {
        model.isFetched = false
        let hand = try Hand(farmer.endpoint, model, source: .loaded)
        for job in 7..<10 as Range<UInt64> {
            let peer = try farmer.employ(model).peer
            try farmer.send(farmer.task(model, job: job, tile: 1), to: peer)
            #expect(try farmer.result().task.job == job)
            try farmer.send(.stop(reason: "finished"), to: peer)
        }
        hand.link.drain(reason: "enough")
        #expect(try hand.end() == .drained)
    }
}
