import Foundation
import Synchronization

/// A Stable Diffusion pipeline on tiles: what a worker does for a latent model's jobs (`StableDiffusionUpscalePipeline` and
/// `StableDiffusionImg2ImgPipeline` of diffusers, the loop over the timesteps and the way from tile to canvas left to the coordinator).
///
/// Shared by the lanes of a process; each lane has a workspace of its own. Of the three networks only the one that was asked for last stays in
/// memory: a job needs one after the other.
public final class StableDiffusion: Sendable {
    public let folder: PipelineFolder
    public let precision: Precision
    private let lowResolution: NoiseSchedule?
    private let latest = Mutex<Part?>(nil)

    private enum Part {
        case text(CLIPTokenizer, CLIPText)
        case denoiser(UNet2DCondition)
        case autoencoder(AutoencoderKL)
    }

    /// The networks themselves are loaded when they are first needed.
    /// - Throws: what is wrong with the folder, in words.
    public init(folder: PipelineFolder, precision: Precision) throws {
        self.folder = folder
        self.precision = precision
        lowResolution = try folder.lowResolutionSchedule.map { try NoiseSchedule($0) }
    }

    // MARK: Networks

    private func text() throws -> (CLIPTokenizer, CLIPText) {
        try latest.withLock { latest in
            if case .text(let tokenizer, let model) = latest { return (tokenizer, model) }
            latest = nil
            let (tokenizer, model) = (try CLIPTokenizer(folder: folder.tokenizer), try CLIPText(folder: folder.textEncoder, precision: precision))
            latest = .text(tokenizer, model)
            return (tokenizer, model)
        }
    }

    private func denoiser() throws -> UNet2DCondition {
        try latest.withLock { latest in
            if case .denoiser(let model) = latest { return model }
            latest = nil
            let model = try UNet2DCondition(folder: folder.unet, precision: precision)
            latest = .denoiser(model)
            return model
        }
    }

    private func autoencoder() throws -> AutoencoderKL {
        try latest.withLock { latest in
            if case .autoencoder(let model) = latest { return model }
            latest = nil
            let model = try AutoencoderKL(folder: folder.vae, precision: precision)
            latest = .autoencoder(model)
            return model
        }
    }

    // MARK: Text

    /// The embeddings of a prompt, tokens x width, and a line for the user where a part of it did not fit.
    /// - Throws: `StableDiffusionError`, or what is wrong with the text encoder's folder.
    public func encodeText(_ request: TextRequest, text prompt: String, workspace: Workspace) throws -> (embeddings: [Float], note: String?) {
        let (tokenizer, model) = try text()
        let (ids, dropped) = try tokenizer.encode(prompt)
        workspace.prepare(height: -1, width: ids.count)
        let embeddings = try model.encode(ids: ids, workspace: workspace)
        guard embeddings.width == request.tokens, embeddings.channels == request.width else {
            throw StableDiffusionError.mismatch("embeddings of \(embeddings.width) x \(embeddings.channels) where \(request.tokens) x \(request.width) are wanted")
        }
        let note = dropped.map { "the prompt is longer than \(ids.count - 2) tokens and was cut; this part of it is not used: \($0.prefix(200))" }
        return (Self.values(embeddings), note)
    }

    // MARK: Denoising

    /// A tile's next sample, or its guided prediction.
    /// - Parameters:
    ///   - sample: x_t of the window; nil where it is noise
    ///   - pixels: the low-resolution pixels of the window in [0, 1]; nil for image to image
    ///   - text: the embeddings of the prompt, then those of the negative prompt
    /// - Throws: `StableDiffusionError`, `ModelError`, or what is wrong with the U-Net's folder.
    public func denoise(_ request: DenoiseRequest, sample: [Float]?, pixels: [Float]?, text: [Float], workspace: Workspace) throws -> [Float] {
        let unet = try denoiser()
        let (window, channels) = (request.window, request.channels)
        guard let prompt = request.text, channels == unet.configuration.outChannels, text.count == prompt.valueCount,
            prompt.width == unet.configuration.crossAttentionDim, window.contains(request.cell),
            sample.map({ $0.count == window.area * channels }) ?? request.sampleIsNoise
        else { throw StableDiffusionError.mismatch("a tile of \(window.width) x \(window.height) x \(channels)") }
        workspace.prepare(height: window.height, width: window.width)

        var x = sample ?? [Float](repeating: 0, count: window.area * channels)
        if sample == nil {
            var span = x.mutableSpan
            Noise.fill(&span, window: window, channels: channels, seed: request.seed, field: NoiseField(.initial))
        }
        let input = workspace.activation(height: window.height, width: window.width, channels: unet.configuration.inChannels)
        var level: Int?
        switch request.conditioning {
        case .none: Self.stack(x, channels, into: input)
        case .noised(let noiseLevel):
            guard let pixels, pixels.count == window.area * 3 else { throw StableDiffusionError.mismatch("no low-resolution pixels") }
            level = noiseLevel
            Self.stack(x, channels, try noised(pixels, noiseLevel, request), 3, into: input)
        case .enlarged:
            throw StableDiffusionError.mismatch("an enlarged picture beside the sample")
        }

        func predict(_ text: ArraySlice<Float>) throws -> Activation {
            let states = workspace.activation(height: 1, width: prompt.tokens, channels: prompt.width)
            var span = states.mutableSpan
            for (i, value) in text.enumerated() { span[i] = value }
            let output = workspace.activation(height: window.height, width: window.width, channels: channels)
            try unet.predict(
                input, timestep: request.timestep, encoderHiddenStates: states, classLabel: level, into: output, workspace: workspace)
            return output
        }
        let count = prompt.tokens * prompt.width
        let prediction = try predict(text[..<count])
        if prompt.isGuided {
            let positive = Self.values(prediction)
            let negative = try predict(text[count...])
            var guided = prediction.mutableSpan
            Guidance.classifierFree(positive: positive.span, negative: negative.span, scale: prompt.scale, into: &guided)
        }

        var answer: [Float]
        switch request.answer {
        case .prediction:
            answer = Self.values(prediction)
        case .cell:
            answer = [Float](repeating: 0, count: request.cell.area * channels)
            var span = answer.mutableSpan
            request.coefficients.step(
                sample: x.span, prediction: prediction.span, window: window, rect: request.cell, channels: channels, seed: request.seed,
                step: request.step, into: &span)
        }
        // A network that overflows must not spread: one bad value would reach the whole canvas.
        guard Elementwise.isFinite(answer.span) else { throw StableDiffusionError.notFinite("the denoiser's answer at timestep \(request.timestep)") }
        return answer
    }

    /// The low-resolution pixels as the network sees them: in [-1, 1], noised to `level`.
    private func noised(_ pixels: [Float], _ level: Int, _ request: DenoiseRequest) throws -> [Float] {
        guard let lowResolution, lowResolution.alphasCumprod.indices.contains(level), level <= folder.maximumNoiseLevel else {
            throw StableDiffusionError.mismatch("a noise level of \(level)")
        }
        let share = lowResolution.alphasCumprod[level]
        let (signal, noise) = (Float(share.squareRoot()), Float((1 - share).squareRoot()))
        var normals = [Float](repeating: 0, count: pixels.count)
        var span = normals.mutableSpan
        Noise.fill(&span, window: request.window, channels: 3, seed: request.seed, field: NoiseField(.lowResolution))
        return zip(pixels, normals).map { signal * (2 * $0 - 1) + noise * $1 }
    }

    // MARK: Autoencoder

    /// What a tile of the autoencoder's work comes to.
    public enum Autoencoded: Sendable {
        /// The sums of the cell, as `CanvasStatistics.values` has them.
        case statistics([Double])
        /// The cell: latents, or pixels in [0, 1].
        case values([Float])
    }

    /// - Parameters:
    ///   - values: the source's pixels in [0, 1] to encode, or the window's latents to decode
    ///   - statistics: of the canvas, as `CanvasStatistics.values` has them
    /// - Throws: `StableDiffusionError`, `ModelError`, `ResampleError`, or what is wrong with the autoencoder's folder.
    public func autoencode(_ request: AutoencodeRequest, values: [Float], statistics: [Double]?, workspace: Workspace) throws -> Autoencoded {
        let vae = try autoencoder(), configuration = vae.configuration
        let (window, cell, channels, factor) = (request.window, request.cell, configuration.latentChannels, configuration.factor)
        let norms = request.direction == .encode ? configuration.encoderNorms : configuration.decoderNorms
        guard request.factor == factor, request.channels == channels, window.contains(cell),
            request.statisticsCount == 3 * norms * configuration.normNumGroups
        else { throw StableDiffusionError.mismatch("a tile of \(window.width) x \(window.height) latents") }
        let given = try statistics.map { try CanvasStatistics(groups: configuration.normNumGroups, norms: 0..<norms, values: $0) }
        let inside = Rect(y: cell.y - window.y, x: cell.x - window.x, height: cell.height, width: cell.width)
        workspace.prepare(height: window.height * factor, width: -window.width * factor)

        var answer: [Float]
        switch request.direction {
        case .encode:
            let image = try image(request, values, workspace: workspace)
            if request.answer == .statistics {
                return .statistics(
                    try vae.encoderStatistics(image, cell: inside.scaled(by: factor), given: given, norms: 0..<norms, workspace: workspace).values)
            }
            let moments = try vae.encode(image, statistics: given, workspace: workspace)
            answer = latents(moments, channels, request)
        case .decode:
            guard values.count == window.area * channels else { throw StableDiffusionError.mismatch("\(values.count) values of latents") }
            let latent = workspace.activation(height: window.height, width: window.width, channels: channels)
            var span = latent.mutableSpan
            for i in values.indices { span[i] = values[i] / folder.scalingFactor }
            if request.answer == .statistics {
                return .statistics(try vae.decoderStatistics(latent, cell: inside, given: given, norms: 0..<norms, workspace: workspace).values)
            }
            let image = try vae.decode(latent, statistics: given, workspace: workspace)
            let pixels = inside.scaled(by: factor)
            answer = [Float](repeating: 0, count: pixels.area * 3)
            var target = answer.mutableSpan
            RowCopy.copy(
                from: image.span, start: (pixels.y * image.width + pixels.x) * 3, stride: image.width * 3, to: &target, start: 0,
                stride: pixels.width * 3, rows: pixels.height, count: pixels.width * 3)
            for i in answer.indices { answer[i] = answer[i].isNaN ? .nan : min(max(answer[i] / 2 + 0.5, 0), 1) }
        }
        guard Elementwise.isFinite(answer.span) else { throw StableDiffusionError.notFinite("the autoencoder's answer") }
        return .values(answer)
    }

    /// The enlarged pixels of the window, in [-1, 1].
    private func image(_ request: AutoencodeRequest, _ pixels: [Float], workspace: Workspace) throws -> Activation {
        guard let enlargement = request.enlargement, pixels.count == enlargement.source.area * 3 else {
            throw StableDiffusionError.mismatch("\(pixels.count) values of pixels")
        }
        let window = request.window.scaled(by: request.factor)
        let image = workspace.activation(height: window.height, width: window.width, channels: 3)
        var span = image.mutableSpan
        try BicubicUpsampler(enlargement).upsample(crop: pixels.span, cropRect: enlargement.source, channels: 3, window: window, into: &span)
        // Bicubic overshoots; pictures do not.
        for i in span.indices { span[i] = 2 * min(max(span[i], 0), 1) - 1 }
        return image
    }

    /// A latent drawn from each position's distribution, scaled and noised.
    private func latents(_ moments: Activation, _ channels: Int, _ request: AutoencodeRequest) -> [Float] {
        let (window, cell) = (request.window, request.cell)
        var posterior = [Float](repeating: 0, count: cell.area * channels), initial = posterior
        var span = posterior.mutableSpan
        Noise.fill(&span, window: cell, channels: channels, seed: request.seed, field: NoiseField(.posterior))
        span = initial.mutableSpan
        Noise.fill(&span, window: cell, channels: channels, seed: request.seed, field: NoiseField(.initial))
        let values = moments.span
        var result = [Float](repeating: 0, count: cell.area * channels)
        for y in 0..<cell.height {
            for x in 0..<cell.width {
                let from = ((cell.y - window.y + y) * window.width + cell.x - window.x + x) * 2 * channels
                for c in 0..<channels {
                    let to = (y * cell.width + x) * channels + c
                    // As diffusers' DiagonalGaussianDistribution.
                    let deviation = Float(exp(0.5 * Double(min(max(values[from + channels + c], -30), 20))))
                    let latent = folder.scalingFactor * (values[from + c] + deviation * posterior[to])
                    result[to] = request.signal * latent + request.noise * initial[to]
                }
            }
        }
        return result
    }

    // MARK: Copies

    private static func values(_ activation: Activation) -> [Float] {
        let span = activation.span
        return (0..<activation.count).map { span[$0] }
    }

    /// Puts images of the same size side by side in channels.
    private static func stack(_ first: [Float], _ channels: Int, _ second: [Float] = [], _ others: Int = 0, into target: Activation) {
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

    public var description: String {
        switch self {
        case .mismatch(let what): "the task does not fit this model (\(what)): use the same version of tilefarm on every machine"
        case .notFinite(let what): "\(what) is not finite: the model's weights are damaged or overflow"
        }
    }
}
