public import Engine

extension DenoiseRequest {
    /// Bytes of the sample frame: window.height x window.width x channels float32.
    public var sampleByteCount: Int { 4 * window.area * channels }

    /// Bytes of the conditioning frame: source.height x source.width x 3 float32.
    public var conditioningByteCount: Int { 4 * source.area * 3 }

    /// Values of the answer: those of the cell or of the whole window, times the channels.
    public var answerFloatCount: Int { (answer == .cell ? cell.area : window.area) * channels }

    /// Bytes of the answer's frame.
    public var answerByteCount: Int { 4 * answerFloatCount }

    /// Holds every value against `WireLimits` and the rectangles against each other; after it the counts above are safe to
    /// compute and to allocate by.
    func validate() throws(WireError) {
        let side = 1...WireLimits.imageSide
        _ = try bounded(canvasHeight, "denoise.canvas.height", in: side)
        _ = try bounded(canvasWidth, "denoise.canvas.width", in: side)
        _ = try bounded(inputHeight, "denoise.input.height", in: side)
        _ = try bounded(inputWidth, "denoise.input.width", in: side)
        _ = try bounded(outputHeight, "denoise.output.height", in: side)
        _ = try bounded(outputWidth, "denoise.output.width", in: side)
        _ = try bounded(channels, "denoise.channels", in: 1...WireLimits.channels)
        _ = try bounded(step, "denoise.step", in: 0...WireLimits.count)
        try window.validate("denoise.window", inside: Rect(y: 0, x: 0, height: canvasHeight, width: canvasWidth), "the canvas")
        try cell.validate("denoise.cell", inside: window, "the window")
        try source.validate("denoise.source", inside: Rect(y: 0, x: 0, height: inputHeight, width: inputWidth), "the input")
        _ = try bounded(sampleByteCount, "bytes of denoise.window", in: 1...WireLimits.tensorBytes)
        _ = try bounded(conditioningByteCount, "bytes of denoise.source", in: 1...WireLimits.tensorBytes)
        _ = try finite(timestep, "denoise.timestep")
        try coefficients.validate()
    }

    init(_ wire: Tilefarm_V1_Denoise) throws(WireError) {
        let answer: Answer
        switch wire.answer {
        case .cell: answer = .cell
        case .prediction: answer = .prediction
        case .unspecified, .UNRECOGNIZED:
            throw .outOfRange(field: "denoise.answer", value: "\(wire.answer.rawValue)", allowed: "1 (cell) or 2 (prediction)")
        }
        for (present, field) in [
            (wire.hasCanvas, "denoise.canvas"), (wire.hasWindow, "denoise.window"), (wire.hasCell, "denoise.cell"),
            (wire.hasCoefficients, "denoise.coefficients"), (wire.hasInput, "denoise.input"),
            (wire.hasOutput, "denoise.output"), (wire.hasSource, "denoise.source"),
        ] where !present { throw .missing(field: field) }
        // 32-bit values fit an Int; `validate` bounds them before any of them is used.
        self.init(
            canvasHeight: Int(wire.canvas.height), canvasWidth: Int(wire.canvas.width), channels: Int(wire.channels),
            window: Rect(wire.window), cell: Rect(wire.cell), timestep: wire.timestep,
            coefficients: StepCoefficients(wire.coefficients), step: Int(wire.step), seed: wire.seed,
            sampleIsNoise: wire.sampleIsNoise, answer: answer,
            inputHeight: Int(wire.input.height), inputWidth: Int(wire.input.width),
            outputHeight: Int(wire.output.height), outputWidth: Int(wire.output.width), source: Rect(wire.source))
        try validate()
    }

    func wire() throws(WireError) -> Tilefarm_V1_Denoise {
        try validate()
        // Every value was held against limits below 2^32.
        var wire = Tilefarm_V1_Denoise()
        wire.canvas = .init(height: canvasHeight, width: canvasWidth)
        wire.channels = UInt32(channels)
        wire.window = .init(window)
        wire.cell = .init(cell)
        wire.timestep = timestep
        wire.coefficients = coefficients.wire()
        wire.step = UInt32(step)
        wire.seed = seed
        wire.sampleIsNoise = sampleIsNoise
        wire.answer = answer == .cell ? .cell : .prediction
        wire.input = .init(height: inputHeight, width: inputWidth)
        wire.output = .init(height: outputHeight, width: outputWidth)
        wire.source = .init(source)
        return wire
    }
}

extension Rect {
    init(_ wire: Tilefarm_V1_Rect) {
        self.init(y: Int(wire.y), x: Int(wire.x), height: Int(wire.height), width: Int(wire.width))
    }

    /// Not empty, at most a window large, inside `outer`, which is valid already.
    func validate(_ field: String, inside outer: Rect, _ outerName: String) throws(WireError) {
        _ = try bounded(height, "\(field).height", in: 1...WireLimits.windowSide)
        _ = try bounded(width, "\(field).width", in: 1...WireLimits.windowSide)
        _ = try bounded(y, "\(field).y", in: 0...WireLimits.imageSide)
        _ = try bounded(x, "\(field).x", in: 0...WireLimits.imageSide)
        guard outer.contains(self) else {
            throw .outOfRange(field: field, value: "\(height)x\(width) at (\(y), \(x))", allowed: "inside \(outerName)")
        }
    }
}

extension Tilefarm_V1_Rect {
    /// A rectangle that was validated.
    init(_ rect: Rect) {
        self.init()
        y = UInt32(rect.y)
        x = UInt32(rect.x)
        height = UInt32(rect.height)
        width = UInt32(rect.width)
    }
}

extension Tilefarm_V1_Size {
    init(height: Int, width: Int) {
        self.init()
        self.height = UInt32(height)
        self.width = UInt32(width)
    }
}

extension StepCoefficients {
    init(_ wire: Tilefarm_V1_StepCoefficients) {
        self.init(
            originalFromSample: wire.originalFromSample, originalFromPrediction: wire.originalFromPrediction,
            clipRange: wire.hasClipRange ? wire.clipRange : nil, nextFromOriginal: wire.nextFromOriginal,
            nextFromSample: wire.nextFromSample, nextFromPrediction: wire.nextFromPrediction, noise: wire.noise)
    }

    func wire() -> Tilefarm_V1_StepCoefficients {
        var wire = Tilefarm_V1_StepCoefficients()
        wire.originalFromSample = originalFromSample
        wire.originalFromPrediction = originalFromPrediction
        if let clipRange { wire.clipRange = clipRange }
        wire.nextFromOriginal = nextFromOriginal
        wire.nextFromSample = nextFromSample
        wire.nextFromPrediction = nextFromPrediction
        wire.noise = noise
        return wire
    }

    func validate() throws(WireError) {
        _ = try finite(originalFromSample, "coefficients.original_from_sample")
        _ = try finite(originalFromPrediction, "coefficients.original_from_prediction")
        _ = try finite(nextFromOriginal, "coefficients.next_from_original")
        _ = try finite(nextFromSample, "coefficients.next_from_sample")
        _ = try finite(nextFromPrediction, "coefficients.next_from_prediction")
        _ = try finite(noise, "coefficients.noise")
        if let clipRange, !(clipRange.isFinite && clipRange >= 0) {
            throw .outOfRange(field: "coefficients.clip_range", value: "\(clipRange)", allowed: "0 and above")
        }
    }
}
