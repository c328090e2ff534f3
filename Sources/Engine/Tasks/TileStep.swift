/// The part that tasks of the sampler's loop have in common: the tile, the step, and the kind of answer. In the
/// canvas's coordinates.
public struct TileStep: Sendable, Hashable {
    /// The worker's answer.
    public enum Answer: Int, Sendable, Hashable, CaseIterable {
        /// x_{t-1} of the cell: cell.height x cell.width x channels.
        case cell = 1
        /// The model's guided output on the whole window, as float32: what blending methods add up.
        case prediction = 2
    }

    /// The canvas, padded.
    public var canvasHeight, canvasWidth: Int
    /// Channels of the canvas: 3, or the latent's.
    public var channels: Int
    /// The part that the model reads; inside the canvas.
    public var window: Rect
    /// The part that is written; inside the window.
    public var cell: Rect
    /// The model's t.
    public var timestep: Float
    public var coefficients: StepCoefficients
    /// The index of the sampler's loop.
    public var step: Int
    /// The number of the stage: each has noise of its own.
    public var stage: Int
    /// The key of the Philox noise.
    public var seed: UInt64
    public var answer: Answer
    /// How the sample is sent, and the cell that is answered; predictions are float32.
    public var element: CanvasElement

    public init(
        canvasHeight: Int, canvasWidth: Int, channels: Int, window: Rect, cell: Rect, timestep: Float,
        coefficients: StepCoefficients, step: Int, stage: Int = 0, seed: UInt64, answer: Answer,
        element: CanvasElement = .float32
    ) {
        self.canvasHeight = canvasHeight
        self.canvasWidth = canvasWidth
        self.channels = channels
        self.window = window
        self.cell = cell
        self.timestep = timestep
        self.coefficients = coefficients
        self.step = step
        self.stage = stage
        self.seed = seed
        self.answer = answer
        self.element = element
    }

    static let blank = TileStep(
        canvasHeight: 1, canvasWidth: 1, channels: 1, window: .blank, cell: .blank, timestep: 0, coefficients: .blank,
        step: 0, seed: 0, answer: .cell)

    /// x_t of the window.
    public var sampleSlot: Slot { Slot(.sample, window, channels: channels, .init(element)) }

    /// The worker's answer.
    public var answerSlot: Slot {
        switch answer {
        case .cell: Slot(.sample, cell, channels: channels, .init(element))
        case .prediction: Slot(.prediction, window, channels: channels)
        }
    }

    mutating func code(_ fields: inout FieldCoder) throws(FieldError) {
        try fields.place(&canvasHeight, &canvasWidth, &window, &cell)
        try fields.integer(&channels, "channels", in: 1...TaskLimits.channels)
        try fields.number(&timestep, "timestep")
        try fields.group("coefficients") { fields throws(FieldError) in try coefficients.code(&fields) }
        try fields.integer(&step, "step", in: 0...TaskLimits.steps)
        try fields.integer(&stage, "stage", in: 0...TaskLimits.stages)
        fields.seed(&seed)
        try fields.choice(&answer, "answer")
        try fields.element(&element)
    }

    /// Where a window's first sample lies in a canvas of nothing but noise.
    public var initialNoise: NoiseField { NoiseField(.initial, stage: UInt8(truncatingIfNeeded: stage)) }
}

extension FieldCoder {
    /// A tile of a canvas: its window inside the canvas, its cell inside the window. Three fields: canvas, window,
    /// cell.
    mutating func place(
        _ height: inout Int, _ width: inout Int, _ window: inout Rect, _ cell: inout Rect
    ) throws(FieldError) {
        try size(height: &height, width: &width, "canvas")
        try rect(&window, "window", inside: Rect(y: 0, x: 0, height: height, width: width))
        try rect(&cell, "cell", inside: window)
    }

    mutating func element(_ element: inout CanvasElement) throws(FieldError) {
        var number = element == .float32 ? 0 : 1
        try integer(&number, "element", in: 0...1)
        element = number == 0 ? .float32 : .float16
    }
}

extension Rect {
    static let blank = Rect(y: 0, x: 0, height: 1, width: 1)
}

extension StepCoefficients {
    static let blank = StepCoefficients(
        originalFromSample: 0, originalFromPrediction: 0, clipRange: nil, nextFromOriginal: 0, nextFromSample: 0,
        nextFromPrediction: 0, noise: 0)

    mutating func code(_ fields: inout FieldCoder) throws(FieldError) {
        try fields.number(&originalFromSample, "original_from_sample")
        try fields.number(&originalFromPrediction, "original_from_prediction")
        try fields.optional(&clipRange, blank: 0) { range, fields throws(FieldError) in
            try fields.number(&range, "clip_range")
            guard range >= 0 else {
                throw .outOfRange(field: "clip_range", value: "\(range)", allowed: "0 and above")
            }
        }
        try fields.number(&nextFromOriginal, "next_from_original")
        try fields.number(&nextFromSample, "next_from_sample")
        try fields.number(&nextFromPrediction, "next_from_prediction")
        try fields.number(&noise, "noise")
    }
}

extension Enlargement {
    static let blank = Enlargement(inputHeight: 1, inputWidth: 1, outputHeight: 1, outputWidth: 1, source: .blank)

    public var slot: Slot { Slot(.picture, source, channels: 3) }

    mutating func code(_ fields: inout FieldCoder) throws(FieldError) {
        try fields.size(height: &inputHeight, width: &inputWidth, "input")
        try fields.size(height: &outputHeight, width: &outputWidth, "output")
        try fields.rect(&source, "source", inside: Rect(y: 0, x: 0, height: inputHeight, width: inputWidth))
    }
}
