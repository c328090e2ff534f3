import Foundation

/// One tile of a step of a latent model's U-Net, guided by text: its next sample, or its guided prediction
/// (classifier-free guidance, Ho and Salimans 2022, arXiv 2207.12598).
public struct DenoiseLatents: TaskOperation {
    public static let name = "denoise-latents"
    public static let blank = DenoiseLatents(tile: .blank, tokens: 1, width: 1, guidanceScale: 1)

    public var tile: TileStep
    /// The text encoder's positions and its hidden size.
    public var tokens, width: Int
    /// negative + scale (positive - negative); with 1 there is no second prediction, and no negative embeddings.
    public var guidanceScale: Float
    /// The low-resolution pixels of the window are seen beside the sample, noised to this level
    /// (StableDiffusionUpscalePipeline); nil for models that take none.
    public var noiseLevel: Int?

    public init(tile: TileStep, tokens: Int, width: Int, guidanceScale: Float, noiseLevel: Int? = nil) {
        self.tile = tile
        self.tokens = tokens
        self.width = width
        self.guidanceScale = guidanceScale
        self.noiseLevel = noiseLevel
    }

    public mutating func code(_ fields: inout FieldCoder) throws(FieldError) {
        try fields.group("tile") { fields throws(FieldError) in try tile.code(&fields) }
        try fields.integer(&tokens, "tokens", in: 1...TaskLimits.tokens)
        try fields.integer(&width, "width", in: 1...TaskLimits.embeddingWidth)
        try fields.number(&guidanceScale, "guidance_scale")
        try fields.optional(&noiseLevel, blank: 0) { level, fields throws(FieldError) in
            try fields.integer(&level, "noise_level", in: 0...TaskLimits.noiseLevel)
        }
    }

    public var isGuided: Bool { guidanceScale != 1 }

    /// Sample, embeddings, negative embeddings with guidance, pixels with a noise level.
    public var inputs: [Slot] {
        var slots = [tile.sampleSlot, Slot(.embeddings, [tokens, width])]
        if isGuided { slots.append(Slot(.negativeEmbeddings, [tokens, width])) }
        if noiseLevel != nil { slots.append(Slot(.picture, tile.window, channels: 3)) }
        return slots
    }

    public var outputs: [Slot] { [tile.answerSlot] }

    public func perform(on model: any TaskModel, _ tensors: any TaskTensors, workspace: Workspace) throws -> String? {
        guard let model = model as? StableDiffusion else { throw TaskError.otherModel(Self.name) }
        let answer = try model.denoise(self, tensors, workspace: workspace)
        try tensors.write(0) { write in write(answer.span, 0) }
        return nil
    }
}

extension StableDiffusion {
    /// Inputs are copied: they are small beside the work.
    fileprivate func denoise(
        _ request: DenoiseLatents, _ tensors: any TaskTensors, workspace: Workspace
    ) throws -> [Float] {
        let tile = request.tile, window = tile.window, channels = tile.channels
        guard folder.fits(.unet, height: window.height, width: window.width) else {
            throw StableDiffusionError.tooLarge(height: window.height, width: window.width)
        }
        // Blobs that have to be asked for are, before anything is computed.
        let embeddings = try tensors.tensor(1)
        let negative = request.isGuided ? try tensors.tensor(2) : nil
        let pixels = request.noiseLevel == nil ? nil : try tensors.tensor(request.inputs.count - 1).floats
        let sample = try tensors.sample(of: tile)
        let unet = try denoiser()
        guard channels == unet.configuration.outChannels, request.width == unet.configuration.crossAttentionDim,
            unet.configuration.inChannels == channels + (pixels == nil ? 0 : 3)
        else {
            throw StableDiffusionError.mismatch("a tile of \(window.width) x \(window.height) x \(channels)")
        }
        workspace.prepare(height: window.height, width: window.width)

        var x = [Float](repeating: 0, count: window.area * channels)
        do {
            var values = x.mutableSpan
            if let sample {
                sample(0, &values)
            } else {
                Noise.fill(&values, window: window, channels: channels, seed: tile.seed, field: tile.initialNoise)
            }
        }
        let input = workspace.activation(
            height: window.height, width: window.width, channels: unet.configuration.inChannels)
        if let pixels, let level = request.noiseLevel {
            Self.stack(x, channels, try noised(pixels, level, tile), 3, into: input)
        } else {
            Self.stack(x, channels, into: input)
        }

        func predict(_ text: any TaskTensor) throws -> Activation {
            let states = workspace.activation(height: 1, width: request.tokens, channels: request.width)
            var span = states.mutableSpan
            text.read(.float32, from: 0, into: &span)
            let output = workspace.activation(height: window.height, width: window.width, channels: channels)
            try unet.predict(
                input, timestep: tile.timestep, encoderHiddenStates: states, classLabel: request.noiseLevel,
                into: output, workspace: workspace)
            return output
        }
        let prediction = try predict(embeddings)
        if let negative {
            let positive = Self.values(prediction)
            let unguided = try predict(negative)
            var guided = prediction.mutableSpan
            Guidance.classifierFree(
                positive: positive.span, negative: unguided.span, scale: request.guidanceScale, into: &guided)
        }

        var answer: [Float]
        switch tile.answer {
        case .prediction:
            answer = Self.values(prediction)
        case .cell:
            answer = [Float](repeating: 0, count: tile.cell.area * channels)
            var span = answer.mutableSpan
            tile.coefficients.step(
                sample: x.span, prediction: prediction.span, window: window, rect: tile.cell, channels: channels,
                seed: tile.seed, stage: tile.stage, step: tile.step, into: &span)
        }
        // A network that overflows must not spread: one bad value would reach the whole canvas.
        guard Elementwise.isFinite(answer.span) else {
            throw StableDiffusionError.notFinite("the denoiser's answer at timestep \(tile.timestep)")
        }
        return answer
    }

    /// The low-resolution pixels as the network sees them: in [-1, 1], noised to `level`.
    private func noised(_ pixels: [Float], _ level: Int, _ tile: TileStep) throws -> [Float] {
        guard let lowResolution, lowResolution.alphasCumprod.indices.contains(level), level <= folder.maximumNoiseLevel
        else {
            throw StableDiffusionError.mismatch("a noise level of \(level)")
        }
        let alphaCumprod = lowResolution.alphasCumprod[level]
        let (signal, noise) = (Float(alphaCumprod.squareRoot()), Float((1 - alphaCumprod).squareRoot()))
        var normals = [Float](repeating: 0, count: pixels.count)
        var span = normals.mutableSpan
        Noise.fill(
            &span, window: tile.window, channels: 3, seed: tile.seed,
            field: NoiseField(.lowResolution, stage: UInt8(truncatingIfNeeded: tile.stage)))
        return zip(pixels, normals).map { signal * (2 * $0 - 1) + noise * $1 }
    }
}
