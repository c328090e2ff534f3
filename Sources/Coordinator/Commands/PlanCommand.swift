import ArgumentParser
import Engine
import Foundation

struct PlanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Say what an upscale would take, without rendering: size, tiles, memory, traffic, time.")

    @OptionGroup var options: UpscaleOptions

    @Option(help: "Lanes to estimate the time for. Default: this machine's cores.")
    var lanes: Int?

    func validate() throws {
        if let lanes, !(1...100_000).contains(lanes) {
            throw ValidationError("--lanes \(lanes): must be from 1 to 100000")
        }
    }

    func run() throws {
        let reader = try InputImage.reader(options.input)
        let folder = try modelFolder(options.model)
        let plan = try options.plan(folder, inputHeight: reader.height, inputWidth: reader.width)

        // The work of a job, phase by phase, as it would be sent.
        var tiles: [String: [Int]] = [:]
        var (sent, received) = (0, 0)
        for phase in plan.phases.indices {
            let count = plan.step(phase).count
            tiles[plan.phases[phase].name, default: []].append(count)
            for tile in 0..<count {
                let work = try plan.work(phase: phase, tile: tile)
                sent += work.inputByteCounts.reduce(0, +)
                received += work.answerByteCount
            }
        }

        let cores = ProcessInfo.processInfo.activeProcessorCount
        let lanes = lanes ?? cores
        let input = InputImage.bytes(of: reader)
        let kept = plan.stores(canvases: 1).reduce(input) { $0 + $1.bytes }
        let coordinator = Self.size(plan.coordinatorBytes(lanes: lanes, kept: kept))
        let unit = plan.latent == nil ? "pixels" : "latents"
        func line(_ key: String, _ value: String) {
            print(key.padding(toLength: 16, withPad: " ", startingAt: 0) + value)
        }
        func counts(_ name: String) -> String {
            let counts = tiles[name] ?? []
            return "\(counts.min() ?? 0)\(counts.min() == counts.max() ? "" : " to \(counts.max() ?? 0)")"
        }
        func total(_ name: String) -> Int { (tiles[name] ?? []).reduce(0, +) }
        line("input", "\(plan.inputWidth)x\(plan.inputHeight)")
        line(
            "output",
            "\(plan.outputWidth)x\(plan.outputHeight) (canvas \(plan.tiling.canvasWidth)x\(plan.tiling.canvasHeight)\(plan.latent == nil ? "" : " latents"))"
        )
        line("tiles", "\(counts("denoise")) a step of \(plan.tiling.tile)x\(plan.tiling.tile) \(unit)")
        line("cuts", "of the last step: " + Self.cuts(plan.grids[plan.steps - 1]))
        line("tasks", "\(total("denoise")) in \(plan.steps) steps")
        if let latent = plan.latent {
            let side = latent.autoencoderTiling.tile
            for (name, what) in [("encode", "encoded"), ("decode", "decoded")] where total(name) > 0 {
                line(
                    name,
                    "\(total(name)) tasks in \(tiles[name]?.count ?? 0) passes over \(counts(name)) \(what) tiles of \(side)x\(side) latents"
                )
            }
        }
        let worker = plan.workerBytes(lanes: cores, machine: Int(clamping: ProcessInfo.processInfo.physicalMemory))
        if let worker, worker > Int(clamping: ProcessInfo.processInfo.physicalMemory) {
            line("memory", "coordinator \(coordinator), worker \(Self.size(worker)) with \(cores) lanes")
            throw CommandError.modelNeedsMemory(
                needed: worker, machine: Int(clamping: ProcessInfo.processInfo.physicalMemory))
        }

        // Large tiles would take long to measure; time grows with the area.
        let sample = min(
            plan.tiling.tile, max((plan.latent == nil ? 512 : 64) / plan.tiling.alignment, 1) * plan.tiling.alignment)
        let measured = try DenoiserBenchmark.run(
            folder: folder, tile: sample, precision: plan.precision, lanes: cores, seconds: 1.5)
        let side = Double(plan.tiling.tile) / Double(sample)
        var secondsPerTile = measured.secondsPerTile * side * side
        if let latent = plan.latent, latent.guidanceScale != 1 { secondsPerTile *= 2 }
        // All at the denoiser's pace.
        let costs = plan.costs
        let denoising = zip(plan.phases, costs).first { if case .denoise = $0.0 { true } else { false } }?.1 ?? 1
        let seconds =
            plan.phases.indices.reduce(0) { $0 + Double(plan.step($1).count) * costs[$1] } / denoising * secondsPerTile
        line(
            "memory",
            "coordinator \(coordinator), worker \(Self.size(worker ?? measured.peakMemoryBytes)) with \(cores) lanes")
        line(
            "disk",
            "\(Self.size(plan.stores(canvases: 3).reduce(input) { $0 + $1.bytes })) with --job, half with --storage float16"
        )
        let halves = plan.latent == nil && plan.tiling.writesDisjointCells ? ", about half with --storage float16" : ""
        line("traffic", "\(Self.size(sent)) to the workers, \(Self.size(received)) back\(halves)")
        line(
            "time",
            "about \(ProgressLine.clock(seconds / Double(lanes))) on \(lanes) lanes like this machine's "
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
