/// One tile's denoising at one step, in canvas coordinates: everything but the bytes.
public struct DenoiseRequest: Sendable, Hashable {
    /// What the worker sends back.
    public enum Answer: Sendable, Hashable {
        /// x_{t-1} of `cell`: cell.height x cell.width x channels.
        case cell
        /// The model's raw output on the whole window; explicit overlap and the published FSTD blend these.
        case prediction
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
    /// The low-resolution image.
    public var inputHeight, inputWidth: Int
    /// The enlarged image, before it is padded to the canvas.
    public var outputHeight, outputWidth: Int
    /// The part of the low-resolution image that is sent as conditioning: height x width x 3, float32.
    public var source: Rect

    public init(
        canvasHeight: Int, canvasWidth: Int, channels: Int, window: Rect, cell: Rect, timestep: Float,
        coefficients: StepCoefficients, step: Int, seed: UInt64, sampleIsNoise: Bool, answer: Answer,
        inputHeight: Int, inputWidth: Int, outputHeight: Int, outputWidth: Int, source: Rect
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
        self.inputHeight = inputHeight
        self.inputWidth = inputWidth
        self.outputHeight = outputHeight
        self.outputWidth = outputWidth
        self.source = source
    }
}
