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
        var result: DenoiserBenchmark.Result
        var precision: String

        func encode(to encoder: any Encoder) throws {
            try result.encode(to: encoder)
            try ["precision": precision].encode(to: encoder)
        }
    }

    func run() throws {
        let lanes = lanes ?? ProcessInfo.processInfo.activeProcessorCount
        let result = try DenoiserBenchmark.run(
            folder: modelFolder(model), tile: tile, lanes: lanes, seconds: seconds)
        let report = Report(result: result, precision: precision.rawValue)
        try printJSON(report)
    }
}
