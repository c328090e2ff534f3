import Foundation
import Synchronization

/// Times a denoiser alone, without a farm around it.
public enum DenoiserBenchmark {
    public struct Result: Codable, Sendable {
        /// Seconds from a tile's begin to its end, with all lanes busy: the median.
        public var secondsPerTile: Double
        /// Of all lanes together.
        public var tilesPerSecond: Double
        /// Of all lanes together, by the definition of the convolutions (`UNet2DConfiguration.flops`), whatever the algorithm.
        public var gflops: Double
        public var kernels: String
        /// The largest resident memory of this process so far.
        public var peakMemoryBytes: Int
        public var lanes: Int
        public var tile: Int

        enum CodingKeys: String, CodingKey {
            case secondsPerTile = "seconds_per_tile", tilesPerSecond = "tiles_per_second", gflops, kernels
            case peakMemoryBytes = "peak_memory_bytes", lanes, tile
        }
    }

    /// Runs the model on random input in `lanes` threads for about `seconds`.
    /// - Parameters:
    ///   - folder: a `UNet2DModel`; the `space_to_depth` of its `tilefarm.json`, if it has one, divides the tile
    ///   - tile: side of a tile in pixels
    /// - Throws: `ModelError`, `SafetensorsError`, `KernelError`.
    public static func run(folder: ModelFolder, tile: Int, lanes: Int, seconds: Double = 5) throws -> Result {
        let unet = try UNet2D(folder: folder.denoiser)
        let factor = folder.superResolution?.spaceToDepth ?? 1
        let multiple = factor * unet.configuration.alignment
        guard tile > 0, tile % multiple == 0 else { throw TilingError.unalignedTile(tile, alignment: multiple) }
        let side = tile / factor
        // One on this thread, so that what is wrong is thrown here.
        try unet.predict(sample(unet, side, seed: 0), timestep: 999, into: output(unet, side), workspace: Workspace())

        let times = Mutex<[[Double]]>([])
        let start = DispatchTime.now() + 0.2  // the lanes begin together, after one tile each
        let group = DispatchGroup()
        for lane in 0..<lanes {
            group.enter()
            let thread = Thread {
                defer { group.leave() }
                let workspace = Workspace(), sample = sample(unet, side, seed: lane), output = output(unet, side)
                var laneTimes: [Double] = []
                var isWarm = false
                var begin = DispatchTime.now()
                while !isWarm || begin < start + seconds {
                    // The sizes have been checked by the first prediction.
                    try? unet.predict(sample, timestep: 999, into: output, workspace: workspace)
                    let end = DispatchTime.now()
                    if isWarm { laneTimes.append(Double(end.uptimeNanoseconds - begin.uptimeNanoseconds) / 1e9) }
                    isWarm = end > start
                    begin = end
                }
                times.withLock { $0.append(laneTimes) }
            }
            thread.stackSize = 1 << 20
            thread.start()
        }
        group.wait()

        let all = times.withLock { $0 }
        let rate = all.reduce(0) { $0 + Double($1.count) / max($1.reduce(0, +), .leastNormalMagnitude) }
        let sorted = all.joined().sorted()
        return Result(
            secondsPerTile: sorted.isEmpty ? 0 : sorted[sorted.count / 2], tilesPerSecond: rate,
            gflops: rate * unet.configuration.flops(height: side, width: side) / 1e9, kernels: try KernelEnvironment.kernels(),
            peakMemoryBytes: ProcessUsage.peakMemoryBytes, lanes: lanes, tile: tile)
    }

    private static func sample(_ unet: UNet2D, _ side: Int, seed: Int) -> Activation {
        let sample = Activation(height: side, width: side, channels: unet.configuration.inChannels)
        var values = sample.mutableSpan
        var state = UInt32(truncatingIfNeeded: seed) &+ 1
        for i in values.indices {
            state = state &* 1_664_525 &+ 1_013_904_223
            values[i] = Float(state >> 8) / Float(1 << 23) - 1
        }
        return sample
    }

    private static func output(_ unet: UNet2D, _ side: Int) -> Activation {
        Activation(height: side, width: side, channels: unet.configuration.outChannels)
    }
}
