import Coordinator
import Engine
import Testing

@Suite("Simulation")
struct SimulationTests {
    /// A row of the table in docs/scheduling.md.
    struct Row: Sendable, CustomTestStringConvertible {
        var grid: Int, workers: Int, slowness: [Double], barrier: Double, dataflow: Double
        var testDescription: String { "\(grid)x\(grid) tiles, \(workers) workers" }
    }

    static let mixed: [Double] = [1, 1, 1, 3]

    @Test(
        "steps that overlap keep a farm busy where a barrier leaves lanes idle",
        arguments: [
            Row(grid: 8, workers: 50, slowness: [1], barrier: 0.77, dataflow: 0.99),
            Row(grid: 16, workers: 50, slowness: mixed, barrier: 0.76, dataflow: 0.99),
            Row(grid: 61, workers: 1000, slowness: mixed, barrier: 0.70, dataflow: 0.98),
        ])
    func efficiency(row: Row) throws {
        var settings = Simulation.Settings()
        (settings.grid, settings.workers, settings.slowness, settings.steps) = (row.grid, row.workers, row.slowness, 50)
        // As the table was made: no second copies, and workers have nothing at hand but what they are at.
        (settings.prefetched, settings.leases.sendsCopies) = (0, false)
        let dataflow = try Simulation.run(settings)
        settings.isBarrier = true
        let barrier = try Simulation.run(settings)
        #expect(dataflow.finished && barrier.finished && dataflow.tiles == barrier.tiles)
        #expect(abs(dataflow.efficiency - row.dataflow) < 0.03, "\(dataflow)")
        #expect(abs(barrier.efficiency - row.barrier) < 0.03, "\(barrier)")
    }

    @Test("the same seed gives the same run, another one another")
    func reproducible() throws {
        var settings = Simulation.Settings()
        (settings.grid, settings.steps, settings.failing) = (8, 10, 0.02)
        let first = try Simulation.run(settings)
        #expect(try Simulation.run(settings) == first)
        settings.seed = 1
        #expect(try Simulation.run(settings) != first)
    }

    @Test("second copies shorten a job with slow workers, and cost few tiles", arguments: [false, true])
    func speculation(isBarrier: Bool) throws {
        var settings = Simulation.Settings()
        (settings.grid, settings.workers, settings.slowness, settings.steps) = (8, 12, [1, 1, 1, 10], 6)
        settings.isBarrier = isBarrier
        settings.leases.sendsCopies = false
        let without = try Simulation.run(settings)
        settings.leases.sendsCopies = true
        let with = try Simulation.run(settings)
        #expect(with.finished && with.speculative > 0 && with.dropped <= with.speculative)
        #expect(with.seconds < 0.9 * without.seconds, "\(with.seconds) against \(without.seconds)")
    }

    @Test(
        "errors, deaths and workers that hang repeat what was lost and little else, and the job ends",
        arguments: 0..<4 as Range<UInt64>)
    func faults(seed: UInt64) throws {
        var settings = Simulation.Settings()
        (settings.grid, settings.workers, settings.slowness, settings.steps) = (16, 50, Self.mixed, 20)
        (settings.failing, settings.seed) = (0.01, seed)
        let report = try Simulation.run(settings)
        #expect(report.finished && report.efficiency > 0.6, "\(report)")
        // A worker that dies or hangs loses two tiles at most; one that hangs is out for a minute.
        #expect(report.repeated > 0 && Double(report.repeated) < 0.025 * Double(report.tiles), "\(report)")
        // A window is kept while its tile is out, and while its answer waits for a neighbour's.
        #expect(report.mostKept < 4 * settings.workers + 2 * 17 * 17)
    }

    @Test(
        "ten thousand workers, a gigapixel of 61x61 tiles and 200 steps with 1 % of the tasks failing come to their end"
    )
    func tenThousand() throws {
        var settings = Simulation.Settings()
        (settings.grid, settings.steps, settings.workers, settings.slowness, settings.failing) = (
            61, 200, 10_000, Self.mixed, 0.01
        )
        let report = try Simulation.run(settings)
        #expect(report.finished && report.tiles > 61 * 61 * 200)
        print("10,000 workers: \(report)")
    }
}
