import ArgumentParser
import Engine
import Foundation

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Time the bare denoiser on random input with all lanes busy. Prints JSON.")

    @Option(help: "A model folder in the diffusers layout. Without it: the model that comes with tilefarm.")
    var model: String?

    @Option(help: "Side of the tile in pixels.")
    var tile = RenderPlan.defaultTile

    @Option(help: "Tiles computed at the same time, each on a thread of its own. Default: the cores.")
    var lanes: Int?

    @Option(help: "Seconds to measure for.")
    var seconds = 5.0

    enum Precision: String, ExpressibleByArgument, CaseIterable { case float32 }

    @Option(help: "The arithmetic.")
    var precision = Precision.float32

    func validate() throws {
        guard (8...4096).contains(tile) else { throw ValidationError("--tile \(tile): must be from 8 to 4096") }
        if let lanes, !(1...1024).contains(lanes) { throw ValidationError("--lanes \(lanes): must be from 1 to 1024") }
        guard seconds.isFinite, (0.1...3600).contains(seconds) else { throw ValidationError("--seconds \(seconds): must be from 0.1 to 3600") }
    }

    private struct Report: Encodable {
        var seconds_per_tile: Double
        var tiles_per_second: Double
        var gflops: Double
        var kernels: String
        var precision: String
        var lanes: Int
        var tile: Int
        var peak_memory_bytes: Int
    }

    func run() throws {
        let lanes = lanes ?? ProcessInfo.processInfo.activeProcessorCount
        let result = try DenoiserBenchmark.run(
            folder: model.map { URL(filePath: $0) } ?? DefaultModel.url, tile: tile, lanes: lanes, seconds: seconds)
        let report = Report(
            seconds_per_tile: result.secondsPerTile, tiles_per_second: result.tilesPerSecond, gflops: result.gflops, kernels: result.kernels,
            precision: precision.rawValue, lanes: lanes, tile: tile, peak_memory_bytes: result.peakMemoryBytes)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        print(String(decoding: try encoder.encode(report), as: UTF8.self))
    }
}
