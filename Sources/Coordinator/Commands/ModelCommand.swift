import ArgumentParser
import Engine
import Foundation

struct ModelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "model", abstract: "Say what a model folder is, what it takes, and what the farm can do with it.")

    @Argument(help: "A model folder in the diffusers layout. Without it: the model that comes with tilefarm.")
    var folder: String?

    @Option(help: "Side of a tile: pixels, or latents for latent models.")
    var tile: Int?

    @Option(help: "Weights and products. Default: as the folder has its weights.")
    var precision: Precision?

    @Option(help: "Lanes of a worker. Default: this machine's cores.")
    var lanes: Int?

    func validate() throws {
        if let tile, !(8...4096).contains(tile) { throw ValidationError("--tile \(tile): must be from 8 to 4096") }
        if let lanes, !(1...1024).contains(lanes) { throw ValidationError("--lanes \(lanes): must be from 1 to 1024") }
    }

    func run() throws {
        let folder = try modelFolder(folder)
        func line(_ key: String, _ value: String) {
            print(key.padding(toLength: 16, withPad: " ", startingAt: 0) + value)
        }
        let lanes = lanes ?? ProcessInfo.processInfo.activeProcessorCount
        line("model", folder.architecture.rawValue)
        line("files", "\(folder.files.count), \(ByteCount(folder.files.reduce(0) { $0 + $1.size }))")
        if let pipeline = folder.pipeline {
            let precision = try precision ?? folder.naturalPrecision()
            let tile = tile ?? LatentCanvas.defaultTile
            var most = 0
            for part in PipelineFolder.Part.allCases {
                let side = part == .vae ? AutoencoderTiling().tile : tile
                let need = try pipeline.need(of: part, height: side, width: side, precision: precision)
                most = max(most, need.bytes(lanes: lanes))
                let call =
                    part == .unet
                    ? "a tile of \(side)x\(side) latents"
                    : part == .vae ? "a decoded tile of \(side)x\(side) latents" : "a prompt"
                line(
                    part.rawValue,
                    """
                    \(pipeline.folder(of: part).className), \(Self.millions(need.parameters)) parameters, \
                    \(ByteCount(need.bytes(lanes: lanes))) with \(lanes) lanes, \(Self.giga(need.flops)) GFLOP for \
                    \(call)
                    """)
            }
            line("precision", precision.rawValue)
            line("memory", "\(ByteCount(most)) for a worker with \(lanes) lanes, one network at a time")
            line("schedule", Self.words(folder.schedule))
            let factor = pipeline.vaeConfiguration.factor
            switch pipeline.kind {
            case .upscale:
                line(
                    "can",
                    """
                    enlarge a picture by \(factor), guided by a prompt (--prompt); noise levels up to \
                    \(pipeline.maximumNoiseLevel) (--noise-level)
                    """
                )
            case .imageToImage:
                line(
                    "can",
                    "enlarge a picture by any --scale and denoise it anew (--strength), guided by a prompt (--prompt)")
            }
        } else {
            if let precision, precision != .float32 {
                throw RequestError.notOfModel(.precision, model: folder.architecture.rawValue)
            }
            let unet = try UNet2DConfiguration(file: folder.network.appending(path: "config.json"))
            let factor = folder.superResolution?.spaceToDepth ?? 1
            let tile = tile ?? roundUp(SuperResolution.defaultTile, factor * unet.alignment)
            let flops = unet.flops(height: tile / factor, width: tile / factor)
            line(
                "unet",
                """
                UNet2DModel, \(Self.millions(try folder.denoiser.parameters().count)) parameters, \(Self.giga(flops)) \
                GFLOP for a tile of \(tile)x\(tile) pixels
                """
            )
            line("schedule", Self.words(folder.schedule))
            if let superResolution = folder.superResolution {
                line("can", "enlarge a picture; it was trained for \(superResolution.scale) times")
            } else {
                line("can", "not enlarge pictures: no tilefarm.json says how its channels are fed")
            }
        }
    }

    private static func millions(_ count: Int) -> String { String(format: "%.1f M", Double(count) / 1e6) }
    private static func giga(_ flops: Double) -> String { String(format: flops < 1e10 ? "%.2f" : "%.0f", flops / 1e9) }

    private static func words(_ schedule: NoiseScheduleConfiguration) -> String {
        """
        \(schedule.betaSchedule.rawValue) betas \(schedule.betaStart) to \(schedule.betaEnd)\
        \(schedule.zeroTerminalSNR ? ", zero terminal SNR" : ""), \
        \(schedule.predictionType.rawValue) prediction, \(schedule.timestepSpacing.rawValue) steps
        """
    }
}
