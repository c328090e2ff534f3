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
        let plan = try MethodTable.standard.plan(
            options.request(nil), PlanContext(model: folder, inputHeight: reader.height, inputWidth: reader.width))
        let pipeline = plan.pipeline, picture = plan.picture, tiling = plan.tiling
        let cores = ProcessInfo.processInfo.activeProcessorCount
        let lanes = lanes ?? cores
        let machine = Int(clamping: ProcessInfo.processInfo.physicalMemory)
        let input = InputImage.bytes(of: reader)
        let coordinator = ByteCount(
            plan.coordinatorBytes(lanes: lanes, kept: input + plan.arrayBytes(hasCheckpoints: false)))
        let isLatent = plan.needs != nil
        func line(_ key: String, _ value: String) {
            print(key.padding(toLength: 16, withPad: " ", startingAt: 0) + value)
        }

        line("input", "\(picture.inputWidth)x\(picture.inputHeight)")
        let canvas = "canvas \(tiling.canvasWidth)x\(tiling.canvasHeight)\(isLatent ? " latents" : "")"
        line("output", "\(picture.outputWidth)x\(picture.outputHeight) (\(canvas))")
        let denoising = TileCounts(pipeline, "denoise")
        line("tiles", "\(denoising) a step of \(tiling.tile)x\(tiling.tile) \(isLatent ? "latents" : "pixels")")
        if let last = pipeline.passes.last(where: { $0.name == "denoise" })?.grid {
            line("cuts", "of the last step: " + Self.cuts(last))
        }
        line("tasks", "\(denoising.total) in \(plan.steps) steps")
        let side = options.vaeTile ?? AutoencoderTiling().tile
        for (name, what) in [("encode", "encoded"), ("decode", "decoded")] {
            let counts = TileCounts(pipeline, name)
            guard counts.total > 0 else { continue }
            line(
                name,
                "\(counts.total) tasks in \(counts.passes) passes over \(counts) \(what) tiles of "
                    + "\(side)x\(side) latents")
        }
        let worker = plan.workerBytes(lanes: cores, machine: machine)
        if let worker, worker > machine {
            line("memory", "coordinator \(coordinator), worker \(ByteCount(worker)) with \(cores) lanes")
            throw RunError.modelNeedsMemory(needed: worker, machine: machine)
        }

        let measured = try measure(plan, folder, cores: cores)
        line(
            "memory",
            "coordinator \(coordinator), worker \(ByteCount(worker ?? measured.peakMemoryBytes)) with \(cores) lanes")
        line(
            "disk",
            "\(ByteCount(input + plan.arrayBytes(hasCheckpoints: true))) with --job, half with --storage float16")
        let (sent, received) = try Self.traffic(pipeline)
        let halves = !isLatent && tiling.writesDisjointCells ? ", about half with --storage float16" : ""
        line("traffic", "\(ByteCount(sent)) to the workers, \(ByteCount(received)) back\(halves)")
        // All at the denoiser's pace.
        let cost = pipeline.passes.first { $0.name == "denoise" }?.cost ?? 1
        let seconds =
            pipeline.passes.reduce(0) { $0 + Double($1.taskCount) * $1.cost } / cost * measured.secondsPerTile
        line(
            "time",
            "about \(Clock.text(seconds / Double(lanes))) on \(lanes) lanes like this machine's "
                + "(\(String(format: "%.1f", measured.secondsPerTile * 1000)) ms a tile and lane, \(measured.kernels))")
    }

    /// Tiles of the passes of one name.
    private struct TileCounts: CustomStringConvertible {
        let counts: [Int]

        init(_ pipeline: Pipeline, _ name: String) {
            counts = pipeline.passes.filter { $0.name == name }.map(\.taskCount)
        }

        var total: Int { counts.reduce(0, +) }
        var passes: Int { counts.count }
        var description: String {
            let (least, most) = (counts.min() ?? 0, counts.max() ?? 0)
            return least == most ? "\(least)" : "\(least) to \(most)"
        }
    }

    private struct Measured {
        var secondsPerTile: Double
        var peakMemoryBytes: Int
        var kernels: String
    }

    /// Large tiles would take long to measure; time grows with the area.
    private func measure(_ plan: JobPlan, _ folder: ModelFolder, cores: Int) throws -> Measured {
        let tiling = plan.tiling, isLatent = plan.needs != nil
        let sample = min(tiling.tile, max((isLatent ? 64 : 512) / tiling.alignment, 1) * tiling.alignment)
        let report = try DenoiserBenchmark.run(
            folder: folder, tile: sample, precision: plan.precision, lanes: cores, seconds: 1.5)
        let side = Double(tiling.tile) / Double(sample)
        let isGuided =
            plan.pipeline.passes.contains { pass in
                pass.name == "denoise" && pass.reads.count { $0.delivery == .blob } > 1
            }
        return Measured(
            secondsPerTile: report.secondsPerTile * side * side * (isGuided ? 2 : 1),
            peakMemoryBytes: report.peakMemoryBytes, kernels: report.kernels)
    }

    /// Bytes of all tasks and answers; a blob counts once.
    private static func traffic(_ pipeline: Pipeline) throws -> (sent: Int, received: Int) {
        var (sent, received) = (0, 0), blobs: Set<String> = []
        for (index, pass) in pipeline.passes.enumerated() {
            guard case .task(let operation) = pass.work else { continue }
            for tile in 0..<pass.count {
                let operation = try operation(tile)
                received += operation.outputs.reduce(0) { $0 + $1.byteCount }
                for (slot, (read, input)) in zip(pass.reads, operation.inputs).enumerated() {
                    switch read.delivery {
                    case .noise: break
                    case .frame: sent += input.byteCount
                    case .blob:
                        let writer = pipeline.writers[index][slot] ?? -1
                        var name = "\(read.plane) \(writer)"
                        if case .whole = read.region {} else { name += " \(pass.place(tile))" }
                        if blobs.insert(name).inserted { sent += input.byteCount }
                    }
                }
            }
        }
        return (sent, received)
    }

    /// Where cells end, for who looks for seams: `x 232 456 | y 240`.
    private static func cuts(_ grid: TileGrid) -> String {
        func places(_ axis: TileAxis) -> String {
            let places = axis.cells.dropLast().map { String($0.upperBound) }
            return places.isEmpty ? "none" : places.joined(separator: " ")
        }
        return "x \(places(grid.columns)) | y \(places(grid.rows))"
    }
}
