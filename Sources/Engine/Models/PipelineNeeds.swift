/// What a pipeline's networks take, known before any weight is read.
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
        /// Of the weights, once for a process.
        public var weightBytes: Int
        /// Of activations and scratch, for each lane.
        public var laneBytes: Int
        /// Floating-point operations of one call by the definition of the layers.
        public var flops: Double

        public func bytes(lanes: Int) -> Int { weightBytes + lanes * laneBytes }
    }

    public func folder(of part: Part) -> NetworkFolder {
        switch part {
        case .unet: unet
        case .vae: vae
        case .text: textEncoder
        }
    }

    /// The precision of a network in a job of precision `job`: that, unless the denoiser's weights have it in the folder and this network's are wider,
    /// as with a float16 U-Net beside a float32 autoencoder.
    /// - Throws: `SafetensorsError`.
    public func precision(of part: Part, job: Precision) throws -> Precision {
        let (denoiser, own) = (try unet.parameters().type, try folder(of: part).parameters().type)
        let isAsStored = job.rawValue == (denoiser == .float16 ? "float16" : denoiser == .bfloat16 ? "bfloat16" : "float32")
        return isAsStored && own == .float32 ? .float32 : job
    }

    /// - Parameters:
    ///   - side: of a window, in latents
    ///   - precision: of the job
    /// - Throws: `SafetensorsError`, `ModelError`.
    public func need(of part: Part, side: Int, precision: Precision) throws -> Need {
        let parameters = try folder(of: part).parameters().count
        let positions = side * side
        let laneFloats: Int, flops: Double
        switch part {
        case .unet:
            let widths = unetConfiguration.blockOutChannels
            // Skip connections, the feed-forward's eight times the width, and what the convolutions transform, at the finest level.
            laneFloats = 24 * positions * (widths.first ?? 0)
            flops = unetConfiguration.flops(height: side, width: side, tokens: tokens)
        case .vae:
            let widths = vaeConfiguration.blockOutChannels, pixels = positions * vaeConfiguration.factor * vaeConfiguration.factor
            // The last level begins with the width of the one before.
            laneFloats = pixels * (2 * (widths.dropFirst().first ?? widths[0]) + 2 * widths[0])
            flops = vaeConfiguration.decoderFlops(height: side, width: side)
        case .text:
            laneFloats = 24 * tokens * textWidth
            flops = try CLIPTextConfiguration(file: textEncoder.configuration).flops(tokens: tokens)
        }
        let weightBytes = parameters * (try self.precision(of: part, job: precision) == .float32 ? 4 : 2)
        // Packing pads to vectors; layers are expanded one at a time while they load.
        return Need(parameters: parameters, weightBytes: weightBytes + weightBytes / 16 + (96 << 20), laneBytes: 4 * laneFloats + (24 << 20), flops: flops)
    }
}
