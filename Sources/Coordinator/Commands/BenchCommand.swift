import ArgumentParser
import Engine
import Foundation

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Time a bare model on random input with all lanes busy. Prints JSON.")

    @Option(help: "A model folder in the diffusers layout. Without it: the model that comes with tilefarm.")
    var model: String?

    @Option(help: "What of a latent model: unet (one prediction), vae (one decoded window), text (one prompt).")
    var part = PipelineFolder.Part.unet

    @Option(
        help:
            """
            Side of the tile: pixels, or latents for latent models. Default: \(SuperResolution.defaultTile), or \
            \(LatentCanvas.defaultTile) latents.
            """
    )
    var tile: Int?

    @Option(help: "Tiles computed at the same time, each on a thread of its own. Default: the cores.")
    var lanes: Int?

    @Option(help: "Seconds to measure for.")
    var seconds = 5.0

    @Option(help: "Weights and products. Default: as the folder has its weights.")
    var precision: Precision?

    func validate() throws {
        if let tile, !(8...4096).contains(tile) { throw ValidationError("--tile \(tile): must be from 8 to 4096") }
        if let lanes, !(1...1024).contains(lanes) { throw ValidationError("--lanes \(lanes): must be from 1 to 1024") }
        guard seconds.isFinite, (0.1...3600).contains(seconds) else {
            throw ValidationError("--seconds \(seconds): must be from 0.1 to 3600")
        }
    }

    func run() throws {
        let folder = try modelFolder(model)
        let isLatent = folder.pipeline != nil
        try printJSON(
            DenoiserBenchmark.run(
                folder: folder, part: part,
                tile: tile ?? (isLatent ? LatentCanvas.defaultTile : SuperResolution.defaultTile),
                precision: precision ?? (isLatent ? folder.naturalPrecision() : .float32),
                lanes: lanes ?? ProcessInfo.processInfo.activeProcessorCount, seconds: seconds))
    }
}

extension PipelineFolder.Part: ExpressibleByArgument {}
