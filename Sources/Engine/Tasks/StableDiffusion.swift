import Foundation
import Synchronization

/// A Stable Diffusion pipeline on tiles: what a worker does for a latent model's jobs (`StableDiffusionUpscalePipeline`
/// and `StableDiffusionImg2ImgPipeline` of diffusers, the loop over the timesteps and the way from tile to canvas left
/// to the coordinator).
///
/// Shared by the lanes of a process; each lane has a workspace of its own. Of the three networks only the one that was
/// asked for last stays in memory: a job needs one after the other.
public final class StableDiffusion: TaskModel {
    public let folder: PipelineFolder
    public let precision: Precision
    let lowResolution: NoiseSchedule?
    /// The network that was asked for last.
    let latest = Mutex<(any Sendable)?>(nil)
    let kept = KeptAutoencoderTiles()

    struct TextEncoder: Sendable {
        var tokenizer: CLIPTokenizer
        var model: CLIPText
    }

    /// The networks themselves are loaded when they are first needed.
    /// - Throws: what is wrong with the folder, in words.
    public init(folder: PipelineFolder, precision: Precision) throws {
        self.folder = folder
        self.precision = precision
        lowResolution = try folder.lowResolutionSchedule.map { try NoiseSchedule($0) }
    }

    // MARK: Networks

    /// The network of this type: that in memory, or else loaded in place of it.
    private func network<Network: Sendable>(_ load: () throws -> Network) throws -> Network {
        try latest.withLock { latest in
            if let present = latest as? Network { return present }
            latest = nil
            kept.removeAll()
            let network = try load()
            latest = network
            return network
        }
    }

    func text() throws -> TextEncoder {
        try network {
            TextEncoder(
                tokenizer: try CLIPTokenizer(folder: folder.tokenizer),
                model: try CLIPText(folder: folder.textEncoder, precision: folder.precision(of: .text, job: precision)))
        }
    }

    func denoiser() throws -> UNet2DCondition {
        try network { try UNet2DCondition(folder: folder.unet, precision: folder.precision(of: .unet, job: precision)) }
    }

    func autoencoder() throws -> AutoencoderKL {
        try network { try AutoencoderKL(folder: folder.vae, precision: folder.precision(of: .vae, job: precision)) }
    }

    /// Lets go of the network in memory; the next task loads what it needs.
    public func release() {
        latest.withLock { latest in
            latest = nil
            kept.removeAll()
        }
    }

    // MARK: Copies

    static func cut(_ activation: Activation, _ rect: Rect) -> [Float] {
        let channels = activation.channels
        var result = [Float](repeating: 0, count: rect.area * channels)
        var target = result.mutableSpan
        RowCopy.copy(
            from: activation.span, start: (rect.y * activation.width + rect.x) * channels,
            stride: activation.width * channels, to: &target,
            start: 0, stride: rect.width * channels, rows: rect.height, count: rect.width * channels)
        return result
    }

    static func values(_ activation: Activation) -> [Float] {
        let span = activation.span
        return (0..<activation.count).map { span[$0] }
    }

    /// Puts images of the same size side by side in channels.
    static func stack(
        _ first: [Float], _ channels: Int, _ second: [Float] = [], _ others: Int = 0, into target: Activation
    ) {
        precondition(target.channels == channels + others)
        var span = target.mutableSpan
        for pixel in 0..<target.height * target.width {
            for c in 0..<channels { span[pixel * target.channels + c] = first[pixel * channels + c] }
            for c in 0..<others { span[pixel * target.channels + channels + c] = second[pixel * others + c] }
        }
    }
}

/// Why a piece of work cannot be done.
public enum StableDiffusionError: Error, Equatable, CustomStringConvertible {
    case mismatch(String)
    case notFinite(String)
    case tooLarge(height: Int, width: Int)

    public var description: String {
        switch self {
        case .mismatch(let what):
            "the task does not fit this model (\(what)): use the same version of tilefarm on every machine"
        case .tooLarge(let height, let width):
            "a window of \(width)x\(height) latents takes more memory than this machine has: choose smaller tiles"
        case .notFinite(let what): "\(what) is not finite: the model's weights are damaged or overflow"
        }
    }
}
