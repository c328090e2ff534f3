import ArgumentParser
import Engine
import Foundation

struct PlanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan", abstract: "Say what an upscale would take, without rendering: size, tiles, memory, traffic, time.")

    @OptionGroup var options: UpscaleOptions

    @Option(help: "Lanes to estimate the time for. Default: this machine's cores.")
    var lanes: Int?

    func validate() throws {
        if let lanes, !(1...100_000).contains(lanes) { throw ValidationError("--lanes \(lanes): must be from 1 to 100000") }
    }

    func run() throws {
        let reader = try PNGReader(path: options.input, pixelLimit: InputImage.pixelLimit)
        let folder = try modelFolder(options.model)
        let plan = try options.plan(folder, inputHeight: reader.height, inputWidth: reader.width)

        // The work of a job, phase by phase, as it would be sent.
        var tiles: [Int] = []
        var (sent, received) = (0, 0)
        for phase in plan.phases.indices {
            let count = plan.step(phase).count
            tiles.append(count)
            for tile in 0..<count {
                let work = try plan.work(phase: phase, tile: tile)
                sent += work.inputByteCounts.reduce(0, +)
                received += work.answerByteCount
            }
        }
        let total = tiles.reduce(0, +)

        let cores = ProcessInfo.processInfo.activeProcessorCount
        // Large tiles would take long to measure; time grows with the area.
        let sample = min(plan.tiling.tile, max(512 / plan.tiling.alignment, 1) * plan.tiling.alignment)
        let measured = try DenoiserBenchmark.run(folder: folder, tile: sample, lanes: cores, seconds: 1.5)
        let side = Double(plan.tiling.tile) / Double(sample)
        let secondsPerTile = measured.secondsPerTile * side * side
        let lanes = lanes ?? cores

        func line(_ key: String, _ value: String) { print(key.padding(toLength: 16, withPad: " ", startingAt: 0) + value) }
        line("input", "\(plan.inputWidth)x\(plan.inputHeight)")
        line("output", "\(plan.outputWidth)x\(plan.outputHeight) (canvas \(plan.tiling.canvasWidth)x\(plan.tiling.canvasHeight))")
        line("tiles", "\(tiles.min() ?? 0)\(tiles.min() == tiles.max() ? "" : " to \(tiles.max() ?? 0)") a step of \(plan.tiling.tile)x\(plan.tiling.tile) pixels")
        line("cuts", "of the last step: " + Self.cuts(plan.tiling.grid(step: plan.steps - 1)))
        line("tasks", "\(total) in \(plan.steps) steps")
        line("memory", "coordinator \(Self.size(plan.coordinatorBytes(lanes: lanes))), worker \(Self.size(measured.peakMemoryBytes)) with \(cores) lanes")
        line("traffic", "\(Self.size(sent)) to the workers, \(Self.size(received)) back")
        line(
            "time",
            "about \(ProgressLine.clock(Double(total) * secondsPerTile / Double(lanes))) on \(lanes) lanes like this machine's "
                + "(\(String(format: "%.1f", secondsPerTile * 1000)) ms a tile and lane, \(measured.kernels))")
    }

    /// Where cells end, for who looks for seams: `x 232 456 | y 240`.
    private static func cuts(_ grid: TileGrid) -> String {
        func places(_ axis: TileAxis) -> String {
            let places = axis.cells.dropLast().map { String($0.upperBound) }
            return places.isEmpty ? "none" : places.joined(separator: " ")
        }
        return "x \(places(grid.columns)) | y \(places(grid.rows))"
    }

    static func size(_ bytes: Int) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"]
        var (value, unit) = (Double(bytes), 0)
        while value >= 1024, unit < units.count - 1 { (value, unit) = (value / 1024, unit + 1) }
        return String(format: unit == 0 ? "%.0f " : "%.1f ", value) + units[unit]
    }
}
