import Foundation
import Synchronization

/// Times a model alone, without a farm around it.
public enum DenoiserBenchmark {
    public typealias Part = PipelineFolder.Part

    public struct Result: Codable, Sendable {
        /// Seconds from a tile's begin to its end, with all lanes busy: the median.
        public var secondsPerTile: Double
        /// Tiles of all lanes together.
        public var tilesPerSecond: Double
        /// Operations of all lanes together, by the definition of the layers (`UNet2DConfiguration.flops` and its
        /// like), whatever the algorithm.
        public var gflops: Double
        public var kernels: String
        public var precision: String
        /// The largest resident memory of this process so far.
        public var peakMemoryBytes: Int
        public var lanes: Int
        public var tile: Int

        enum CodingKeys: String, CodingKey {
            case secondsPerTile = "seconds_per_tile", tilesPerSecond = "tiles_per_second", gflops, kernels, precision
            case peakMemoryBytes = "peak_memory_bytes", lanes, tile
        }
    }

    /// Runs a model on random input in `lanes` threads for about `seconds`.
    /// - Parameters:
    ///   - folder: a `UNet2DModel`, whose tiles the `space_to_depth` of its `tilefarm.json` divides, or a pipeline
    ///   - part: of a pipeline, to be timed; a `UNet2DModel` is a denoiser and nothing else
    ///   - tile: side of a tile: pixels, or latents where the model is latent
    /// - Throws: `ModelError`, `ModelFolderError`, `SafetensorsError`, `KernelError`, `TilingError`.
    public static func run(
        folder: ModelFolder, part: Part = .unet, tile: Int, precision: Precision = .float32, lanes: Int,
        seconds: Double = 5
    ) throws -> Result {
        let precision = try folder.pipeline?.precision(of: part, job: precision) ?? precision
        let subject = try Subject(folder: folder, part: part, tile: tile, precision: precision)
        // One on this thread, so that what is wrong is thrown here.
        _ = try subject.makeLane(0)()

        let times = Mutex<[[Double]]>([])
        let start = DispatchTime.now() + 0.2  // the lanes begin together, after one tile each
        let group = DispatchGroup()
        for lane in 0..<lanes {
            group.enter()
            let thread = Thread {
                defer { group.leave() }
                let run = subject.makeLane(lane)
                var laneTimes: [Double] = []
                var isWarm = false
                var begin = DispatchTime.now()
                while laneTimes.isEmpty || begin < start + seconds {
                    // The sizes have been checked by the first call.
                    _ = try? run()
                    let end = DispatchTime.now()
                    if isWarm { laneTimes.append(Double(end.uptimeNanoseconds - begin.uptimeNanoseconds) / 1e9) }
                    isWarm = end > start
                    begin = end
                }
                times.withLock { $0.append(laneTimes) }
            }
            thread.stackSize = 16 << 20
            thread.start()
        }
        group.wait()

        let all = times.withLock { $0 }
        let rate = all.reduce(0) { $0 + Double($1.count) / max($1.reduce(0, +), .leastNormalMagnitude) }
        let sorted = all.joined().sorted()
        return Result(
            secondsPerTile: sorted.isEmpty ? 0 : sorted[sorted.count / 2], tilesPerSecond: rate,
            gflops: rate * subject.flops / 1e9,
            kernels: try KernelEnvironment.kernels(), precision: precision.rawValue,
            peakMemoryBytes: ProcessUsage.peakMemoryBytes, lanes: lanes,
            tile: tile)
    }
}

/// The network that a benchmark runs.
private struct Subject: Sendable {
    /// Operations of one call.
    let flops: Double
    /// One call, on memory of its own.
    let makeLane: @Sendable (_ lane: Int) -> () throws -> Activation

    private static let timestep: Float = 500

    init(folder: ModelFolder, part: DenoiserBenchmark.Part, tile: Int, precision: Precision) throws {
        guard let pipeline = folder.pipeline else {
            guard part == .unet, precision == .float32 else {
                throw ModelError.unsupported(
                    file: folder.url.path, option: "the part or precision to time",
                    value: "\(part.rawValue) \(precision.rawValue)", supported: "several parts")
            }
            self = try Subject(pixels: folder, tile: tile)
            return
        }
        guard part == .text || pipeline.fits(part, height: tile, width: tile) else {
            throw StableDiffusionError.tooLarge(height: tile, width: tile)
        }
        switch part {
        case .unet: self = try Subject(unet: pipeline, tile: tile, precision: precision)
        case .vae:
            let vae = try AutoencoderKL(folder: pipeline.vae, precision: precision),
                channels = vae.configuration.latentChannels
            flops = vae.configuration.decoderFlops(height: tile, width: tile)
            makeLane = { lane in
                let workspace = Workspace(), latent = Self.random(tile, tile, channels, seed: lane)
                return { try vae.decode(latent, workspace: workspace) }
            }
        case .text:
            let text = try CLIPText(folder: pipeline.textEncoder, precision: precision)
            let tokens = pipeline.tokens
            let ids = (0..<tokens).map { $0 * 37 % 400 }
            flops = text.configuration.flops(tokens: tokens)
            makeLane = { _ in
                let workspace = Workspace()
                return { try text.encode(ids: ids, workspace: workspace) }
            }
        }
    }

    private init(pixels folder: ModelFolder, tile: Int) throws {
        let unet = try UNet2D(folder: folder.denoiser)
        let factor = folder.superResolution?.spaceToDepth ?? 1
        let side = try Self.side(tile, factor: factor, alignment: unet.configuration.alignment)
        flops = unet.configuration.flops(height: side, width: side)
        makeLane = { lane in
            let workspace = Workspace(), sample = Self.random(side, side, unet.configuration.inChannels, seed: lane)
            let output = Activation(height: side, width: side, channels: unet.configuration.outChannels)
            return {
                try unet.predict(sample, timestep: Self.timestep, into: output, workspace: workspace)
                return output
            }
        }
    }

    private init(unet pipeline: PipelineFolder, tile: Int, precision: Precision) throws {
        let unet = try UNet2DCondition(folder: pipeline.unet, precision: precision), configuration = unet.configuration
        let side = try Self.side(tile, factor: 1, alignment: configuration.alignment)
        flops = configuration.flops(height: side, width: side, tokens: pipeline.tokens)
        let (inputChannels, tokens, width) = (
            configuration.inChannels, pipeline.tokens, configuration.crossAttentionDim
        )
        makeLane = { lane in
            let workspace = Workspace(), sample = Self.random(side, side, inputChannels, seed: lane)
            let text = Self.random(1, tokens, width, seed: 1000)
            let output = Activation(height: side, width: side, channels: configuration.outChannels)
            return {
                try unet.predict(
                    sample, timestep: Self.timestep, encoderHiddenStates: text,
                    classLabel: configuration.classEmbeddings == nil ? nil : 0,
                    into: output, workspace: workspace)
                return output
            }
        }
    }

    private static func side(_ tile: Int, factor: Int, alignment: Int) throws -> Int {
        let multiple = factor * alignment
        guard tile > 0, tile % multiple == 0 else { throw TilingError.unalignedTile(tile, alignment: multiple) }
        return tile / factor
    }

    /// About normal, by the sum of four uniform numbers.
    private static func random(_ height: Int, _ width: Int, _ channels: Int, seed: Int) -> Activation {
        let result = Activation(height: height, width: width, channels: channels)
        var values = result.mutableSpan
        var state = UInt64(truncatingIfNeeded: seed) &+ 1
        for i in values.indices {
            var sum: Float = 0
            for _ in 0..<4 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                sum += Float(state >> 40) / Float(1 << 24) - 0.5
            }
            values[i] = sum * 1.7320508
        }
        return result
    }
}
