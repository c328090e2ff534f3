import Coordinator
import Testing

@Suite("Failures")
struct FailureTests {
    @Test("a worker that fails on everything loses no job while another works")
    func brokenWorker() throws {
        var farm = try SimulatedFarm(tiling: SchedulerTests.tiling(64), steps: 3, seed: 1)
        farm.join(0)
        farm.join(1)
        var failures = 0
        while !farm.tasks.isEmpty {
            if let tile = farm.tiles(of: 0).last, !farm.scheduler.isQuarantined(0) {
                failures += 1
                farm.fail(0, tile, reason: "not finite")
            } else {
                farm.answerOne()
            }
        }
        #expect(farm.isFinished && !farm.hasGivenUp)
        #expect(failures <= 4, "two in its credit, and few more until it is in quarantine")
    }

    @Test("nobody's answer, failure or return counts who was not given the task")
    func impostor() throws {
        var scheduler = try Scheduler.row(2)
        _ = scheduler.handle(.joined(1, lanes: 1, credit: 1), at: 0)
        let tile = Scheduler.Tile(0)
        #expect(scheduler.handle(.answered(2, tile), at: 1) == [.drop(tile, from: 2)])
        for _ in 0..<5 { #expect(scheduler.handle(.failed(2, tile, reason: "no"), at: 1) == []) }
        #expect(scheduler.handle(.returned(2, tile), at: 1) == [])
        #expect(scheduler.mergedTiles == 0 && !scheduler.isOver && scheduler.tasks(of: 1) == 1)
    }

    @Test("a tile that fails three times ends the job with its reason")
    func givingUp() throws {
        var scheduler = try Scheduler.row(1)
        let tile = Scheduler.Tile(0)
        #expect(scheduler.handle(.joined(7, lanes: 1, credit: 2), at: 0) == [.cutAndSend(tile, to: 7)])
        for attempt in 1...2 {
            #expect(
                scheduler.handle(.failed(7, tile, reason: "bad"), at: 1)
                    == [.requeued(tile, from: 7, cause: "bad"), .resend(tile, to: 7, attempt: attempt)])
        }
        #expect(scheduler.handle(.failed(7, tile, reason: "bad"), at: 2) == [.gaveUp(tile, reason: "bad")])
        #expect(scheduler.isOver)
    }

    @Test("a tile does not wait for a worker that is in quarantine")
    func passedOver() throws {
        var farm = SimulatedFarm(try .row(4))
        // The first fails three tiles and is in quarantine; the second then fails the one that the first has never had.
        farm.join(1, credit: 1)
        for _ in 0..<Scheduler.patience - 1 {
            if let task = farm.tasks.first { farm.fail(task.worker, task.tile, reason: "broken") }
        }
        farm.join(2, lanes: 4, credit: 4)
        var hasFailed = false, turns = 0
        while !farm.isFinished, turns < 100, let next = farm.tasks.first {
            turns += 1
            if next.worker == 1 {
                farm.fail(1, next.tile, reason: "broken")
            } else if !hasFailed, next.tile.index == 3 {
                hasFailed = true
                farm.fail(2, next.tile, reason: "once")
            } else {
                farm.answerFirst()
            }
        }
        #expect(farm.isFinished && hasFailed)
    }

    @Test(
        """
        three bad results put an identity into quarantine, under whatever connection it comes back, and the job goes \
        on without it
        """
    )
    func quarantine() throws {
        var leases = Scheduler.LeasePolicy()
        leases.othersMayCome = true
        var scheduler = try Scheduler.row(20, leases)
        var quarantines = 0
        for connection in 0..<3 {
            #expect(scheduler.handle(.joined(connection, lanes: 1, credit: 1, identity: "rogue"), at: 0).count == 1)
            let commands = scheduler.handle(.misbehaved(connection, Scheduler.Tile(0), reason: "not finite"), at: 1)
            quarantines += commands.count { if case .quarantined = $0 { true } else { false } }
            _ = scheduler.handle(.left(connection, reason: "connection lost"), at: 1)
        }
        #expect(
            scheduler.handle(.joined(4, lanes: 1, credit: 1, identity: "rogue"), at: 2).isEmpty
                && scheduler.workerCount == 0)
        #expect(quarantines == 1 && scheduler.bad == 3 && !scheduler.isOver && scheduler.isQuarantined(4))
        _ = scheduler.handle(.joined(9, lanes: 1, credit: 1), at: 2)
        for index in 0..<20 { _ = scheduler.handle(.answered(9, Scheduler.Tile(index)), at: 3) }
        #expect(scheduler.isOver && scheduler.mergedTiles == 20)
    }

    @Test("good answers forgive failures that a worker reports, but not answers that were none")
    func forgiveness() throws {
        var leases = Scheduler.LeasePolicy()
        leases.othersMayCome = true
        var farm = SimulatedFarm(try .row(60), leases: leases)
        farm.join(1, credit: 1)
        func tile() throws -> Scheduler.Tile { try #require(farm.tasks.last).tile }
        for _ in 0..<10 {
            farm.now += 1
            for _ in 0..<2 { farm.fail(1, try tile()) }
            farm.answer(1, try tile())
        }
        for _ in 0..<2 {
            farm.lie(1, try tile(), reason: "damaged")
            farm.answer(1, try tile())
        }
        let last = try tile()
        #expect(farm.lie(1, last, reason: "damaged").contains(.quarantined(1, last, reason: "damaged")))
        #expect(farm.scheduler.workerCount == 0 && !farm.scheduler.isOver)
    }

    @Test("a tile that fails on three workers ends the job, while others could still take it")
    func threeWorkers() throws {
        var scheduler = try Scheduler.row(1)
        for worker in 1...5 { _ = scheduler.handle(.joined(worker, lanes: 1, credit: 1), at: 0) }
        let first = scheduler.handle(.failed(1, Scheduler.Tile(0), reason: "bad"), at: 1)
        #expect(
            first == [
                .requeued(Scheduler.Tile(0), from: 1, cause: "bad"), .resend(Scheduler.Tile(0), to: 2, attempt: 1),
            ])
        #expect(
            scheduler.handle(.misbehaved(2, Scheduler.Tile(0), reason: "bad"), at: 2).last
                == .resend(Scheduler.Tile(0), to: 3, attempt: 2))
        #expect(
            scheduler.handle(.failed(3, Scheduler.Tile(0), reason: "worse"), at: 3) == [
                .gaveUp(Scheduler.Tile(0), reason: "worse")
            ])
    }

    @Test(
        """
        where others may come, two machines that fail six times on a tile end the job, and one alone waits for \
        another
        """,
        arguments: [false, true])
    func twoMachines(lies: Bool) throws {
        var leases = Scheduler.LeasePolicy()
        leases.othersMayCome = true
        for machines in 1...2 {
            var farm = SimulatedFarm(try .row(1), leases: leases)
            var failures = 0, gaveUp = 0
            for worker in 1...machines { farm.join(worker, credit: 1) }
            while let worker = farm.tasks.first?.worker {
                failures += 1
                let commands = lies ? farm.lie(worker, .init(0)) : farm.fail(worker, .init(0), reason: "not finite")
                gaveUp += commands.count { if case .gaveUp = $0 { true } else { false } }
            }
            #expect(failures == 3 * machines && farm.scheduler.isOver == (machines == 2) && gaveUp == machines - 1)
            if machines == 1 {
                farm.join(9, credit: 1)
                #expect(farm.tasks.map(\.worker) == [9] && farm.answer(9, .init(0)).last == .finishedJob)
            }
        }
    }

    @Test(
        """
        a local worker that is just being started again is waited for when the other is put into quarantine, and the \
        job ends when both are
        """)
    func restarting() throws {
        var leases = Scheduler.LeasePolicy()
        leases.identities = 2
        var farm = SimulatedFarm(try .row(4), leases: leases)
        func lieUntilTheEnd(_ worker: Int) -> [Scheduler.Command] {
            var commands: [Scheduler.Command] = []
            while !farm.scheduler.isOver, !farm.scheduler.isQuarantined(worker), let tile = farm.tiles(of: worker).last
            {
                commands = farm.lie(worker, tile)
            }
            return commands
        }
        farm.join(1, credit: 1, identity: "local-1")
        farm.join(2, credit: 1, identity: "local-2")
        farm.lose(2)
        #expect(lieUntilTheEnd(1).contains { if case .quarantined(1, _, _) = $0 { true } else { false } })
        #expect(!farm.scheduler.isOver && farm.scheduler.workerCount == 0)
        #expect(farm.join(3, credit: 1, identity: "local-2") == [.resend(.init(0), to: 3, attempt: 3)])
        let last = lieUntilTheEnd(3).last
        #expect(farm.scheduler.isOver)
        if case .gaveUp = last {} else { Issue.record("\(String(describing: last))") }
    }
}
