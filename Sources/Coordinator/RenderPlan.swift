import Engine
import Protocol

/// Everything that is decided before the first tile is sent: sizes, tiling, timesteps, and what each task says.
package struct RenderPlan: Sendable {
    /// Found best for the default model: `docs/default-model.md` and `docs/methods.md` have the measurements.
    package static let defaultSteps = 4
    package static let defaultTile = 256
    package static let defaultHalo = 16
    /// Smaller canvases are padded to this: GroupNorm needs some pixels to have statistics of.
    private static let leastCanvas = 64

    package let inputHeight, inputWidth: Int
    package let outputHeight, outputWidth: Int
    package let channels = 3
    package let superResolution: SuperResolutionConfiguration
    package let tiling: Tiling
    package let sampler: StepSampler
    package let seed: UInt64
    private let upsampler: BicubicUpsampler

    package var steps: Int { sampler.count }

    package static func roundUp(_ value: Int, _ multiple: Int) -> Int { (value + multiple - 1) / multiple * multiple }

    /// Windows stand at multiples of this: the network's own stride in canvas pixels, and the phase of the conditioning
    /// where the scale has a short one.
    package static func alignment(of folder: ModelFolder, scale: Double) throws -> Int {
        guard let superResolution = folder.superResolution else { throw CommandError.notForUpscaling(model: folder.url.path) }
        let stride = try UNet2DConfiguration(file: folder.network.appending(path: "config.json")).alignment * superResolution.spaceToDepth
        guard scale == scale.rounded(), scale <= 8 else { return stride }
        var multiple = stride
        while multiple % Int(scale) != 0 { multiple += stride }
        return multiple
    }

    package init(
        folder: ModelFolder, inputHeight: Int, inputWidth: Int, scale: Double, steps: Int, sampler kind: SamplerKind, tile: Int,
        overlap: Tiling.Overlap, offset: Tiling.Offset, offsetRange: Int?, seed: UInt64
    ) throws {
        guard let superResolution = folder.superResolution else { throw CommandError.notForUpscaling(model: folder.url.path) }
        let (height, width) = (Double(inputHeight) * scale, Double(inputWidth) * scale)
        guard height <= Double(WireLimits.imageSide), width <= Double(WireLimits.imageSide) else {
            throw CommandError.outputTooLarge(width: Int(width), height: Int(height))
        }
        self.inputHeight = inputHeight
        self.inputWidth = inputWidth
        outputHeight = max(Int(height.rounded()), inputHeight)
        outputWidth = max(Int(width.rounded()), inputWidth)
        self.superResolution = superResolution
        self.seed = seed
        upsampler = try BicubicUpsampler(
            inputHeight: inputHeight, inputWidth: inputWidth, outputHeight: outputHeight, outputWidth: outputWidth)
        sampler = try StepSampler(schedule: folder.schedule, kind: kind, steps: steps)
        let alignment = try Self.alignment(of: folder, scale: scale)
        let least = min(Self.leastCanvas, tile)
        tiling = try Tiling(
            canvasHeight: Self.roundUp(max(outputHeight, least), alignment),
            canvasWidth: Self.roundUp(max(outputWidth, least), alignment),
            tile: tile, overlap: overlap, offset: offset, offsetRange: offsetRange, alignment: alignment, seed: seed)
    }

    /// The task of a tile, everything but the bytes.
    package func request(step: Int, tile: Int, grid: TileGrid) throws -> DenoiseRequest {
        let window = grid.window(tile)
        return DenoiseRequest(
            canvasHeight: tiling.canvasHeight, canvasWidth: tiling.canvasWidth, channels: channels, window: window,
            cell: grid.cell(tile), timestep: Float(sampler[step].timestep), coefficients: sampler[step].coefficients, step: step,
            seed: seed, sampleIsNoise: step == 0, answer: tiling.writesDisjointCells ? .cell : .prediction,
            inputHeight: inputHeight, inputWidth: inputWidth, outputHeight: outputHeight, outputWidth: outputWidth,
            source: try upsampler.sourceRect(for: window))
    }

    /// What the coordinator holds as a rule: the canvas (three of them where predictions are blended), the input, and the
    /// windows and answers of the tiles that are out. A straggler can make answers wait, a step's at the most.
    package func coordinatorBytes(lanes: Int) -> Int {
        let canvas = tiling.canvasHeight * tiling.canvasWidth * channels * 4
        let window = min(tiling.tile, tiling.canvasHeight) * min(tiling.tile, tiling.canvasWidth) * channels * 4
        return canvas * (tiling.writesDisjointCells ? 1 : 3) + inputHeight * inputWidth * 12 + 4 * lanes * window + (32 << 20)
    }

    /// Rows of the finished picture, without padding, in [0, 1]: the bicubic guess and the residual that the canvas holds at the end.
    package func finishedRows(_ rows: Range<Int>, input: RGBImage, canvas: Span<Float>) throws -> [Float] {
        var result = [Float](repeating: 0, count: rows.count * outputWidth * channels)
        var span = result.mutableSpan
        try upsampler.upsample(
            crop: input.pixels.span, cropRect: Rect(y: 0, x: 0, height: inputHeight, width: inputWidth), channels: channels,
            window: Rect(y: rows.lowerBound, x: 0, height: rows.count, width: outputWidth), into: &span)
        // The model's values are in [-1, 1], so a difference of theirs counts half in [0, 1].
        let gain = 0.5 / superResolution.residualScale
        let stride = tiling.canvasWidth * channels
        for row in 0..<rows.count {
            let from = (rows.lowerBound + row) * stride
            let to = row * outputWidth * channels
            for x in 0..<outputWidth * channels { span[to + x] += gain * canvas[from + x] }
        }
        return result
    }

    /// Rows of the alpha channel, enlarged bicubically.
    package func finishedAlpha(_ rows: Range<Int>, input: RGBImage) throws -> [Float] {
        var result = [Float](repeating: 0, count: rows.count * outputWidth)
        var span = result.mutableSpan
        try upsampler.upsample(
            crop: input.alpha.span, cropRect: Rect(y: 0, x: 0, height: inputHeight, width: inputWidth), channels: 1,
            window: Rect(y: rows.lowerBound, x: 0, height: rows.count, width: outputWidth), into: &span)
        return result
    }
}
