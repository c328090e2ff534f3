import Foundation
import Synchronization

/// A Stable Diffusion pipeline on tiles: what a worker does for a latent model's jobs (`StableDiffusionUpscalePipeline`
/// and `StableDiffusionImg2ImgPipeline` of diffusers, the loop over the timesteps and the way from tile to canvas left
/// to the coordinator).
///
/// Shared by the lanes of a process; each lane has a workspace of its own. Of the three networks only the one that was
/// asked for last stays in memory: a job needs one after the other.
public final class StableDiffusion: Sendable {
    public let folder: PipelineFolder
    public let precision: Precision
    private let lowResolution: NoiseSchedule?
    /// The network that was asked for last.
    private let latest = Mutex<(any Sendable)?>(nil)
    private let kept = KeptTiles()

    private struct TextEncoder: Sendable {
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

    private func text() throws -> TextEncoder {
        try network {
            TextEncoder(
                tokenizer: try CLIPTokenizer(folder: folder.tokenizer),
                model: try CLIPText(folder: folder.textEncoder, precision: folder.precision(of: .text, job: precision)))
        }
    }

    private func denoiser() throws -> UNet2DCondition {
        try network { try UNet2DCondition(folder: folder.unet, precision: folder.precision(of: .unet, job: precision)) }
    }

    private func autoencoder() throws -> AutoencoderKL {
        try network { try AutoencoderKL(folder: folder.vae, precision: folder.precision(of: .vae, job: precision)) }
    }

    // MARK: Text

    /// The embeddings of a prompt, tokens x width, and a line for the user where a part of it did not fit.
    /// - Throws: `StableDiffusionError`, or what is wrong with the text encoder's folder.
    public func encodeText(_ request: TextRequest, text prompt: String, workspace: Workspace) throws -> (
        embeddings: [Float], note: String?
    ) {
        let encoder = try text()
        let (ids, dropped) = try encoder.tokenizer.encode(prompt)
        workspace.prepare(height: -1, width: ids.count)
        let embeddings = try encoder.model.encode(ids: ids, workspace: workspace)
        guard embeddings.width == request.tokens, embeddings.channels == request.width else {
            throw StableDiffusionError.mismatch(
                "embeddings of \(embeddings.width) x \(embeddings.channels) where \(request.tokens) x \(request.width) are wanted"
            )
        }
        let note = dropped.map {
            "the prompt is longer than \(ids.count - 2) tokens and was cut; this part of it is not used: \($0.prefix(200))"
        }
        return (Self.values(embeddings), note)
    }

    // MARK: Denoising

    /// A tile's next sample, or its guided prediction.
    /// - Parameters:
    ///   - sample: x_t of the window; nil where it is noise
    ///   - pixels: the low-resolution pixels of the window in [0, 1]; nil for image to image
    ///   - text: the embeddings of the prompt, then those of the negative prompt
    /// - Throws: `StableDiffusionError`, `ModelError`, or what is wrong with the U-Net's folder.
    public func denoise(
        _ request: DenoiseRequest, sample: [Float]?, pixels: [Float]?, text: [Float], workspace: Workspace
    ) throws -> [Float] {
        guard folder.fits(.unet, height: request.window.height, width: request.window.width) else {
            throw StableDiffusionError.tooLarge(height: request.window.height, width: request.window.width)
        }
        let unet = try denoiser()
        let (window, channels) = (request.window, request.channels)
        guard let prompt = request.text, channels == unet.configuration.outChannels, text.count == prompt.valueCount,
            prompt.width == unet.configuration.crossAttentionDim, window.contains(request.cell),
            unet.configuration.inChannels == channels + (request.conditioning == .none ? 0 : 3),
            sample.map({ $0.count == window.area * channels }) ?? request.sampleIsNoise
        else { throw StableDiffusionError.mismatch("a tile of \(window.width) x \(window.height) x \(channels)") }
        workspace.prepare(height: window.height, width: window.width)

        var x = sample ?? [Float](repeating: 0, count: window.area * channels)
        if sample == nil {
            var span = x.mutableSpan
            Noise.fill(&span, window: window, channels: channels, seed: request.seed, field: NoiseField(.initial))
        }
        let input = workspace.activation(
            height: window.height, width: window.width, channels: unet.configuration.inChannels)
        var level: Int?
        switch request.conditioning {
        case .none: Self.stack(x, channels, into: input)
        case .noised(let noiseLevel):
            guard let pixels, pixels.count == window.area * 3 else {
                throw StableDiffusionError.mismatch("no low-resolution pixels")
            }
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
                input, timestep: request.timestep, encoderHiddenStates: states, classLabel: level, into: output,
                workspace: workspace)
            return output
        }
        let count = prompt.tokens * prompt.width
        let prediction = try predict(text[..<count])
        if prompt.isGuided {
            let positive = Self.values(prediction)
            let negative = try predict(text[count...])
            var guided = prediction.mutableSpan
            Guidance.classifierFree(
                positive: positive.span, negative: negative.span, scale: prompt.scale, into: &guided)
        }

        var answer: [Float]
        switch request.answer {
        case .prediction:
            answer = Self.values(prediction)
        case .cell:
            answer = [Float](repeating: 0, count: request.cell.area * channels)
            var span = answer.mutableSpan
            request.coefficients.step(
                sample: x.span, prediction: prediction.span, window: window, rect: request.cell, channels: channels,
                seed: request.seed,
                step: request.step, into: &span)
        }
        // A network that overflows must not spread: one bad value would reach the whole canvas.
        guard Elementwise.isFinite(answer.span) else {
            throw StableDiffusionError.notFinite("the denoiser's answer at timestep \(request.timestep)")
        }
        return answer
    }

    /// The low-resolution pixels as the network sees them: in [-1, 1], noised to `level`.
    private func noised(_ pixels: [Float], _ level: Int, _ request: DenoiseRequest) throws -> [Float] {
        guard let lowResolution, lowResolution.alphasCumprod.indices.contains(level), level <= folder.maximumNoiseLevel
        else {
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
        /// The cell: latents, features, or pixels in [0, 1].
        case values([Float])
    }

    /// - Parameters:
    ///   - values: the source's pixels in [0, 1], or the window's latents or features
    ///   - sums: of the canvas, for the norms that are given, as `CanvasStatistics.values` has them
    /// - Throws: `StableDiffusionError`, `ModelError`, `ResampleError`, or what is wrong with the autoencoder's folder.
    public func autoencode(_ request: AutoencodeRequest, values: [Float], sums: [Double]?, workspace: Workspace) throws
        -> Autoencoded
    {
        guard request.layers == .trunk || folder.fits(.vae, height: request.window.height, width: request.window.width)
        else {
            throw StableDiffusionError.tooLarge(height: request.window.height, width: request.window.width)
        }
        let vae = try autoencoder(), configuration = vae.configuration
        let (window, cell, factor) = (request.window, request.cell, configuration.factor)
        let encodes = request.direction == .encode
        let features = encodes ? configuration.encoderFeatureChannels : configuration.decoderFeatureChannels
        guard request.factor == factor, request.channels == configuration.latentChannels, window.contains(cell),
            request.groups == configuration.normNumGroups, request.layers == .all || request.featureChannels == features
        else { throw StableDiffusionError.mismatch("a tile of \(window.width) x \(window.height) latents") }
        // Norms are numbered through all layers of a half.
        let norms = configuration.norms(request.direction, request.layers)
        let wanted =
            norms.lowerBound + request.wantedNorms.lowerBound..<norms.lowerBound + request.wantedNorms.upperBound
        guard norms.count >= request.givenNorms, request.wantedNorms.isEmpty || norms.contains(wanted),
            (sums != nil) == (request.givenNorms > 0),
            request.layers != .trunk || request.givenNorms == 0 && request.wantedNorms.isEmpty
        else {
            throw StableDiffusionError.mismatch("norms \(wanted)")
        }
        let given = try sums.map {
            try CanvasStatistics(
                groups: request.groups, norms: norms.lowerBound..<norms.lowerBound + request.givenNorms, values: $0)
        }
        workspace.prepare(height: window.height * factor, width: -window.width * factor)
        let input =
            try request.takesPixels
            ? image(request, values, workspace: workspace)
            : self.input(
                window, request.layers == .all || request.layers == .trunk && !encodes ? request.channels : features,
                values, workspace)
        if !encodes, request.layers != .detail {
            var span = input.mutableSpan
            for i in span.indices { span[i] /= folder.scalingFactor }
        }
        let inside = Rect(y: cell.y - window.y, x: cell.x - window.x, height: cell.height, width: cell.width)
        if request.layers == .detail,
            request.wantedNorms == request.givenNorms..<request.givenNorms + 1 || request.givenNorms == norms.count
        {
            return try advance(
                request, vae, values: values, input: input, inside: inside, given: given, workspace: workspace)
        }
        if !request.wantedNorms.isEmpty {
            let statistics =
                switch (request.direction, request.layers) {
                case (.encode, _):
                    try vae.encoderStatistics(
                        input, cell: inside.scaled(by: factor), given: given, norms: wanted, workspace: workspace)
                case (.decode, .detail):
                    try vae.decoderStatistics(
                        features: input, cell: inside, given: given, norms: wanted, workspace: workspace)
                case (.decode, _):
                    try vae.decoderStatistics(input, cell: inside, given: given, norms: wanted, workspace: workspace)
                }
            return .statistics(statistics.values)
        }
        let answer: [Float] =
            switch (request.direction, request.layers) {
            case (.encode, .all): latents(try vae.encode(input, statistics: given, workspace: workspace), request)
            case (.encode, .trunk): latents(try vae.encode(features: input, workspace: workspace), request)
            case (.encode, .detail):
                Self.cut(try vae.encoderFeatures(input, statistics: given, workspace: workspace), inside)
            case (.decode, .all):
                pixels(try vae.decode(input, statistics: given, workspace: workspace), inside.scaled(by: factor))
            case (.decode, .trunk): Self.cut(try vae.decoderFeatures(input, workspace: workspace), inside)
            case (.decode, .detail):
                pixels(
                    try vae.decode(features: input, statistics: given, workspace: workspace), inside.scaled(by: factor))
            }
        return .values(try finite(answer))
    }

    /// The next norm's sums or the end of a tile whose norms come one after the other: from where it was left, if it
    /// was kept, else from the start, to the same bits.
    private func advance(
        _ request: AutoencodeRequest, _ vae: AutoencoderKL, values: [Float], input: Activation, inside: Rect,
        given: CanvasStatistics?,
        workspace: Workspace
    ) throws -> Autoencoded {
        let place = KeptTiles.Place(direction: request.direction, window: request.window, cell: request.cell)
        let pixels = inside.scaled(by: request.factor)
        let tile =
            try kept.take(place, input: values, given: given)
            ?? (request.direction == .encode
                ? .encoding(vae, image: input, cell: pixels, workspace: workspace)
                : .decoding(vae, features: input, cell: inside, workspace: workspace))
        if let rest = try given?.dropFirst(tile.statistics?.norms.count ?? 0) {
            try tile.advance(by: rest, workspace: workspace)
        }
        guard request.wantedNorms.isEmpty else {
            let sums = try tile.sums()
            tile.detach(from: workspace)
            // Not for a phase that is over: the layers would stay in memory beside the next network.
            latest.withLock { latest in
                if latest as? AutoencoderKL === vae { kept.keep(tile, at: place, input: values) }
            }
            return .statistics(sums.values)
        }
        let result = try tile.result()
        return .values(
            try finite(request.direction == .encode ? Self.cut(result, inside) : self.pixels(result, pixels)))
    }

    private func finite(_ answer: [Float]) throws -> [Float] {
        guard Elementwise.isFinite(answer.span) else {
            throw StableDiffusionError.notFinite("the autoencoder's answer")
        }
        return answer
    }

    private func input(_ window: Rect, _ channels: Int, _ values: [Float], _ workspace: Workspace) throws -> Activation
    {
        guard values.count == window.area * channels else {
            throw StableDiffusionError.mismatch("\(values.count) values of a window")
        }
        let input = workspace.activation(height: window.height, width: window.width, channels: channels)
        var span = input.mutableSpan
        for i in values.indices { span[i] = values[i] }
        return input
    }

    /// A part of an image, in [0, 1].
    private func pixels(_ image: Activation, _ rect: Rect) -> [Float] {
        Self.cut(image, rect).map { $0.isNaN ? .nan : min(max($0 / 2 + 0.5, 0), 1) }
    }

    /// The enlarged pixels of the window, in [-1, 1].
    private func image(_ request: AutoencodeRequest, _ pixels: [Float], workspace: Workspace) throws -> Activation {
        guard let enlargement = request.enlargement, pixels.count == enlargement.source.area * 3 else {
            throw StableDiffusionError.mismatch("\(pixels.count) values of pixels")
        }
        let window = request.window.scaled(by: request.factor)
        let image = workspace.activation(height: window.height, width: window.width, channels: 3)
        var span = image.mutableSpan
        try BicubicUpsampler(enlargement).upsample(
            crop: pixels.span, cropRect: enlargement.source, channels: 3, window: window, into: &span)
        // Bicubic overshoots; pictures do not.
        for i in span.indices { span[i] = 2 * min(max(span[i], 0), 1) - 1 }
        return image
    }

    /// A latent drawn from each position's distribution, scaled and noised.
    private func latents(_ moments: Activation, _ request: AutoencodeRequest) -> [Float] {
        let (window, cell, channels) = (request.window, request.cell, request.channels)
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

    private static func cut(_ activation: Activation, _ rect: Rect) -> [Float] {
        let channels = activation.channels
        var result = [Float](repeating: 0, count: rect.area * channels)
        var target = result.mutableSpan
        RowCopy.copy(
            from: activation.span, start: (rect.y * activation.width + rect.x) * channels,
            stride: activation.width * channels, to: &target,
            start: 0, stride: rect.width * channels, rows: rect.height, count: rect.width * channels)
        return result
    }

    private static func values(_ activation: Activation) -> [Float] {
        let span = activation.span
        return (0..<activation.count).map { span[$0] }
    }

    /// Puts images of the same size side by side in channels.
    private static func stack(
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
            "a window of \(width)x\(height) latents takes more memory than this machine has: choose a smaller --tile or --vae-tile"
        case .notFinite(let what): "\(what) is not finite: the model's weights are damaged or overflow"
        }
    }
}

extension AutoencoderKLConfiguration {
    /// The group norms of some layers, among those of the encoder or the decoder in the order of evaluation.
    public func norms(_ direction: AutoencodeRequest.Direction, _ layers: AutoencodeRequest.Layers) -> Range<Int> {
        switch (direction, layers) {
        case (.encode, .all): 0..<encoderNorms
        case (.encode, .detail): 0..<encoderFeatureNorms
        case (.encode, .trunk): encoderFeatureNorms..<encoderNorms
        case (.decode, .all): 0..<decoderNorms
        case (.decode, .trunk): 0..<decoderTrunkNorms
        case (.decode, .detail): decoderTrunkNorms..<decoderNorms
        }
    }
}

/// Tiles of the autoencoder that wait for the statistics of their next norm: to go on from there is cheaper than to
/// begin again. Nothing but time depends on what is kept.
private final class KeptTiles: Sendable {
    struct Place: Equatable {
        var direction: AutoencodeRequest.Direction
        var window, cell: Rect
    }

    /// A tile that no lane works on; the memory it holds is its own.
    private struct Kept: @unchecked Sendable {
        var place: Place
        var input: [Float]
        var tile: AutoencoderTile
        var byteCount: Int { tile.byteCount + input.count * 4 }
    }

    private let tiles = Mutex<[Kept]>([])
    /// Bytes that may be held: a part of the machine's memory, since networks and lanes have theirs.
    private let limit = PipelineFolder.keptTileBytes(machine: Int(clamping: ProcessInfo.processInfo.physicalMemory))

    /// The tile that was left at this place, if it has the same input and was normalised by the first of `given`.
    func take(_ place: Place, input: [Float], given: CanvasStatistics?) -> AutoencoderTile? {
        let found = tiles.withLock { tiles -> Kept? in
            guard let index = tiles.firstIndex(where: { $0.place == place }) else { return nil }
            return tiles.remove(at: index)
        }
        guard let found, found.input == input else { return nil }
        guard let past = found.tile.statistics else { return found.tile }
        guard let given, given.groups == past.groups, given.norms.lowerBound == past.norms.lowerBound,
            given.values.starts(with: past.values)
        else {
            return nil
        }
        return found.tile
    }

    func keep(_ tile: AutoencoderTile, at place: Place, input: [Float]) {
        tiles.withLock { tiles in
            tiles.removeAll { $0.place == place }
            let kept = Kept(place: place, input: input, tile: tile)
            // Passes come in the same order: where not all fit, the same ones should stay, so the newcomer goes.
            if tiles.reduce(kept.byteCount, { $0 + $1.byteCount }) <= limit { tiles.append(kept) }
        }
    }

    func removeAll() { tiles.withLock { $0 = [] } }
}
