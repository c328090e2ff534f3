import Engine
import Foundation
import Protocol
import Testing
import Worker

@Suite("Worker", .serialized) struct FarmLinkTests {
    let farmer: Farmer
    let model: TestModel

    init() throws {
        farmer = try Farmer()
        model = try TestModel()
    }

    @Test("a worker introduces itself, fetches the model in pieces, and grants two tasks a lane")
    func joins() throws {
        let hand = try Hand(farmer.endpoint, model, lanes: 3)
        let (peer, hello) = try farmer.welcome()
        #expect(
            hello.name == "hand" && hello.lanes == 3 && hello.kernels == "test" && hello.memoryBytes > 0
                && !hello.host.isEmpty && hello.credit == 6 && hello.blobBytes == 1 << 20)
        try farmer.send(model.preparation(), to: peer)
        try farmer.serve(model, fetches: model.fetches)
        let digest = try farmer.ready()
        #expect(digest == model.manifest.digest)
        #expect(ModelStore.matches(model.manifest, folder: model.cache.appending(path: digest.hex)))
        hand.link.drain(reason: "enough")
        #expect(try hand.end() == .drained)
    }

    @Test("tasks are answered, each with its own answer, and errors by their words")
    func answers() throws {
        let hand = try Hand(farmer.endpoint, model, lanes: 2)
        let peer = try farmer.employ(model).peer
        for tile in 0..<40 {
            let task = farmer.task(model, tile: tile)
            try farmer.send(task, to: peer)
            let (id, answer) = try farmer.result()
            #expect(id == task.0.id)
            answer.withValues(of: Float.self) { #expect($0.count == 60 && $0[59] == Float(tile * 100 + 60)) }
        }
        let bad = farmer.task(model, tile: 0, step: 13)
        try farmer.send(bad, to: peer)
        let failure = try farmer.failure()
        #expect(failure == (bad.0.id, .error("the thirteenth step")))
        hand.link.drain(reason: "enough")
        #expect(try hand.end() == .drained)
    }

    @Test("a worker with keys that meets something else at the address first joins the coordinator that comes there")
    func meetsAnother() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "tilefarm-keys-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let (farm, own) = (folder.appending(path: "farm").path, folder.appending(path: "n1").path)
        try CoordinatorKeys.make(path: farm)
        try WorkerKeys.make(path: own, name: "n1", for: farm)

        let other = try OtherServer()
        let endpoint = try Endpoint("tcp://127.0.0.1:\(other.port)")
        let hand = try Hand(endpoint, model, keys: WorkerKeys(path: own))
        #expect(other.turnsAway("SSH-2.0-other\r\n"))
        other.end()
        #expect(try Farmer(at: endpoint, keys: CoordinatorKeys(path: farm)).employ(model).hello.name == "hand")
        hand.link.drain(reason: "enough")
        _ = try hand.end()
    }

    @Test("half precision is answered in half precision, and an answer that is too large for it is a failure")
    func halves() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        try farmer.send(farmer.task(model, tile: 3, element: .float16), to: peer)
        #expect(try farmer.result().answer.values(of: .float16) == (1...60).map { Float(300 + $0) })
        let large = farmer.task(model, tile: 655, element: .float16)
        try farmer.send(large, to: peer)
        let failure = try farmer.next {
            if case .failure(let id, .error(let reason)) = $1 { (id, reason) } else { nil }
        }
        #expect(failure.0 == large.0.id && failure.1.contains("too large"))
        hand.link.drain(reason: "enough")
        _ = try hand.end()
    }

    @Test("a task of a model that was not prepared is refused, not computed")
    func otherModel() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        let other = try TestModel(bytes: 77)
        let task = farmer.task(other, tile: 1)
        try farmer.send(task, to: peer)
        let words =
            "the task is of model \(other.manifest.digest.short), which this worker was not told to prepare"
        #expect(try farmer.failure() == (task.task.id, .error(words)))
        try hand.drain()
    }

    @Test("a task that cannot be read is a failure that says why, and gives its credit back")
    func unreadableTask() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        let task = farmer.task(model, tile: 1)
        let frames = try CoordinatorMessage.task(task.task, inputs: task.inputs).frames()
        _ = try farmer.router.send(Array(frames.dropLast()), to: peer)
        #expect(
            try farmer.failure() == (task.task.id, .error("task came with 2 parts, expected are 3")))
        try farmer.send(task, to: peer)
        #expect(try farmer.result().task == task.task.id)
        try hand.drain()
    }

    @Test("heartbeats tell what runs and that it gets on, while lanes compute")
    func heartbeats() throws {
        let gate = Gate()
        let hand = try Hand(farmer.endpoint, model, gate: gate)
        let peer = try farmer.employ(model).peer
        let task = farmer.task(model, tile: 5)
        try farmer.send(task, to: peer)
        try gate.waitUntilEntered()
        let busy = try farmer.next {
            if case .heartbeat(let beat) = $1, beat.running == [task.0.id] { beat } else { nil }
        }
        // A kernel that gets on is progress, long before the task is done.
        ComputeProgress.advance()
        _ = try farmer.next {
            if case .heartbeat(let beat) = $1, beat.running == [task.0.id], beat.progress > busy.progress {
                beat
            } else {
                nil
            }
        }
        gate.release(1)
        let idle = try farmer.next { if case .heartbeat(let beat) = $1, beat.running.isEmpty { beat } else { nil } }
        #expect(idle.progress > busy.progress)
        hand.link.drain(reason: "enough")
        _ = try hand.end()
    }

    @Test("a drained worker gives back what it has not begun, finishes what it has, and ends")
    func drains() throws {
        let gate = Gate()
        let hand = try Hand(farmer.endpoint, model, lanes: 2, gate: gate)
        let (peer, hello) = try farmer.employ(model)
        #expect(hello.credit == 4)
        for tile in 0..<4 { try farmer.send(farmer.task(model, tile: tile), to: peer) }
        try gate.waitUntilEntered()
        try gate.waitUntilEntered()
        // The heartbeat after both began: the other two have arrived too, for messages keep their order.
        _ = try farmer.next { if case .heartbeat(let beat) = $1, beat.running.count == 2 { true } else { nil } }
        hand.link.drain(reason: "SIGTERM")
        let reason = try farmer.next { if case .leaving(let reason) = $1 { reason } else { nil } }
        #expect(reason == "SIGTERM")
        var returned: Set<Int> = []
        for _ in 0..<2 {
            returned.insert(try farmer.next { if case .failure(let id, .returned) = $1 { id.tile } else { nil } })
        }
        // A task that was under way when it said so comes back at once.
        try farmer.send(farmer.task(model, tile: 9), to: peer)
        #expect(try farmer.next { if case .failure(let id, .returned) = $1 { id.tile } else { nil } } == 9)
        gate.release(2)
        let finished = Set([try farmer.result().task.tile, try farmer.result().task.tile])
        #expect(returned.union(finished) == [0, 1, 2, 3] && finished == [0, 1])
        #expect(try hand.end() == .drained)
    }

    @Test("more tasks than credit come back")
    func overCredit() throws {
        let gate = Gate()
        let hand = try Hand(farmer.endpoint, model, gate: gate)
        let peer = try farmer.employ(model).peer
        for tile in 0..<10 { try farmer.send(farmer.task(model, tile: tile), to: peer) }
        let returned = try farmer.next { if case .failure(let id, .returned) = $1 { id.tile } else { nil } }
        #expect(returned == 3)
        gate.release(10)
        #expect(try farmer.result().task.tile == 0)
        hand.link.drain(reason: "enough")
        _ = try hand.end()
    }

    @Test("a model that arrives damaged is fetched again")
    func spoiledOnce() throws {
        let hand = try Hand(farmer.endpoint, model)
        let (peer, _) = try farmer.welcome()
        try farmer.send(model.preparation(), to: peer)
        try farmer.serve(model, fetches: model.fetches) { file, offset, bytes in
            guard file == 1 && offset == 1 << 20 else { return bytes }
            return Frame(copying: bytes.withBytes { $0.map { $0 ^ 1 } })
        }
        try farmer.serve(model, fetches: model.fetches)
        #expect(try farmer.ready() == model.manifest.digest)
        hand.link.drain(reason: "enough")
        _ = try hand.end()
    }

    @Test("a model that always arrives damaged is given up, by name")
    func spoiledAlways() throws {
        let hand = try Hand(farmer.endpoint, model)
        let (peer, _) = try farmer.welcome()
        try farmer.send(model.preparation(), to: peer)
        try farmer.serve(model, fetches: 3 * model.fetches) { file, _, bytes in
            file == 1 ? Frame(copying: bytes.withBytes { $0.map { $0 ^ 1 } }) : bytes
        }
        let reason = try farmer.next { if case .leaving(let reason) = $1 { reason } else { nil } }
        #expect(reason.contains("weights.safetensors"))
        #expect(try hand.end() == .failed(reason: reason))
    }

    @Test("a model in the cache is not fetched, a damaged one is")
    func cached() throws {
        let first = try Hand(farmer.endpoint, model)
        _ = try farmer.employ(model)
        first.link.drain(reason: "enough")
        _ = try first.end()

        let second = try Hand(farmer.endpoint, model)
        let (peer, _) = try farmer.welcome()
        try farmer.send(model.preparation(), to: peer)
        let fetched = try farmer.next { (_, message) -> Bool? in
            switch message {
            case .fetch: true
            case .ready: false
            default: nil
            }
        }
        #expect(!fetched)
        second.link.drain(reason: "enough")
        _ = try second.end()

        try Data("[]".utf8).write(to: model.cache.appending(path: "\(model.manifest.digest.hex)/config.json"))
        let third = try Hand(farmer.endpoint, model)
        _ = try farmer.employ(model)
        third.link.drain(reason: "enough")
        _ = try third.end()
    }

    @Test("the user's own copy serves when it is the job's model, and is refused in words when it is not")
    func ownCopy() throws {
        model.isFetched = false
        let hand = try Hand(farmer.endpoint, model, source: .folder(model.folder))
        _ = try farmer.employ(model)
        hand.link.drain(reason: "enough")
        #expect(try hand.end() == .drained)

        let other = try TestModel(bytes: 77)
        let stranger = try Hand(farmer.endpoint, model, source: .folder(other.folder))
        let (peer, _) = try farmer.welcome()
        try farmer.send(model.preparation(), to: peer)
        guard case .refused(let reason) = try stranger.end() else {
            Issue.record("not refused")
            return
        }
        #expect(reason.contains(other.folder.path) && reason.contains("--model"))
    }

    @Test("a refusal ends the worker with the coordinator's words")
    func refused() throws {
        let hand = try Hand(farmer.endpoint, model)
        let (peer, _) = try farmer.hello()
        try farmer.send(.refused("this job takes kernels avx2 only"), to: peer)
        #expect(try hand.end() == .refused(reason: "this job takes kernels avx2 only"))
    }

    @Test("a coordinator of another version ends the worker in words")
    func otherVersion() throws {
        let hand = try Hand(farmer.endpoint, model)
        let (peer, _) = try farmer.hello()
        _ = try farmer.router.send([Frame(copying: [0x08, 9, 0x9a, 0x06, 0] as [UInt8])], to: peer)
        guard case .refused(let reason) = try hand.end() else {
            Issue.record("not refused")
            return
        }
        #expect(reason.contains("version 9") && reason.contains("speaks \(WireLimits.protocolVersion)"))
    }

    @Test("a job that insists on other kernels ends the worker in words")
    func otherKernels() throws {
        let hand = try Hand(farmer.endpoint, model)
        _ = try farmer.welcome(kernels: "avx512")
        #expect(try hand.end() == .refused(reason: "the farm takes kernels 'avx512' only, this worker has 'test'"))
    }

    @Test("garbage from the coordinator's port is passed over")
    func garbage() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        for count in 0..<50 {
            _ = try farmer.router.send([Frame(copying: (0..<count).map { UInt8($0) ^ 0x5a })], to: peer)
        }
        try farmer.send(farmer.task(model, tile: 1), to: peer)
        #expect(try farmer.result().task.tile == 1)
        hand.link.drain(reason: "enough")
        _ = try hand.end()
    }

    @Test("a worker that nobody knows any more begins a new session; answers of the old one are dropped")
    func introducedAnew() throws {
        let gate = Gate()
        let hand = try Hand(farmer.endpoint, model, gate: gate)
        let first = try farmer.employ(model)
        try farmer.send(farmer.task(model, tile: 1), to: first.peer)
        try farmer.send(farmer.task(model, tile: 2), to: first.peer)
        try gate.waitUntilEntered()
        try farmer.send(.introduceYourself, to: first.peer)
        model.isFetched = false
        let second = try farmer.employ(model)
        #expect(second.hello.session != first.hello.session && second.hello.credit == 2)
        try farmer.send(farmer.task(model, tile: 3), to: second.peer)
        gate.release(10)
        #expect(try farmer.result().task.tile == 3)
        hand.link.drain(reason: "enough")
        _ = try hand.end()
    }

    @Test("the same hello twice is one session: the second welcome changes nothing")
    func welcomedTwice() throws {
        let hand = try Hand(farmer.endpoint, model)
        let (peer, hello) = try farmer.employ(model)
        try farmer.send(Farmer.welcome(hello), to: peer)
        try farmer.send(farmer.task(model, tile: 1), to: peer)
        let kind = try farmer.next { (_, message) -> String? in
            switch message {
            case .ready: "ready"
            case .result: "result"
            default: nil
            }
        }
        #expect(kind == "result")
        hand.link.drain(reason: "enough")
        _ = try hand.end()
    }

    @Test("a coordinator that restarts at the same port gets its workers back by themselves")
    func restart() throws {
        var first: Farmer? = try Farmer()
        let endpoint = try #require(try first?.endpoint)
        let hand = try Hand(endpoint, model)
        let before = try #require(try first?.employ(model))
        first = nil
        let second = try Farmer(at: endpoint)
        model.isFetched = false
        // Until it notices, it may send heartbeats to the new one, which does not know it.
        let (peer, hello) = try second.next { (peer, message) -> (Peer, Hello)? in
            if case .hello(let hello) = message { return (peer, hello) }
            try? second.send(.introduceYourself, to: peer)
            return nil
        }
        #expect(hello.session != before.hello.session)
        try second.send(Farmer.welcome(hello), to: peer)
        try second.prepare(model, at: peer)
        try second.send(second.task(model, job: 8, tile: 4), to: peer)
        #expect(try second.result().task.tile == 4)
        hand.link.drain(reason: "enough")
        _ = try hand.end()
    }

    @Test("a silent coordinator is greeted again, under a new session")
    func silence() throws {
        let hand = try Hand(farmer.endpoint, model)
        let (peer, hello) = try farmer.welcome()
        try farmer.send(model.preparation(), to: peer)
        // Not a word from here on.
        let again = try farmer.next { (_, message) -> Hello? in
            if case .hello(let again) = message, again.session != hello.session { again } else { nil }
        }
        #expect(again.name == hello.name)
        hand.link.drain(reason: "enough")
        #expect(try hand.end() == .drained)
    }

    @Test("when the job is over a worker waits for the next; one that was started for it ends")
    func stops() throws {
        let hand = try Hand(farmer.endpoint, model)
        let peer = try farmer.employ(model).peer
        try farmer.send(.stop(reason: "finished"), to: peer)
        model.isFetched = false
        let next = try farmer.employ(model)
        try farmer.send(farmer.task(model, job: 8, tile: 1), to: next.peer)
        #expect(try farmer.result().task.job == 8)
        hand.link.drain(reason: "enough")
        #expect(try hand.end() == .drained)

        let local = try Hand(farmer.endpoint, model, local: true)
        let localPeer = try farmer.employ(model).peer
        try farmer.send(.stop(reason: "finished"), to: localPeer)
        #expect(try local.end() == .stopped(reason: "finished"))
    }

    @Test("a worker that waits for a coordinator ends at once when told to")
    func drainsWhileSeeking() throws {
        let hand = try Hand(Endpoint("tcp://127.0.0.1:1"), model, source: .loaded)
        hand.link.drain(reason: "SIGINT")
        #expect(try hand.end() == .drained)
    }
}
