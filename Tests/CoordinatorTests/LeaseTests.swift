import Coordinator
import Testing

@Suite("Leases")
struct LeaseTests {
    @Test("a slow worker keeps its credit and is measured, although its leases expired")
    func slowWorker() throws {
        var scheduler = try Scheduler.row(10)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 2), at: 0)
        // The lease of 120 s expires, and with it what waits behind the task; there is nobody else, and it is not sent
        // again what it has.
        let expired = scheduler.handle(.tick, at: 200)
        #expect(expired.count == 2 && expired.allSatisfy { if case .requeued = $0 { true } else { false } })
        let first = Scheduler.Tile(0)
        let commands = scheduler.handle(.answered(1, first), at: 300)
        #expect(commands == [.accept(first), .merge(first), .cutAndSend(Scheduler.Tile(2), to: 1)])
        #expect(scheduler.tasks(of: 1) == 2)
        // Its lease is now 300 s and four times their deviation.
        _ = scheduler.handle(.answered(1, Scheduler.Tile(1)), at: 310)
        #expect(scheduler.handle(.tick, at: 1200) == [])
        #expect(scheduler.repeats == 0)
    }

    @Test("a lease grows with the worker's own measured time")
    func leases() throws {
        var scheduler = try Scheduler.row(2)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        // Answered after 100 s, which is thought to deviate by 50: the second task's lease is 300 s.
        _ = scheduler.handle(.answered(1, Scheduler.Tile(0)), at: 100)
        #expect(scheduler.handle(.tick, at: 399) == [])
        let second = Scheduler.Tile(1)
        #expect(scheduler.handle(.tick, at: 401) == [.requeued(second, from: 1, cause: "no answer within the lease")])
        // The late answer is as good as any other.
        #expect(
            scheduler.handle(.answered(1, second), at: 902) == [
                .accept(second), .merge(second), .finishedPass(0), .finishedJob,
            ])
        #expect(scheduler.dropped == 0)
        #expect(scheduler.handle(.answered(1, second), at: 903) == [.drop(second, from: 1)])
        #expect(scheduler.dropped == 1)
    }

    @Test("a new worker's lease comes from what others needed, and an overrun doubles it")
    func pooledLease() throws {
        var leases = Scheduler.LeasePolicy()
        leases.sendsCopies = false
        var scheduler = try Scheduler.row(20, leases)
        var now = 0.0
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        for index in 0..<10 {
            now += 10
            _ = scheduler.handle(.answered(1, Scheduler.Tile(index)), at: now)
        }
        // Ten times 10 s: the deviation has all but vanished, twice the mean is left.
        #expect(scheduler.handle(.joined(2, lanes: 1, credit: 1), at: now) == [.cutAndSend(Scheduler.Tile(11), to: 2)])
        #expect(scheduler.handle(.tick, at: now + 19) == [])
        let expired = scheduler.handle(.tick, at: now + 30)
        #expect(
            Set(expired.compactMap { if case .requeued(let tile, _, _) = $0 { tile } else { nil } }) == [
                Scheduler.Tile(10), Scheduler.Tile(11),
            ])
        // The late answer is taken, the worker that gave it gets the other's tile.
        let commands = scheduler.handle(.answered(2, Scheduler.Tile(11)), at: now + 40)
        #expect(
            commands == [
                .accept(Scheduler.Tile(11)), .merge(Scheduler.Tile(11)), .resend(Scheduler.Tile(10), to: 2, attempt: 1),
            ])
        #expect(scheduler.repeats == 1 && scheduler.dropped == 0)
        #expect(scheduler.handle(.answered(1, Scheduler.Tile(10)), at: now + 41).first == .accept(Scheduler.Tile(10)))
        #expect(
            scheduler.handle(.answered(2, Scheduler.Tile(10)), at: now + 42).first == .drop(Scheduler.Tile(10), from: 2)
        )
        #expect(scheduler.dropped == 1)
    }

    @Test("lanes that stall together overrun one lease, not one each: the next is twice as long", arguments: [1, 2, 8])
    func stalledLanes(lanes: Int) throws {
        var leases = Scheduler.LeasePolicy()
        leases.sendsCopies = false
        var farm = SimulatedFarm(try .row(40 * lanes), leases: leases)
        // Every lane has one at hand. Ten seconds each, until there is no deviation left: leases are twice that.
        farm.join(1, lanes: lanes)
        for _ in 0..<20 {
            farm.now += 10
            for _ in 0..<lanes { farm.answerFirst() }
        }
        #expect(farm.requeued.isEmpty && farm.tasks.count == 2 * lanes)
        // All stall, and everything that waits behind them is given back.
        let stalled = farm.now
        farm.wait(21)
        #expect(Set(farm.requeued) == Set(farm.tasks.map(\.tile)))
        // It hangs once it has stood still for longer than the next lease would be.
        for seconds in [39.0, 40] {
            farm.now = stalled + seconds
            #expect(farm.hear(1, progress: 0) == [])
        }
        farm.now = stalled + 41
        #expect(farm.hear(1, progress: 0).first == .hung(1, seconds: 41))
    }

    @Test(
        """
        the last straggler gets one second copy on an idle worker that is clearly faster; the first answer wins, the \
        other is dropped
        """
    )
    func speculation() throws {
        var scheduler = try Scheduler.row(6)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        _ = scheduler.handle(.joined(2, lanes: 1, credit: 1), at: 0)
        // The first is ten times slower than the second.
        for index in 1...4 { _ = scheduler.handle(.answered(2, Scheduler.Tile(index)), at: Double(index)) }
        // Nobody knows what the first takes for a tile; it has taken five times as long as the second does already.
        #expect(
            scheduler.handle(.answered(2, Scheduler.Tile(5)), at: 5).contains(
                .resend(Scheduler.Tile(0), to: 2, attempt: 1)))
        #expect(scheduler.speculations == 1 && scheduler.repeats == 0)
        // A third worker does not get it too.
        #expect(scheduler.handle(.joined(3, lanes: 1, credit: 1), at: 5).isEmpty)
        #expect(scheduler.handle(.tick, at: 5.5).isEmpty)
        #expect(scheduler.handle(.answered(2, Scheduler.Tile(0)), at: 6).contains(.finishedJob))
        #expect(scheduler.handle(.answered(1, Scheduler.Tile(0)), at: 7) == [.drop(Scheduler.Tile(0), from: 1)])
        #expect(scheduler.dropped == 1 && scheduler.mergedTiles == 6)
    }

    @Test("a copy that is lost costs nothing while the other is out, and neither dies nor fails twice")
    func lostCopy() throws {
        var scheduler = try Scheduler.row(3)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        _ = scheduler.handle(.joined(2, lanes: 1, credit: 1), at: 0)
        _ = scheduler.handle(.answered(2, Scheduler.Tile(1)), at: 1)
        _ = scheduler.handle(.answered(2, Scheduler.Tile(2)), at: 2)
        #expect(scheduler.speculations == 1)
        let now = 2.5
        #expect(scheduler.handle(.left(1, reason: "killed"), at: now).isEmpty)
        #expect(scheduler.inFlight == 1)
        #expect(
            scheduler.handle(.left(2, reason: "killed"), at: now) == [
                .requeued(Scheduler.Tile(0), from: 2, cause: "killed")
            ]
        )
        #expect(scheduler.inFlight == 0)
        #expect(
            scheduler.handle(.joined(3, lanes: 1, credit: 1), at: now) == [
                .resend(Scheduler.Tile(0), to: 3, attempt: 2)
            ])
        #expect(scheduler.handle(.answered(3, Scheduler.Tile(0)), at: now + 1).contains(.finishedJob))
    }

    @Test("a worker that lives and does not get on hangs: its tiles go elsewhere, it gets nothing until it moves")
    func hung() throws {
        var scheduler = try Scheduler.row(8)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 2), at: 0)
        _ = scheduler.handle(.answered(1, Scheduler.Tile(0)), at: 10)
        // Growing progress is life, however long it takes; standing still within the lease is too.
        for second in 11..<40 {
            #expect(scheduler.handle(.alive(1, progress: UInt64(second), isWorking: true), at: Double(second)) == [])
        }
        #expect(scheduler.handle(.alive(1, progress: 39, isWorking: true), at: 60) == [])
        let commands = scheduler.handle(.alive(1, progress: 39, isWorking: true), at: 75)
        #expect(commands.first == .hung(1, seconds: 36))
        #expect(
            commands.dropFirst() == [
                .requeued(Scheduler.Tile(1), from: 1, cause: "the worker hangs"),
                .requeued(Scheduler.Tile(2), from: 1, cause: "the worker hangs"),
            ])
        #expect(scheduler.handle(.alive(1, progress: 39, isWorking: true), at: 80) == [], "said once")
        #expect(scheduler.handle(.joined(2, lanes: 4, credit: 4), at: 81).count == 4)
        #expect(scheduler.handle(.alive(1, progress: 40, isWorking: true), at: 82) == [.recovered(1)])
        // What it still has is as good as any other's.
        #expect(scheduler.handle(.answered(1, Scheduler.Tile(1)), at: 83).contains(.accept(Scheduler.Tile(1))))
    }

    @Test("an idle worker's progress may stand still for ever")
    func idleIsNotHung() throws {
        var scheduler = try Scheduler.row(1)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        _ = scheduler.handle(.joined(2, lanes: 1, credit: 1), at: 0)
        for second in 0..<10_000 {
            #expect(scheduler.handle(.alive(2, progress: 1, isWorking: false), at: Double(second)) == [])
        }
    }
}
