internal import Engine

extension Work {
    /// Checks everything; afterwards the byte counts are safe to compute and to allocate by.
    init(_ wire: Tilefarm_V1_Task) throws(WireError) {
        switch wire.work {
        case .denoise(let denoise): self = .denoise(try DenoiseRequest(denoise))
        case .encodeText(let text): self = .encodeText(try TextRequest(text))
        case .autoencode(let autoencode): self = .autoencode(try AutoencodeRequest(autoencode))
        case nil: throw .unknownMessage
        }
    }

    /// - Throws: for values that the receiver would refuse.
    func wire() throws(WireError) -> Tilefarm_V1_Task.OneOf_Work {
        switch self {
        case .denoise(let request): .denoise(try request.wire())
        case .encodeText(let request): .encodeText(try request.wire())
        case .autoencode(let request): .autoencode(try request.wire())
        }
    }

    func expectInputs(_ frames: [Frame]) throws(WireError) {
        let counts = inputByteCounts
        guard frames.count == counts.count else {
            throw .partCount(message: "task", expected: counts.count + 1, found: frames.count + 1)
        }
        for (frame, count) in zip(frames, counts) { try expect(bytes: count, of: frame, "an input of the task") }
    }
}

extension DenoiseRequest {
    /// Holds every value against `WireLimits` and the rectangles against each other.
    func validate() throws(WireError) {
        try validatePlace("denoise", canvasHeight: canvasHeight, canvasWidth: canvasWidth, window: window, cell: cell)
        _ = try bounded(channels, "denoise.channels", in: 1...WireLimits.channels)
        _ = try bounded(step, "denoise.step", in: 0...WireLimits.count)
        _ = try bounded(4 * window.area * channels, "bytes of denoise.window", in: 1...WireLimits.tensorBytes)
        _ = try finite(timestep, "denoise.timestep")
        try coefficients.validate()
        switch conditioning {
        case .none: break
        case .enlarged(let enlargement): try enlargement.validate("denoise.enlarged")
        case .noised(let level): _ = try bounded(level, "denoise.noise_level", in: 0...WireLimits.noiseLevel)
        }
        if let text {
            _ = try bounded(text.tokens, "denoise.text.tokens", in: 1...WireLimits.tokens)
            _ = try bounded(text.width, "denoise.text.width", in: 1...WireLimits.embeddingWidth)
            _ = try finite(text.scale, "denoise.text.scale")
        }
    }

    init(_ wire: Tilefarm_V1_Denoise) throws(WireError) {
        let answer: Answer
        switch wire.answer {
        case .cell: answer = .cell
        case .prediction: answer = .prediction
        case .unspecified, .UNRECOGNIZED:
            throw .outOfRange(
                field: "denoise.answer", value: "\(wire.answer.rawValue)", allowed: "1 (cell) or 2 (prediction)")
        }
        let element: CanvasElement
        switch wire.element {
        case .float32: element = .float32
        case .float16: element = .float16
        case .UNRECOGNIZED:
            throw .outOfRange(
                field: "denoise.element", value: "\(wire.element.rawValue)", allowed: "0 (float32) or 1 (float16)")
        }
        for (present, field) in [
            (wire.hasCanvas, "denoise.canvas"), (wire.hasWindow, "denoise.window"), (wire.hasCell, "denoise.cell"),
            (wire.hasCoefficients, "denoise.coefficients"),
        ] where !present { throw .missing(field: field) }
        let conditioning: Conditioning
        switch wire.conditioning {
        case .enlarged(let enlargement): conditioning = .enlarged(try Enlargement(enlargement, "denoise.enlarged"))
        case .noiseLevel(let level): conditioning = .noised(level: Int(level))
        case nil: conditioning = .none
        }
        // 32-bit values fit an Int; `validate` bounds them before any of them is used.
        self.init(
            canvasHeight: Int(wire.canvas.height), canvasWidth: Int(wire.canvas.width), channels: Int(wire.channels),
            window: Rect(wire.window), cell: Rect(wire.cell), timestep: wire.timestep,
            coefficients: StepCoefficients(wire.coefficients), step: Int(wire.step), seed: wire.seed,
            sampleIsNoise: wire.sampleIsNoise, answer: answer, element: element, conditioning: conditioning,
            text: wire.hasText
                ? Text(tokens: Int(wire.text.tokens), width: Int(wire.text.width), scale: wire.text.scale) : nil)
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
        wire.element = element == .float32 ? .float32 : .float16
        switch conditioning {
        case .none: break
        case .enlarged(let enlargement): wire.enlarged = enlargement.wire()
        case .noised(let level): wire.noiseLevel = UInt32(level)
        }
        if let text {
            wire.text.tokens = UInt32(text.tokens)
            wire.text.width = UInt32(text.width)
            wire.text.scale = text.scale
        }
        return wire
    }
}

extension TextRequest {
    func validate() throws(WireError) {
        _ = try bounded(byteCount, "encode_text.bytes", in: 0...WireLimits.promptBytes)
        _ = try bounded(tokens, "encode_text.tokens", in: 1...WireLimits.tokens)
        _ = try bounded(width, "encode_text.width", in: 1...WireLimits.embeddingWidth)
    }

    init(_ wire: Tilefarm_V1_EncodeText) throws(WireError) {
        self.init(byteCount: Int(wire.bytes), tokens: Int(wire.tokens), width: Int(wire.width))
        try validate()
    }

    func wire() throws(WireError) -> Tilefarm_V1_EncodeText {
        try validate()
        var wire = Tilefarm_V1_EncodeText()
        wire.bytes = UInt32(byteCount)
        wire.tokens = UInt32(tokens)
        wire.width = UInt32(width)
        return wire
    }
}

extension AutoencodeRequest {
    func validate() throws(WireError) {
        try validatePlace(
            "autoencode", canvasHeight: canvasHeight, canvasWidth: canvasWidth, window: window, cell: cell)
        _ = try bounded(factor, "autoencode.factor", in: 1...WireLimits.autoencoderFactor)
        _ = try bounded(channels, "autoencode.channels", in: 1...WireLimits.channels)
        _ = try bounded(featureChannels, "autoencode.feature_channels", in: 1...WireLimits.featureChannels)
        _ = try bounded(groups, "autoencode.groups", in: 1...WireLimits.featureChannels)
        _ = try bounded(givenNorms, "autoencode.given_norms", in: 0...WireLimits.norms)
        _ = try bounded(wantedNorms.lowerBound, "autoencode.wanted_from", in: 0...WireLimits.norms)
        _ = try bounded(wantedNorms.upperBound, "autoencode.wanted_norms", in: 0...WireLimits.norms)
        // The largest of what goes in or out.
        let most =
            layers == .trunk
            ? max(channels, featureChannels) : max(channels, factor * factor * 3, layers == .all ? 1 : featureChannels)
        _ = try bounded(4 * window.area * most, "bytes of autoencode.window", in: 1...WireLimits.tensorBytes)
        _ = try finite(signal, "autoencode.signal")
        _ = try finite(noise, "autoencode.noise")
        guard (direction == .encode && layers != .trunk) == (enlargement != nil) else {
            throw .missing(field: "autoencode.source, which tasks that take pixels have and no others,")
        }
        try enlargement?.validate("autoencode.source")
    }

    init(_ wire: Tilefarm_V1_Autoencode) throws(WireError) {
        let direction: Direction
        switch wire.direction {
        case .encode: direction = .encode
        case .decode: direction = .decode
        case .unspecified, .UNRECOGNIZED:
            throw .outOfRange(
                field: "autoencode.direction", value: "\(wire.direction.rawValue)", allowed: "1 (encode) or 2 (decode)")
        }
        let layers: Layers
        switch wire.layers {
        case .all: layers = .all
        case .trunk: layers = .trunk
        case .detail: layers = .detail
        case .UNRECOGNIZED:
            throw .outOfRange(field: "autoencode.layers", value: "\(wire.layers.rawValue)", allowed: "0 to 2")
        }
        for (present, field) in [
            (wire.hasCanvas, "autoencode.canvas"), (wire.hasWindow, "autoencode.window"),
            (wire.hasCell, "autoencode.cell"),
        ] where !present { throw .missing(field: field) }
        self.init(
            direction: direction, layers: layers, canvasHeight: Int(wire.canvas.height),
            canvasWidth: Int(wire.canvas.width),
            window: Rect(wire.window), cell: Rect(wire.cell), factor: Int(wire.factor), channels: Int(wire.channels),
            featureChannels: Int(wire.featureChannels), groups: Int(wire.groups), givenNorms: Int(wire.givenNorms),
            wantedNorms: Int(wire.wantedFrom)..<Int(wire.wantedFrom) + Int(wire.wantedNorms),
            enlargement: wire.hasSource ? try Enlargement(wire.source, "autoencode.source") : nil, seed: wire.seed,
            signal: wire.signal,
            noise: wire.noise)
        try validate()
    }

    func wire() throws(WireError) -> Tilefarm_V1_Autoencode {
        try validate()
        var wire = Tilefarm_V1_Autoencode()
        wire.direction = direction == .encode ? .encode : .decode
        wire.layers =
            switch layers {
            case .all: .all
            case .trunk: .trunk
            case .detail: .detail
            }
        wire.canvas = .init(height: canvasHeight, width: canvasWidth)
        wire.window = .init(window)
        wire.cell = .init(cell)
        wire.factor = UInt32(factor)
        wire.channels = UInt32(channels)
        wire.featureChannels = UInt32(featureChannels)
        wire.groups = UInt32(groups)
        wire.givenNorms = UInt32(givenNorms)
        wire.wantedFrom = UInt32(wantedNorms.lowerBound)
        wire.wantedNorms = UInt32(wantedNorms.count)
        if let enlargement { wire.source = enlargement.wire() }
        wire.seed = seed
        wire.signal = signal
        wire.noise = noise
        return wire
    }
}

extension Enlargement {
    func validate(_ field: String) throws(WireError) {
        let side = 1...WireLimits.imageSide
        _ = try bounded(inputHeight, "\(field).input.height", in: side)
        _ = try bounded(inputWidth, "\(field).input.width", in: side)
        _ = try bounded(outputHeight, "\(field).output.height", in: side)
        _ = try bounded(outputWidth, "\(field).output.width", in: side)
        try source.validate(
            "\(field).source", inside: Rect(y: 0, x: 0, height: inputHeight, width: inputWidth), "the input")
        _ = try bounded(4 * source.area * 3, "bytes of \(field).source", in: 1...WireLimits.tensorBytes)
    }

    init(_ wire: Tilefarm_V1_Enlargement, _ field: String) throws(WireError) {
        for (present, name) in [(wire.hasInput, "input"), (wire.hasOutput, "output"), (wire.hasSource, "source")]
        where !present {
            throw .missing(field: "\(field).\(name)")
        }
        self.init(
            inputHeight: Int(wire.input.height), inputWidth: Int(wire.input.width),
            outputHeight: Int(wire.output.height),
            outputWidth: Int(wire.output.width), source: Rect(wire.source))
    }

    /// Of values that were validated.
    func wire() -> Tilefarm_V1_Enlargement {
        var wire = Tilefarm_V1_Enlargement()
        wire.input = .init(height: inputHeight, width: inputWidth)
        wire.output = .init(height: outputHeight, width: outputWidth)
        wire.source = .init(source)
        return wire
    }
}

/// A tile of a canvas: its window inside the canvas, its cell inside the window, all within `WireLimits`.
private func validatePlace(_ task: String, canvasHeight: Int, canvasWidth: Int, window: Rect, cell: Rect)
    throws(WireError)
{
    _ = try bounded(canvasHeight, "\(task).canvas.height", in: 1...WireLimits.imageSide)
    _ = try bounded(canvasWidth, "\(task).canvas.width", in: 1...WireLimits.imageSide)
    try window.validate(
        "\(task).window", inside: Rect(y: 0, x: 0, height: canvasHeight, width: canvasWidth), "the canvas")
    try cell.validate("\(task).cell", inside: window, "the window")
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
