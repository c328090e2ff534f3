import Foundation

/// Denoises tiles with a super-resolution network: what a worker does all day.
///
/// The network (`UNet2DModel`) sees the noisy residual and the bicubic guess of the enlarged image, both in [-1, 1] and folded
/// from space to depth, and predicts for the residual. Shared by the lanes of a process; each lane has a workspace of its own.
public final class TileDenoiser: Sendable {
    private let network: UNet2D
    private let superResolution: SuperResolutionConfiguration

    /// - Parameter url: a diffusers folder with a tilefarm.json.
    /// - Throws: `ModelFolderError`, `ModelError`, `SafetensorsError`.
    public convenience init(folder url: URL) throws { try self.init(folder: ModelFolder(url: url)) }

    /// - Throws: `ModelError`, `SafetensorsError`, `TileDenoiserError`.
    public init(folder: ModelFolder) throws {
        guard let superResolution = folder.superResolution else { throw TileDenoiserError.notForUpscaling(folder: folder.url.path) }
        network = try UNet2D(folder: folder.denoiser)
        self.superResolution = superResolution
        let depth = superResolution.spaceToDepth * superResolution.spaceToDepth
        let configuration = network.configuration
        guard configuration.inChannels == 6 * depth, configuration.outChannels == 3 * depth else {
            throw TileDenoiserError.channels(
                folder: folder.url.path, have: [configuration.inChannels, configuration.outChannels], need: [6 * depth, 3 * depth])
        }
    }

    /// Windows are multiples of this, in canvas pixels.
    public var alignment: Int { network.configuration.alignment * superResolution.spaceToDepth }

    /// - Parameters:
    ///   - sample: x_t of the window, window.height x window.width x 3; nil when the request's `sampleIsNoise`.
    ///   - conditioning: the low-resolution pixels of the request's enlargement, height x width x 3 in [0, 1].
    ///   - answer: receives x_{t-1} of the cell, or the prediction of the window.
    /// - Throws: `TileDenoiserError`, `ResampleError`, `ModelError`.
    public func denoise(
        _ request: DenoiseRequest, sample: Span<Float>?, conditioning: Span<Float>, into answer: inout MutableSpan<Float>,
        workspace: Workspace
    ) throws {
        let window = request.window
        let channels = 3
        let answered = request.answer == .cell ? request.cell : window
        guard case .enlarged(let enlargement) = request.conditioning, request.text == nil else {
            throw TileDenoiserError.conditioning
        }
        guard request.channels == channels, window.height % alignment == 0, window.width % alignment == 0, window.area > 0,
            window.contains(request.cell), answer.count == answered.area * channels
        else { throw TileDenoiserError.window(window, alignment: alignment) }

        workspace.prepare(height: window.height, width: window.width)
        if let sample {
            guard sample.count == window.area * channels else { throw TileDenoiserError.window(window, alignment: alignment) }
            try advance(request, enlargement, x: sample, conditioning: conditioning, into: &answer, workspace: workspace)
        } else {
            let noise = workspace.activation(height: window.height, width: window.width, channels: channels)
            var values = noise.mutableSpan
            Noise.fill(&values, window: window, channels: channels, seed: request.seed, field: NoiseField(.initial))
            try advance(request, enlargement, x: noise.span, conditioning: conditioning, into: &answer, workspace: workspace)
        }
    }

    /// - Parameter x: x_t of the window. All sizes have been checked.
    private func advance(
        _ request: DenoiseRequest, _ enlargement: Enlargement, x: Span<Float>, conditioning: Span<Float>, into answer: inout MutableSpan<Float>,
        workspace: Workspace
    ) throws {
        let (window, channels) = (request.window, request.channels)
        let guess = workspace.activation(height: window.height, width: window.width, channels: channels)
        var guessed = guess.mutableSpan
        try BicubicUpsampler(enlargement).upsample(
            crop: conditioning, cropRect: enlargement.source, channels: channels, window: window, into: &guessed)

        let factor = superResolution.spaceToDepth
        let (height, width) = (window.height / factor, window.width / factor)
        let depth = channels * factor * factor
        let input = workspace.activation(height: height, width: width, channels: 2 * depth)
        // The network's values are in [-1, 1].
        SpaceToDepth.fold(x, guess.span, scale: 2, offset: -1, channels: channels, factor: factor, into: input)
        let output = workspace.activation(height: height, width: width, channels: depth)
        try network.predict(input, timestep: request.timestep, into: output, workspace: workspace)
        // The guess has served; its memory takes the prediction.
        SpaceToDepth.unfold(output, factor: factor, into: guess)

        switch request.answer {
        case .prediction:
            RowCopy.copy(from: guess.span, to: &answer, count: answer.count)
        case .cell:
            request.coefficients.step(
                sample: x, prediction: guess.span, window: window, rect: request.cell, channels: channels, seed: request.seed,
                step: request.step, into: &answer)
        }
        // A network that overflows must not spread: one bad value would reach the whole canvas.
        guard Elementwise.isFinite(answer.span) else { throw TileDenoiserError.notFinite(timestep: request.timestep) }
    }
}

/// Why a tile cannot be denoised.
public enum TileDenoiserError: Error, Equatable, CustomStringConvertible {
    case notForUpscaling(folder: String)
    case channels(folder: String, have: [Int], need: [Int])
    case conditioning
    case window(Rect, alignment: Int)
    case notFinite(timestep: Float)

    public var description: String {
        switch self {
        case .notForUpscaling(let folder):
            "\(folder): no tilefarm.json says how this model enlarges images; use a super-resolution model"
        case .channels(let folder, let have, let need):
            "\(folder): the network takes \(have[0]) channels and gives \(have[1]), but its tilefarm.json needs \(need[0]) and \(need[1]): correct space_to_depth"
        case .conditioning:
            "the task's conditioning is not the one that this model takes: use the same version of tilefarm on every machine"
        case .window(let window, let alignment):
            "a window of \(window.width)x\(window.height) does not fit the task or is not a multiple of \(alignment): use the same version of tilefarm on every machine"
        case .notFinite(let timestep):
            "the network's answer at timestep \(timestep) is not finite: the model's weights are damaged or overflow"
        }
    }
}
