import Foundation

extension StableDiffusion {
    /// The result of a tile of the autoencoder's work.
    public enum Autoencoded: Sendable {
        /// The sums of the cell, as `CanvasStatistics.values` has them.
        case statistics([Double])
        /// The cell: latents, features, or pixels in [0, 1].
        case values([Float])
    }

    /// - Parameter tensors: what the layers begin with, then the canvas's sums for the norms that are given
    /// - Throws: `StableDiffusionError`, `ModelError`, `ResampleError`, `MissingInput`, or what is wrong with the
    ///   autoencoder's folder.
    func autoencode(
        _ request: Autoencode, _ tensors: any TaskTensors, workspace: Workspace
    ) throws -> Autoencoded {
        guard request.layers == .trunk || folder.fits(.vae, height: request.window.height, width: request.window.width)
        else {
            throw StableDiffusionError.tooLarge(height: request.window.height, width: request.window.width)
        }
        let vae = try autoencoder(), configuration = vae.configuration
        let (window, cell, factor) = (request.window, request.cell, configuration.factor)
        let features =
            request.direction == .encode ? configuration.encoderFeatureChannels : configuration.decoderFeatureChannels
        guard request.factor == factor, request.channels == configuration.latentChannels, window.contains(cell),
            request.groups == configuration.normNumGroups, request.layers == .all || request.featureChannels == features
        else { throw StableDiffusionError.mismatch("a tile of \(window.width) x \(window.height) latents") }
        // Norms are numbered through all layers of a half.
        let norms = configuration.norms(request.direction, request.layers)
        let wanted =
            norms.lowerBound + request.wantedNorms.lowerBound..<norms.lowerBound + request.wantedNorms.upperBound
        guard norms.count >= request.givenNorms, request.wantedNorms.isEmpty || norms.contains(wanted),
            request.layers != .trunk || request.givenNorms == 0 && request.wantedNorms.isEmpty
        else {
            throw StableDiffusionError.mismatch("norms \(wanted)")
        }
        let given =
            request.givenNorms == 0
            ? nil
            : try CanvasStatistics(
                groups: request.groups, norms: norms.lowerBound..<norms.lowerBound + request.givenNorms,
                values: tensors.tensor(1).doubles)
        workspace.prepare(height: window.height * factor, width: -window.width * factor)
        let inside = Rect(y: cell.y - window.y, x: cell.x - window.x, height: cell.height, width: cell.width)
        if request.layers == .detail,
            request.wantedNorms == request.givenNorms..<request.givenNorms + 1 || request.givenNorms == norms.count
        {
            return try advance(request, vae, tensors, inside: inside, given: given, workspace: workspace)
        }
        let input = try input(of: request, vae, tensors, workspace: workspace)
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
        _ request: Autoencode, _ vae: AutoencoderKL, _ tensors: any TaskTensors, inside: Rect,
        given: CanvasStatistics?, workspace: Workspace
    ) throws -> Autoencoded {
        // What comes as a blob comes again, under the same name.
        var place: KeptAutoencoderTiles.Place?
        if case .blob(let input) = tensors.source(0) { place = KeptAutoencoderTiles.Place(request, input: input) }
        let pixels = inside.scaled(by: request.factor)
        let tile =
            try place.flatMap { kept.take($0, given: given) }
            ?? {
                let input = try input(of: request, vae, tensors, workspace: workspace)
                return try request.direction == .encode
                    ? AutoencoderTile.encoding(vae, image: input, cell: pixels, workspace: workspace)
                    : AutoencoderTile.decoding(vae, features: input, cell: inside, workspace: workspace)
            }()
        if let rest = try given?.dropFirst(tile.statistics?.norms.count ?? 0) {
            try tile.advance(by: rest, workspace: workspace)
        }
        guard request.wantedNorms.isEmpty else {
            let sums = try tile.sums()
            tile.detach(from: workspace)
            // Not once another network is in use: the layers would stay in memory beside it.
            latest.withLock { latest in
                if let place, latest as? AutoencoderKL === vae { kept.keep(tile, at: place) }
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

    /// The first layer's input: the upsampled pixels of the window in [-1, 1], latents, or features.
    private func input(
        of request: Autoencode, _ vae: AutoencoderKL, _ tensors: any TaskTensors, workspace: Workspace
    ) throws -> Activation {
        let tensor = try tensors.tensor(0), window = request.window
        if let enlargement = request.enlargement {
            return try image(request, enlargement, tensor, workspace: workspace)
        }
        let channels = request.inputs[0].shape[2]
        let input = workspace.activation(height: window.height, width: window.width, channels: channels)
        var span = input.mutableSpan
        tensor.read(.float32, from: 0, into: &span)
        if request.direction == .decode, request.layers != .detail {
            for i in span.indices { span[i] /= folder.scalingFactor }
        }
        return input
    }

    /// A part of an image, in [0, 1].
    private func pixels(_ image: Activation, _ rect: Rect) -> [Float] {
        Self.cut(image, rect).map { $0.isNaN ? .nan : min(max($0 / 2 + 0.5, 0), 1) }
    }

    /// The upsampled pixels of the window, in [-1, 1].
    private func image(
        _ request: Autoencode, _ enlargement: Enlargement, _ pixels: any TaskTensor, workspace: Workspace
    ) throws -> Activation {
        let window = request.window.scaled(by: request.factor)
        let image = workspace.activation(height: window.height, width: window.width, channels: 3)
        var span = image.mutableSpan
        let source = pixels.floats
        try BicubicUpsampler(enlargement).upsample(
            crop: source.span, cropRect: enlargement.source, channels: 3, window: window, into: &span)
        // Bicubic overshoots; pictures do not.
        for i in span.indices { span[i] = 2 * min(max(span[i], 0), 1) - 1 }
        return image
    }

    /// A latent drawn from each position's distribution, scaled and noised.
    private func latents(_ moments: Activation, _ request: Autoencode) -> [Float] {
        let (window, cell, channels) = (request.window, request.cell, request.channels)
        let stage = UInt8(truncatingIfNeeded: request.stage)
        var posterior = [Float](repeating: 0, count: cell.area * channels), initial = posterior
        var span = posterior.mutableSpan
        Noise.fill(
            &span, window: cell, channels: channels, seed: request.seed, field: NoiseField(.posterior, stage: stage))
        span = initial.mutableSpan
        Noise.fill(
            &span, window: cell, channels: channels, seed: request.seed, field: NoiseField(.initial, stage: stage))
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
}

extension AutoencoderKLConfiguration {
    /// The group norms of some layers, among those of the encoder or the decoder in the order of evaluation.
    public func norms(_ direction: Autoencode.Direction, _ layers: Autoencode.Layers) -> Range<Int> {
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
