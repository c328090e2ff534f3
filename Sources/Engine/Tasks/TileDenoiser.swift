import Foundation

/// Denoises tiles with a super-resolution network: what a worker does all day.
///
/// The network (`UNet2DModel`) sees the noisy residual and the bicubic guess of the upsampled image, both in [-1, 1]
/// and folded from space to depth, and predicts for the residual. Shared by the lanes of a process; each lane has a
/// workspace of its own.
public final class TileDenoiser: TaskModel {
    private let network: UNet2D
    private let superResolution: SuperResolutionConfiguration

    /// - Parameter url: a diffusers folder with a tilefarm.json.
    /// - Throws: `ModelFolderError`, `ModelError`, `SafetensorsError`.
    public convenience init(folder url: URL) throws { try self.init(folder: ModelFolder(url: url)) }

    /// - Throws: `ModelError`, `SafetensorsError`, `TileDenoiserError`.
    public init(folder: ModelFolder) throws {
        guard let superResolution = folder.superResolution else {
            throw TileDenoiserError.notForUpscaling(folder: folder.url.path)
        }
        network = try UNet2D(folder: folder.denoiser)
        self.superResolution = superResolution
        let depth = superResolution.spaceToDepth * superResolution.spaceToDepth
        let configuration = network.configuration
        guard configuration.inChannels == 6 * depth, configuration.outChannels == 3 * depth else {
            throw TileDenoiserError.channels(
                folder: folder.url.path, have: [configuration.inChannels, configuration.outChannels],
                need: [6 * depth, 3 * depth])
        }
    }

    /// Windows are multiples of this, in canvas pixels.
    public var alignment: Int { network.configuration.alignment * superResolution.spaceToDepth }

    /// Reads x_t of a window: fills `values` with those from `start` on, of window.height x window.width x 3.
    public typealias Sample = (_ start: Int, _ values: inout MutableSpan<Float>) -> Void
    /// Takes values of an answer, which belong from `start` on.
    public typealias Answer = (_ values: Span<Float>, _ start: Int) -> Void

    /// Work at the canvas's resolution is done strip by strip: a strip stays in a core's cache, the window does not.
    ///
    /// - Parameters:
    ///   - sample: called twice for what lies in the cell; nil where it is noise.
    ///   - conditioning: the low-resolution pixels of the request's enlargement, height x width x 3 in [0, 1].
    ///   - answer: receives x_{t-1} of the cell, or the prediction of the window, part by part.
    /// - Throws: `TileDenoiserError`, `ResampleError`, `ModelError`.
    public func denoise(
        _ request: DenoisePixels, sample: Sample?, conditioning: Span<Float>, workspace: Workspace, answer: Answer
    ) throws {
        let (step, enlargement) = (request.tile, request.enlargement)
        let (window, cell, channels, factor) = (step.window, step.cell, 3, superResolution.spaceToDepth)
        guard step.channels == channels, window.height % alignment == 0, window.width % alignment == 0,
            window.area > 0, window.contains(cell)
        else { throw TileDenoiserError.window(window, alignment: alignment) }
        let upsampler = try BicubicUpsampler(enlargement)

        workspace.prepare(height: window.height, width: window.width)
        let noise =
            sample == nil ? workspace.activation(height: window.height, width: window.width, channels: channels) : nil
        if let noise {
            // Whole, because it is dear and needed twice.
            var values = noise.mutableSpan
            Noise.fill(&values, window: window, channels: channels, seed: step.seed, field: step.initialNoise)
        }
        let rows = stripRows(of: window)
        let strips = stride(from: window.y, to: window.maxY, by: rows).map {
            Rect(y: $0, x: window.x, height: rows, width: window.width)
        }
        // All of one size, whatever the cell: a workspace keeps each size that it was asked for.
        func activation() -> Activation { workspace.activation(height: rows, width: window.width, channels: channels) }
        let (x, pixels, next) = (activation(), activation(), activation())
        func withSample(of strip: Rect, _ body: (Span<Float>) -> Void) {
            let start = (strip.y - window.y) * window.width * channels
            if let noise { return body(noise.span.extracting(start..<start + x.count)) }
            do {
                var values = x.mutableSpan
                sample?(start, &values)
            }
            body(x.span)
        }

        let depth = channels * factor * factor
        let input = workspace.activation(
            height: window.height / factor, width: window.width / factor, channels: 2 * depth)
        for strip in strips {
            var guess = pixels.mutableSpan
            try upsampler.upsample(
                crop: conditioning, cropRect: enlargement.source, channels: channels, window: strip, into: &guess)
            withSample(of: strip) { x in
                // The network's values are in [-1, 1].
                SpaceToDepth.fold(
                    x, pixels.span, scale: 2, offset: -1, channels: channels, factor: factor, into: input,
                    at: (strip.y - window.y) / factor)
            }
        }
        let output = workspace.activation(height: input.height, width: input.width, channels: depth)
        try network.predict(input, timestep: step.timestep, into: output, workspace: workspace)

        // A network that overflows must not spread: one bad value would reach the whole canvas.
        func give(_ values: Span<Float>, _ start: Int) throws {
            guard Elementwise.isFinite(values) else { throw TileDenoiserError.notFinite(timestep: step.timestep) }
            answer(values, start)
        }
        for strip in strips {
            guard let part = step.answer == .cell ? strip.intersection(cell) : strip else { continue }
            SpaceToDepth.unfold(output, from: (strip.y - window.y) / factor, factor: factor, into: pixels)
            switch step.answer {
            case .prediction:
                try give(pixels.span, (strip.y - window.y) * window.width * channels)
            case .cell:
                withSample(of: strip) { x in
                    var values = next.mutableSpan
                    step.coefficients.step(
                        sample: x, prediction: pixels.span, window: strip, rect: part, channels: channels,
                        seed: step.seed, stage: step.stage, step: step.step,
                        into: &values)
                }
                try give(next.span.extracting(0..<part.area * channels), (part.y - cell.y) * cell.width * channels)
            }
        }
    }

    /// Rows of the strips that a window is done in, about 100 KB of 256 pixels: all have the same.
    private func stripRows(of window: Rect) -> Int {
        var rows = alignment
        while rows < 32, window.height % (2 * rows) == 0 { rows *= 2 }
        return rows
    }
}

/// Why a tile cannot be denoised.
public enum TileDenoiserError: Error, Equatable, CustomStringConvertible {
    case notForUpscaling(folder: String)
    case channels(folder: String, have: [Int], need: [Int])
    case window(Rect, alignment: Int)
    case notFinite(timestep: Float)

    public var description: String {
        switch self {
        case .notForUpscaling(let folder):
            "\(folder): no tilefarm.json says how this model enlarges images; use a super-resolution model"
        case .channels(let folder, let have, let need):
            """
            \(folder): the network takes \(have[0]) channels and gives \(have[1]), but its tilefarm.json needs \
            \(need[0]) and \(need[1]): correct space_to_depth
            """
        case .window(let window, let alignment):
            """
            a window of \(window.width)x\(window.height) does not fit the task or is not a multiple of \(alignment): \
            use the same version of tilefarm on every machine
            """
        case .notFinite(let timestep):
            "the network's answer at timestep \(timestep) is not finite: the model's weights are damaged or overflow"
        }
    }
}
