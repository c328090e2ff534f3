import Foundation
import Protocol
import Synchronization
import Testing

private final class Counter: Sendable {
    let pushed = Atomic<Int>(0)
}

@Suite("Queues between threads")
struct BoundedQueueTests {
    @Test("values arrive in order, and no more than the capacity wait", arguments: [1, 3])
    func order(capacity: Int) {
        let queue = BoundedQueue<Int>(capacity: capacity)
        let counter = Counter()
        let ended = BoundedQueue<Bool>(capacity: 1)
        Thread {
            for value in 0..<10_000 where queue.push(value) { counter.pushed.add(1, ordering: .sequentiallyConsistent) }
            queue.close()
            _ = ended.push(true)
        }.start()
        var taken = 0
        while let value = queue.pop() {
            #expect(value == taken)
            taken += 1
            // One more may have been let in and not been counted yet.
            #expect(counter.pushed.load(ordering: .sequentiallyConsistent) <= taken + capacity)
        }
        _ = ended.pop()
        #expect(taken == 10_000)
    }

    @Test("a taker that closes lets a giver go that waits for room")
    func closing() {
        let queue = BoundedQueue<Int>(capacity: 1)
        let results = BoundedQueue<Bool>(capacity: 10)
        #expect(queue.push(1))
        Thread { _ = results.push(queue.push(2)) }.start()
        queue.close()
        #expect(results.pop() == false)
        #expect(!queue.push(3))
        #expect(queue.pop() == 1)
        #expect(queue.pop() == nil)
    }
}
