import ArgumentParser
import Engine

/// How fast a farm would be, without the farm.
struct SimulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate", abstract: "Simulate a farm with the real scheduler, to plan one. Prints JSON.",
        discussion: """
            Every tile takes the first worker one second. `efficiency` is what the same tiles would take if no lane \
            was ever idle, over what they take: with steps that overlap (dataflow), and with a barrier between steps.
            """)

    @Option(help: "Tiles along a side of the picture: 61 for a gigapixel with latents of 8 and tiles of 64.")
    var grid = 16

    @Option(help: "Steps of the sampler.")
    var steps = 16

    @Option(help: "Workers.")
    var workers = 50

    @Option(help: "Lanes of a worker.")
    var lanes = 1

    @Option(help: "Tasks that each lane has at hand besides the one it is at.")
    var prefetch = 1

    @Option(
        help: ArgumentHelp(
            "How much slower than the first the workers are, in turn: 1,1,1,3 makes every fourth three times slower.",
            valueName: "times"))
    var mix = "1"

    @Option(help: "How far a task's time goes up or down at most, as a part of it.")
    var jitter = 0.1

    @Option(help: "Part of the tasks that end badly: an error, the worker's death, a worker that hangs, a third each.")
    var failing = 0.0

    @Option(help: "Copies of a straggling tile that may be out at one time; 1 for no second copies.")
    var copies = 2

    @Option(help: "Seed: the same one gives the same run.")
    var seed: UInt64 = 0

    @Flag(help: "Leave out the run with a barrier.")
    var onlyDataflow = false

    private static let grids = 1...500, stepCounts = 1...1000, workerCounts = 1...100_000, laneCounts = 1...1024

    func validate() throws {
        for (name, value, allowed) in [
            ("grid", grid, Self.grids), ("steps", steps, Self.stepCounts), ("workers", workers, Self.workerCounts),
            ("lanes", lanes, Self.laneCounts),
            ("prefetch", prefetch, 0...16), ("copies", copies, 1...2),
        ] where !allowed.contains(value) {
            throw ValidationError("--\(name) \(value): must be from \(allowed.lowerBound) to \(allowed.upperBound)")
        }
        for (name, value, allowed) in [("jitter", jitter, 0...0.9), ("failing", failing, 0...0.5)]
        where !allowed.contains(value) {
            throw ValidationError("--\(name) \(value): must be from \(allowed.lowerBound) to \(allowed.upperBound)")
        }
        _ = try slowness()
    }

    private func slowness() throws -> [Double] {
        let times = mix.split(separator: ",", omittingEmptySubsequences: false).map { Double($0) ?? .nan }
        guard times.allSatisfy({ (0.01...1000).contains($0) }), times.count <= 1000 else {
            throw ValidationError("--mix \(mix): must be numbers from 0.01 to 1000 with commas between them")
        }
        return times
    }

    private struct Report: Encodable {
        var dataflow: Run
        var barrier: Run?

        struct Run: Encodable {
            var result: Simulation.Report
            /// Seconds of the processor that this program took.
            var cpuSeconds: Double
        }
    }

    func run() throws {
        var settings = Simulation.Settings()
        (settings.grid, settings.steps, settings.workers, settings.lanes) = (grid, steps, workers, lanes)
        (settings.prefetched, settings.jitter, settings.failing, settings.seed) = (prefetch, jitter, failing, seed)
        settings.slowness = try slowness()
        settings.leases.sendsCopies = copies > 1
        try printJSON(
            Report(dataflow: Self.run(settings), barrier: onlyDataflow ? nil : Self.run(settings, isBarrier: true)))
    }

    private static func run(_ settings: Simulation.Settings, isBarrier: Bool = false) throws -> Report.Run {
        var settings = settings
        settings.isBarrier = isBarrier
        let start = Clock.processor
        let result = try Simulation.run(settings)
        return Report.Run(result: result, cpuSeconds: Clock.processor - start)
    }
}
