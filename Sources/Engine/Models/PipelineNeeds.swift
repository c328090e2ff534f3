import Foundation

/// Memory and arithmetic of a pipeline's networks, known before any weight is read.
extension PipelineFolder {
    /// The networks.
    public enum Part: String, Sendable, Hashable, CaseIterable {
        /// The denoiser: one prediction.
        case unet
        /// The autoencoder's decoder: one window.
        case vae
        /// The text encoder: one prompt.
        case text
    }

    public struct Need: Sendable, Hashable {
        public var parameters: Int
        /// Bytes of the weights, once for a process.
        public var weightBytes: Int
        /// Bytes of activations and scratch, for each lane.
        public var laneBytes: Int
        /// Floating-point operations of one call by the definition of the layers.
        public var flops: Double

        public func bytes(lanes: Int) -> Int { weightBytes + lanes * laneBytes }
    }

    /// Bytes that a process keeps autoencoder tiles in, at most, between the passes over a canvas.
    public static func keptTileBytes(machine: Int) -> Int { min(4 << 30, machine / 8) }

    public func folder(of part: Part) -> NetworkFolder {
        switch part {
        case .unet: unet
        case .vae: vae
        case .text: textEncoder
        }
    }

    /// The precision of a network in a job of precision `job`: that, unless the denoiser's weights have it in the
    /// folder and this network's are wider, as with a float16 U-Net beside a float32 autoencoder.
    /// - Throws: `SafetensorsError`.
    public func precision(of part: Part, job: Precision) throws -> Precision {
        let (denoiser, own) = (try unet.parameters().type, try folder(of: part).parameters().type)
        let isAsStored =
            job.rawValue == (denoiser == .float16 ? "float16" : denoiser == .bfloat16 ? "bfloat16" : "float32")
        return isAsStored && own == .float32 ? .float32 : job
    }

    /// - Parameters:
    ///   - height, width: of a window, in latents
    ///   - precision: of the job
    /// - Throws: `SafetensorsError`, `ModelError`.
    public func need(of part: Part, height: Int, width: Int, precision: Precision) throws -> Need {
        let parameters = try folder(of: part).parameters().count
        let flops =
            switch part {
            case .unet: unetConfiguration.flops(height: height, width: width, tokens: tokens)
            case .vae: vaeConfiguration.decoderFlops(height: height, width: width)
            case .text: try CLIPTextConfiguration(file: textEncoder.configuration).flops(tokens: tokens)
            }
        let weightBytes = parameters * (try self.precision(of: part, job: precision) == .float32 ? 4 : 2)
        // Packing pads to vectors; layers are expanded one at a time while they load.
        return Need(
            parameters: parameters, weightBytes: weightBytes + weightBytes / 16 + (96 << 20),
            laneBytes: laneBytes(of: part, height: height, width: width), flops: flops)
    }

    /// Bytes of activations and scratch for a window of `height` x `width` latents.
    func laneBytes(of part: Part, height: Int, width: Int) -> Int {
        let positions = Double(height) * Double(width)
        let floats: Double
        switch part {
        case .unet:
            // Skip connections, the feed-forward's eight times the width, and what the convolutions transform, at the
            // finest level.
            floats = 24 * positions * Double(unetConfiguration.blockOutChannels[0])
        case .vae:
            let widths = vaeConfiguration.blockOutChannels
            // The last level begins with the width of the one before.
            floats =
                positions
                * Double(
                    vaeConfiguration.factor * vaeConfiguration.factor
                        * (2 * widths[min(1, widths.count - 1)] + 2 * widths[0]))
        case .text:
            floats = 24 * Double(tokens * textWidth)
        }
        return Int(min(4 * floats, 0x1p60)) + (24 << 20)
    }

    /// Whether a window fits this machine's memory, weights aside: a peer may ask for more than any machine has.
    func fits(_ part: Part, height: Int, width: Int) -> Bool {
        laneBytes(of: part, height: height, width: width) < Int(clamping: ProcessInfo.processInfo.physicalMemory)
    }
}
