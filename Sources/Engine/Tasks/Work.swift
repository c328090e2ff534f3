/// One pure piece of work, everything but the bytes: what a coordinator asks a worker for.
public enum Work: Sendable, Hashable {
    /// A tile of a step through the denoiser.
    case denoise(DenoiseRequest)
    /// A prompt to the embeddings that guide the denoiser.
    case encodeText(TextRequest)
    /// A tile of an image to latents or back.
    case autoencode(AutoencodeRequest)
}

extension Work {
    /// Bytes of each frame that comes with the work.
    public var inputByteCounts: [Int] {
        switch self {
        case .denoise(let request):
            var counts = request.sampleIsNoise ? [] : [request.element.size * request.window.area * request.channels]
            if let pixels = request.conditioning.pixels(window: request.window) { counts.append(4 * pixels * 3) }
            if let text = request.text { counts.append(4 * text.valueCount) }
            return counts
        case .encodeText(let request):
            return [request.byteCount]
        case .autoencode(let request):
            let values =
                switch (request.direction, request.layers) {
                case (.encode, .all), (.encode, .detail): (request.enlargement?.source.area ?? 0) * 3
                case (.decode, .all), (.decode, .trunk): request.window.area * request.channels
                case (.encode, .trunk), (.decode, .detail): request.window.area * request.featureChannels
                }
            return [4 * values] + (request.givenNorms > 0 ? [8 * request.sumCount(request.givenNorms)] : [])
        }
    }

    /// What the answer's frame holds.
    public var answerElements: Checksum.Elements {
        switch self {
        case .denoise(let request) where request.answerElement == .float16: .halves
        case .autoencode(let request) where !request.wantedNorms.isEmpty: .doubles
        case .denoise, .encodeText, .autoencode: .floats
        }
    }

    /// Bytes of the answer's frame.
    public var answerByteCount: Int {
        switch self {
        case .denoise(let request):
            return request.answerElement.size * (request.answer == .cell ? request.cell.area : request.window.area)
                * request.channels
        case .encodeText(let request):
            return 4 * request.tokens * request.width
        case .autoencode(let request):
            if !request.wantedNorms.isEmpty { return 8 * request.sumCount(request.wantedNorms.count) }
            let channels =
                switch (request.direction, request.layers) {
                case (.encode, .all), (.encode, .trunk): request.channels
                case (.encode, .detail), (.decode, .trunk): request.featureChannels
                case (.decode, .all), (.decode, .detail): request.factor * request.factor * 3
                }
            return 4 * request.cell.area * channels
        }
    }
}

/// A part of a low-resolution image, and what it is a part of: enough to enlarge any window that it reaches.
public struct Enlargement: Sendable, Hashable {
    /// The low-resolution image.
    public var inputHeight, inputWidth: Int
    /// The enlarged image, before it is padded to the canvas.
    public var outputHeight, outputWidth: Int
    /// The part that is sent: height x width x 3, in [0, 1].
    public var source: Rect

    public init(inputHeight: Int, inputWidth: Int, outputHeight: Int, outputWidth: Int, source: Rect) {
        self.inputHeight = inputHeight
        self.inputWidth = inputWidth
        self.outputHeight = outputHeight
        self.outputWidth = outputWidth
        self.source = source
    }
}

/// A prompt to be encoded; the text itself is the frame.
public struct TextRequest: Sendable, Hashable {
    /// Of the text in UTF-8.
    public var byteCount: Int
    /// Shape of the answer: the text encoder's positions and its hidden size.
    public var tokens, width: Int

    public init(byteCount: Int, tokens: Int, width: Int) {
        self.byteCount = byteCount
        self.tokens = tokens
        self.width = width
    }
}

/// One tile of an image through one half of an autoencoder. Rectangles are in latents.
///
/// The group norms of a tile alone would have the tile's own statistics, and neighbouring tiles would differ in tone.
/// So tiles are asked for their cells' sums first, those of all cells are added up, and every tile is then normalised
/// by the same statistics. The attention would see the tile alone too; so, where the canvas is small enough, the layers
/// at the latents' resolution are done in one piece.
public struct AutoencodeRequest: Sendable, Hashable {
    public enum Direction: Sendable, Hashable {
        /// Pixels, enlarged first, to a noised latent: signal * scaling factor * latent + noise * z, where the latent
        /// is drawn from the encoder's distribution.
        case encode
        /// Latents to pixels in [0, 1].
        case decode
    }

    public enum Layers: Sendable, Hashable, CaseIterable {
        case all
        /// Those at the latents' resolution.
        case trunk
        /// The others; between them and the trunk stand features of `featureChannels`.
        case detail
    }

    public var direction: Direction
    public var layers: Layers
    public var canvasHeight, canvasWidth: Int
    public var window, cell: Rect
    /// Pixels per latent and axis.
    public var factor: Int
    /// Of a latent.
    public var channels: Int
    public var featureChannels: Int
    /// Of every group norm.
    public var groups: Int
    /// How many of the layers' first norms use the sums that come with the request, instead of the window's own.
    public var givenNorms: Int
    /// The norms, among those of the layers, whose sums over the cell are wanted; empty where the cell itself is.
    public var wantedNorms: Range<Int>
    /// What is encoded; nil for decoding, and for features.
    public var enlargement: Enlargement?
    /// Of the noises of encoding.
    public var seed: UInt64
    /// Factors of the latent and of the noise in what encoding answers: those of the sampler's first timestep.
    public var signal, noise: Float

    public init(
        direction: Direction, layers: Layers = .all, canvasHeight: Int, canvasWidth: Int, window: Rect, cell: Rect,
        factor: Int, channels: Int,
        featureChannels: Int, groups: Int, givenNorms: Int = 0, wantedNorms: Range<Int> = 0..<0,
        enlargement: Enlargement? = nil, seed: UInt64 = 0,
        signal: Float = 1, noise: Float = 0
    ) {
        self.direction = direction
        self.layers = layers
        self.canvasHeight = canvasHeight
        self.canvasWidth = canvasWidth
        self.window = window
        self.cell = cell
        self.factor = factor
        self.channels = channels
        self.featureChannels = featureChannels
        self.groups = groups
        self.givenNorms = givenNorms
        self.wantedNorms = wantedNorms
        self.enlargement = enlargement
        self.seed = seed
        self.signal = signal
        self.noise = noise
    }

    /// Values of the sums of so many norms: sum, sum of squares and count of each group.
    public func sumCount(_ norms: Int) -> Int { 3 * groups * norms }

    /// Whether pixels come in, and not features.
    var takesPixels: Bool { direction == .encode && layers != .trunk }
}
