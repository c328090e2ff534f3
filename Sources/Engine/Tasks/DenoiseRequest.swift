/// One tile's denoising at one step, in canvas coordinates: everything but the bytes.
public struct DenoiseRequest: Sendable, Hashable {
    /// What the worker sends back.
    public enum Answer: Sendable, Hashable {
        /// x_{t-1} of `cell`: cell.height x cell.width x channels.
        case cell
        /// The model's guided output on the whole window; explicit overlap and the published FSTD blend these.
        case prediction
    }

    /// What the model sees beside the sample.
    public enum Conditioning: Sendable, Hashable {
        case none
        /// The bicubic enlargement of a low-resolution image; its part `source` is sent.
        case enlarged(Enlargement)
        /// The low-resolution pixels of the window (window.height x window.width x 3, in [0, 1]), noised to this level
        /// (StableDiffusionUpscalePipeline).
        case noised(level: Int)

        /// How many pixels of three channels are sent.
        func pixels(window: Rect) -> Int? {
            switch self {
            case .none: nil
            case .enlarged(let enlargement): enlargement.source.area
            case .noised: window.area
            }
        }
    }

    /// Classifier-free guidance by text: what its embeddings look like, and the guidance scale. With scale 1 the
    /// negative prompt's are not sent.
    public struct Text: Sendable, Hashable {
        public var tokens, width: Int
        public var scale: Float

        public init(tokens: Int, width: Int, scale: Float) {
            self.tokens = tokens
            self.width = width
            self.scale = scale
        }

        /// Whether there is a second prediction, without the prompt.
        public var isGuided: Bool { scale != 1 }
        /// Values of the embeddings of the prompt and, if guided, the negative prompt.
        public var valueCount: Int { (isGuided ? 2 : 1) * tokens * width }
    }

    /// The canvas, padded.
    public var canvasHeight, canvasWidth: Int
    public var channels: Int
    /// What the model reads; inside the canvas.
    public var window: Rect
    /// What is written; inside the window.
    public var cell: Rect
    public var timestep: Float
    public var coefficients: StepCoefficients
    /// The index of the sampler's loop.
    public var step: Int
    /// Of the Philox noise.
    public var seed: UInt64
    /// First step: x_T is made by the worker from the seed, no sample is sent.
    public var sampleIsNoise: Bool
    public var answer: Answer
    /// Of the sample, and of the cell that is answered; predictions are float32.
    public var element: CanvasElement
    public var conditioning: Conditioning
    /// nil for models that take no text.
    public var text: Text?

    public init(
        canvasHeight: Int, canvasWidth: Int, channels: Int, window: Rect, cell: Rect, timestep: Float,
        coefficients: StepCoefficients, step: Int, seed: UInt64, sampleIsNoise: Bool, answer: Answer,
        element: CanvasElement = .float32, conditioning: Conditioning, text: Text? = nil
    ) {
        self.canvasHeight = canvasHeight
        self.canvasWidth = canvasWidth
        self.channels = channels
        self.window = window
        self.cell = cell
        self.timestep = timestep
        self.coefficients = coefficients
        self.step = step
        self.seed = seed
        self.sampleIsNoise = sampleIsNoise
        self.answer = answer
        self.element = element
        self.conditioning = conditioning
        self.text = text
    }

    /// Of what the worker sends back.
    public var answerElement: CanvasElement { answer == .cell ? element : .float32 }
}
