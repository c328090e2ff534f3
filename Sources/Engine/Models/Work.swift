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
            var counts = request.sampleIsNoise ? [] : [4 * request.window.area * request.channels]
            if let pixels = request.conditioning.pixels(window: request.window) { counts.append(4 * pixels * 3) }
            if let text = request.text { counts.append(4 * text.valueCount) }
            return counts
        case .encodeText(let request):
            return [request.byteCount]
        case .autoencode(let request):
            let values = request.enlargement.map { $0.source.area * 3 } ?? request.window.area * request.channels
            return [4 * values] + (request.usesStatistics ? [8 * request.statisticsCount] : [])
        }
    }

    /// Bytes of the answer's frame.
    public var answerByteCount: Int {
        switch self {
        case .denoise(let request):
            return 4 * (request.answer == .cell ? request.cell.area : request.window.area) * request.channels
        case .encodeText(let request):
            return 4 * request.tokens * request.width
        case .autoencode(let request):
            if request.answer == .statistics { return 8 * request.statisticsCount }
            return 4 * request.cell.area * (request.direction == .encode ? request.channels : request.factor * request.factor * 3)
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
/// The group norms of a tile alone would have the tile's own statistics, and neighbouring tiles would differ in tone. So tiles are asked for
/// their sums first (`Answer.statistics`), the sums of all cells are added up, and every tile is then normalised by the same statistics.
public struct AutoencodeRequest: Sendable, Hashable {
    public enum Direction: Sendable, Hashable {
        /// Pixels, enlarged first, to a noised latent: signal * scaling factor * latent + noise * z, where the latent is drawn from the encoder's distribution.
        case encode
        /// Latents to pixels in [0, 1].
        case decode
    }

    public enum Answer: Sendable, Hashable {
        /// The sums of the group norms over the cell, `statisticsCount` float64.
        case statistics
        /// The cell's latents or pixels.
        case values
    }

    public var direction: Direction
    public var canvasHeight, canvasWidth: Int
    public var window, cell: Rect
    /// Pixels per latent and axis.
    public var factor: Int
    /// Of a latent.
    public var channels: Int
    /// How many sums the group norms of this half have; fixed by the model.
    public var statisticsCount: Int
    /// Whether sums come with the request, to be used instead of the window's own.
    public var usesStatistics: Bool
    public var answer: Answer
    /// What is encoded; nil for decoding.
    public var enlargement: Enlargement?
    /// Of the noises of encoding.
    public var seed: UInt64
    /// Factors of the latent and of the noise in what encoding answers: those of the sampler's first timestep.
    public var signal, noise: Float

    public init(
        direction: Direction, canvasHeight: Int, canvasWidth: Int, window: Rect, cell: Rect, factor: Int, channels: Int, statisticsCount: Int,
        usesStatistics: Bool, answer: Answer, enlargement: Enlargement? = nil, seed: UInt64 = 0, signal: Float = 1, noise: Float = 0
    ) {
        self.direction = direction
        self.canvasHeight = canvasHeight
        self.canvasWidth = canvasWidth
        self.window = window
        self.cell = cell
        self.factor = factor
        self.channels = channels
        self.statisticsCount = statisticsCount
        self.usesStatistics = usesStatistics
        self.answer = answer
        self.enlargement = enlargement
        self.seed = seed
        self.signal = signal
        self.noise = noise
    }
}
