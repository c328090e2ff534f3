import Engine
import Coordinator
import Testing

@Suite("Fetch queue")
struct FetchQueueTests {
    static let piece = 1 << 20

    static func fetch(_ worker: Int, _ number: Int) -> FetchQueue.Fetch {
        .init(worker: worker, file: 0, offset: number * piece, length: piece)
    }

    @Test("a worker that takes nothing is served ten pieces and no more, whoever it says it is afterwards")
    func silentReader() {
        var queue = FetchQueue(), served = 0
        queue.record(1, sent: 0, confirmed: 0, at: 0)
        while queue.add(Self.fetch(1, served)) {
            while queue.next() != nil { served += 1 }
            queue.record(1, sent: served * Self.piece, confirmed: 0, at: 1)
        }
        #expect(served == FetchQueue.workerBytes / Self.piece && queue.unconfirmed == served * Self.piece)
        #expect(!queue.isStuck(1, at: 30) && queue.isStuck(1, at: 31))
        // It begins a new session over the same connection.
        queue.forget(1)
        #expect(queue.unconfirmed == 0)
        queue.record(2, sent: served * Self.piece, confirmed: 0, at: 40)
        #expect(!queue.add(Self.fetch(2, 0)) && !queue.isStuck(2, at: 41))
    }

    @Test("small fetches wait in a bounded number, and those of workers that tell nothing wait for nobody")
    func smallOnes() {
        var queue = FetchQueue()
        for worker in 0..<52 {
            queue.record(worker, sent: 0, confirmed: 0, at: 0)
            for number in 0..<10 where queue.add(Self.fetch(worker, number)) { _ = queue.next() }
        }
        #expect(queue.unconfirmed == FetchQueue.farmBytes)
        queue.record(100, sent: 0, confirmed: 0, at: 0)
        let added = (0..<100).count { queue.add(.init(worker: 100, file: 0, offset: $0, length: 1)) }
        #expect(added == FetchQueue.workerFetches && queue.next() == nil)
        var local = FetchQueue()
        for number in 0..<2000 {
            local.record(1, sent: number * Self.piece, confirmed: nil, at: 0)
            #expect(local.add(Self.fetch(1, number)) && local.next() == Self.fetch(1, number))
        }
        #expect(local.unconfirmed == 0 && !local.isStuck(1, at: 1000))
    }

    @Test(
        """
        a hundred workers that fetch at once all get the whole model in its order, and no more than the bound is ever \
        on its way
        """,
        arguments: 0..<5)
    func crowd(seed: UInt64) {
        var random = SplitMix64(state: seed)
        var queue = FetchQueue(), now = 0.0
        let pieces = 40, workers = 0..<100
        var asked = [Int](repeating: 0, count: workers.count), sent = asked, confirmed = asked
        while confirmed.contains(where: { $0 < pieces }), now < 1e6 {
            now += 0.001
            let worker = Int.random(in: workers, using: &random)
            if confirmed[worker] < sent[worker], Bool.random(using: &random) { confirmed[worker] += 1 }
            queue.record(worker, sent: sent[worker] * Self.piece, confirmed: confirmed[worker] * Self.piece, at: now)
            // Eight at a time.
            while asked[worker] < min(pieces, confirmed[worker] + 8) {
                let isTaken = queue.add(Self.fetch(worker, asked[worker]))
                #expect(isTaken, "an honest worker is not cut")
                asked[worker] += 1
            }
            while let fetch = queue.next() {
                #expect(fetch.offset == sent[fetch.worker] * Self.piece)
                sent[fetch.worker] += 1
            }
            #expect(queue.unconfirmed < FetchQueue.farmBytes + Self.piece)
        }
        #expect(confirmed.allSatisfy { $0 == pieces })
        for worker in workers { queue.forget(worker) }
        #expect(queue.unconfirmed == 0 && queue.next() == nil && queue.workers.isEmpty)
    }
}
