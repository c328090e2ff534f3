import Engine
import Protocol

/// Everything that is decided before the first tile is sent: sizes, tiling, timesteps, the order of the work, and what
/// each task says.
package struct RenderPlan: Sendable {
    /// Found best for the default model: `docs/default-model.md` and `docs/methods.md` have the measurements.
    package static let defaultSteps = 4
    package static let defaultTile = 256
    package static let defaultHalo = 16
    /// Smaller canvases are padded to this: GroupNorm needs some pixels to have statistics of.
    private static let leastCanvas = 64

    /// What is rendered with.
    package enum Model: Sendable {
        /// A pixel network that takes the enlarged image as a guess.
        case superResolution(SuperResolutionConfiguration)
        case latent(LatentPlan)
    }

    /// A part of the job that all workers finish before the next begins, but for the sampler's steps among themselves.
    package enum Phase: Sendable, Hashable {
        case encodeText
        /// See `AutoencoderPass`.
        case encode(pass: Int)
        /// A step of the sampler.
        case denoise(Int)
        case decode(pass: Int)

        package var name: String {
            switch self {
            case .encodeText: "text"
            case .encode: "encode"
            case .denoise: "denoise"
            case .decode: "decode"
            }
        }
    }

    package let inputHeight, inputWidth: Int
    package let outputHeight, outputWidth: Int
    /// Of the canvas.
    package let channels: Int
    package let model: Model
    package let tiling: Tiling
    package let sampler: StepSampler
    package let seed: UInt64
    package let precision: Precision
    package let phases: [Phase]
    /// Whether the sampler's steps wait for one another: slower, and there to be compared with.
    package var hasBarrier = false
    /// Of the canvas.
    package var element = CanvasElement.float32
    /// What windows and answers of tiles that are at workers may take: workers without number would have the
    /// coordinator keep as many tiles.
    package var memoryForTiles = Int.max
    let upsampler: BicubicUpsampler
    /// Of the sampler's steps; every tile's task asks for one.
    package let grids: [TileGrid]

    /// Steps of the sampler.
    package var steps: Int { sampler.count }

    package static func roundUp(_ value: Int, _ multiple: Int) -> Int { (value + multiple - 1) / multiple * multiple }

    /// Windows stand at multiples of this: the network's own stride in canvas pixels, and the phase of the conditioning
    /// where the scale has a short one.
    package static func alignment(of folder: ModelFolder, scale: Double) throws -> Int {
        guard let superResolution = folder.superResolution else {
            throw CommandError.notForUpscaling(model: folder.url.path)
        }
        let stride =
            try UNet2DConfiguration(file: folder.network.appending(path: "config.json")).alignment
            * superResolution.spaceToDepth
        guard scale == scale.rounded(), scale <= 8 else { return stride }
        var multiple = stride
        while multiple % Int(scale) != 0 { multiple += stride }
        return multiple
    }

    /// A super-resolution network's plan.
    package init(
        folder: ModelFolder, inputHeight: Int, inputWidth: Int, scale: Double, steps: Int, sampler kind: SamplerKind,
        tile: Int,
        overlap: Tiling.Overlap, offset: Tiling.Offset, offsetRange: Int?, seed: UInt64
    ) throws {
        guard let superResolution = folder.superResolution else {
            throw CommandError.notForUpscaling(model: folder.url.path)
        }
        (outputHeight, outputWidth) = try Self.outputSize(inputHeight, inputWidth, scale: scale)
        (self.inputHeight, self.inputWidth) = (inputHeight, inputWidth)
        channels = 3
        model = .superResolution(superResolution)
        self.seed = seed
        precision = .float32
        upsampler = try BicubicUpsampler(
            inputHeight: inputHeight, inputWidth: inputWidth, outputHeight: outputHeight, outputWidth: outputWidth)
        sampler = try StepSampler(schedule: folder.schedule, kind: kind, steps: steps)
        phases = (0..<sampler.count).map { .denoise($0) }
        let alignment = try Self.alignment(of: folder, scale: scale)
        let least = min(Self.leastCanvas, tile)
        tiling = try Tiling(
            canvasHeight: Self.roundUp(max(outputHeight, least), alignment),
            canvasWidth: Self.roundUp(max(outputWidth, least), alignment),
            tile: tile, overlap: overlap, offset: offset, offsetRange: offsetRange, alignment: alignment, seed: seed)
        grids = (0..<sampler.count).map { [tiling] in tiling.grid(step: $0) }
    }

    /// A latent model's plan.
    /// - Parameters:
    ///   - tile: in latents, as overlap and offset range
    ///   - strength: the part of the schedule's steps that image to image takes; the upscale pipeline takes them all
    package init(
        latent: LatentPlan, pipeline: PipelineFolder, inputHeight: Int, inputWidth: Int, scale: Double, steps: Int,
        sampler kind: SamplerKind, strength: Double, tile: Int, overlap: Tiling.Overlap, offset: Tiling.Offset,
        offsetRange: Int?, seed: UInt64,
        precision: Precision
    ) throws {
        (outputHeight, outputWidth) = try Self.outputSize(inputHeight, inputWidth, scale: scale)
        (self.inputHeight, self.inputWidth) = (inputHeight, inputWidth)
        channels = latent.channels
        self.seed = seed
        self.precision = precision
        upsampler = try BicubicUpsampler(
            inputHeight: inputHeight, inputWidth: inputWidth, outputHeight: outputHeight, outputWidth: outputWidth)
        let alignment = latent.alignment
        let (height, width) = (
            (outputHeight + latent.factor - 1) / latent.factor, (outputWidth + latent.factor - 1) / latent.factor
        )
        guard height >= alignment, width >= alignment else {
            throw CommandError.inputTooSmall(width: outputWidth, height: outputHeight, least: alignment * latent.factor)
        }
        tiling = try Tiling(
            canvasHeight: Self.roundUp(height, alignment), canvasWidth: Self.roundUp(width, alignment), tile: tile,
            overlap: overlap,
            offset: offset, offsetRange: offsetRange, alignment: alignment, seed: seed)
        var latent = latent
        switch latent.method {
        case .upscale:
            sampler = try StepSampler(schedule: pipeline.schedule, kind: kind, steps: steps)
        case .imageToImage:
            sampler = try StepSampler(schedule: pipeline.schedule, kind: kind, steps: steps, strength: strength)
            latent.encoding = try AutoencoderPass.passes(
                .encode, latent.autoencoderTiling, latent.autoencoder, height: tiling.canvasHeight,
                width: tiling.canvasWidth)
        }
        latent.decoding = try AutoencoderPass.passes(
            .decode, latent.autoencoderTiling, latent.autoencoder, height: tiling.canvasHeight,
            width: tiling.canvasWidth)
        try latent.measureNeeds(pipeline, tiling: tiling, precision: precision)
        phases =
            [.encodeText] + latent.encoding.indices.map { .encode(pass: $0) } + (0..<sampler.count).map { .denoise($0) }
            + latent.decoding.indices.map { .decode(pass: $0) }
        model = .latent(latent)
        grids = (0..<sampler.count).map { [tiling] in tiling.grid(step: $0) }
        guard windowBytes <= WireLimits.tensorBytes else {
            throw CommandError.windowTooLarge(option: "--tile", bytes: windowBytes)
        }
        guard largestFrame <= WireLimits.tensorBytes else {
            throw CommandError.windowTooLarge(option: "--vae-tile", bytes: largestFrame)
        }
    }

    private static func outputSize(_ inputHeight: Int, _ inputWidth: Int, scale: Double) throws -> (
        height: Int, width: Int
    ) {
        let (height, width) = (Double(inputHeight) * scale, Double(inputWidth) * scale)
        guard height <= Double(WireLimits.imageSide), width <= Double(WireLimits.imageSide) else {
            throw CommandError.outputTooLarge(width: Int(width), height: Int(height))
        }
        return (max(Int(height.rounded()), inputHeight), max(Int(width.rounded()), inputWidth))
    }

    package var latent: LatentPlan? { if case .latent(let latent) = model { latent } else { nil } }

    // MARK: The work

    /// What the scheduler has to know of a phase.
    package func step(_ index: Int) -> Scheduler.Step {
        switch phases[index] {
        case .denoise(let step):
            return Scheduler.Step(
                denoising: grids[step], of: tiling, readsCanvas: step > 0 || !startsWithNoise, waits: hasBarrier,
                kind: 1, mostOut: mostOut(windowBytes))
        case .encodeText:
            return Scheduler.Step(.barrier(count: latent?.prompts.count ?? 0, inOrder: false), kind: 2)
        case .encode(let pass):
            return Scheduler.Step(
                latent?.encoding[pass].shape ?? .barrier(count: 0, inOrder: false), kind: 3,
                keys: latent?.encoding[pass].keys ?? [],
                mostOut: mostOut(largestFrame))
        case .decode(let pass):
            return Scheduler.Step(
                latent?.decoding[pass].shape ?? .barrier(count: 0, inOrder: false), kind: 4,
                keys: latent?.decoding[pass].keys ?? [],
                mostOut: mostOut(largestFrame))
        }
    }

    /// Tiles that may be at workers where each takes a window and an answer of so many bytes; a few in any case.
    private func mostOut(_ frameBytes: Int) -> Int { max(16, memoryForTiles / (2 * frameBytes)) }

    /// Large networks have to be loaded before they answer for the first time.
    package var leases: Scheduler.LeasePolicy {
        var policy = Scheduler.LeasePolicy()
        if latent != nil { (policy.unmeasured, policy.least) = (900, 60) }
        return policy
    }

    package var startsWithNoise: Bool {
        if case .latent(let latent) = model, case .imageToImage = latent.method { false } else { true }
    }

    /// The task of a tile, everything but the bytes.
    package func work(phase index: Int, tile: Int) throws -> Work {
        switch phases[index] {
        case .denoise(let step): return .denoise(try denoising(step: step, tile: tile))
        case .encodeText:
            let latent = try requireLatent()
            return .encodeText(
                TextRequest(byteCount: latent.prompts[tile].utf8.count, tokens: latent.tokens, width: latent.textWidth))
        case .encode(let pass): return .autoencode(try autoencoding(.encode, pass: pass, tile: tile))
        case .decode(let pass): return .autoencode(try autoencoding(.decode, pass: pass, tile: tile))
        }
    }

    private func requireLatent() throws -> LatentPlan {
        guard let latent else { throw CommandError.notForUpscaling(model: "the model") }
        return latent
    }

    private func denoising(step: Int, tile: Int) throws -> DenoiseRequest {
        let grid = grids[step]
        let window = grid.window(tile)
        let conditioning: DenoiseRequest.Conditioning
        var text: DenoiseRequest.Text?
        switch model {
        case .superResolution:
            conditioning = .enlarged(try enlargement(of: window))
        case .latent(let latent):
            switch latent.method {
            case .upscale(let noiseLevel): conditioning = .noised(level: noiseLevel)
            case .imageToImage: conditioning = .none
            }
            text = DenoiseRequest.Text(tokens: latent.tokens, width: latent.textWidth, scale: latent.guidanceScale)
        }
        return DenoiseRequest(
            canvasHeight: tiling.canvasHeight, canvasWidth: tiling.canvasWidth, channels: channels, window: window,
            cell: grid.cell(tile), timestep: Float(sampler[step].timestep), coefficients: sampler[step].coefficients,
            step: step,
            // Blended predictions need the sample on the coordinator too, so there it is made.
            seed: seed, sampleIsNoise: step == 0 && startsWithNoise,
            answer: tiling.writesDisjointCells ? .cell : .prediction,
            element: element, conditioning: conditioning, text: text)
    }

    private func autoencoding(_ direction: AutoencodeRequest.Direction, pass index: Int, tile: Int) throws
        -> AutoencodeRequest
    {
        let latent = try requireLatent()
        let pass = latent.passes(direction)[index]
        let tile = pass.tiles[tile], window = pass.grid.window(tile)
        return AutoencodeRequest(
            direction: direction, layers: pass.layers, canvasHeight: tiling.canvasHeight,
            canvasWidth: tiling.canvasWidth, window: window,
            cell: pass.grid.cell(tile), factor: latent.factor, channels: channels,
            featureChannels: latent.featureChannels(direction),
            groups: latent.autoencoder.normNumGroups, givenNorms: pass.givenNorms, wantedNorms: pass.wantedNorms,
            enlargement: direction == .encode && pass.layers != .trunk
                ? try enlargement(of: window.scaled(by: latent.factor)) : nil, seed: seed,
            signal: sampler.start.signal, noise: sampler.start.noise)
    }

    private func enlargement(of window: Rect) throws -> Enlargement {
        Enlargement(
            inputHeight: inputHeight, inputWidth: inputWidth, outputHeight: outputHeight, outputWidth: outputWidth,
            source: try upsampler.sourceRect(for: window))
    }

    // MARK: Needs

    /// About what a tile of each phase costs, in any unit: floating-point operations where they differ.
    package var costs: [Double] {
        guard let latent else { return phases.map { _ in 1 } }
        func flops(_ part: PipelineFolder.Part) -> Double { latent.needs[part]?.flops ?? 1 }
        return phases.map { phase in
            switch phase {
            case .encodeText: flops(.text)
            case .denoise: flops(.unet) * (latent.guidanceScale == 1 ? 1 : 2)
            case .encode(let pass): flops(.vae) / 2 * AutoencoderPass.share(pass, of: latent.encoding)
            case .decode(let pass): flops(.vae) * AutoencoderPass.share(pass, of: latent.decoding)
            }
        }
    }

    /// Something of a job that is kept between tiles, height x width x channels.
    package struct Store: Sendable, Hashable {
        package var name: String
        package var height, width, channels: Int
        package var element: StoredValues.Element
        package var count: Int { height * width * channels }
        package var bytes: Int { count * element.size }

        static func canvas(_ number: Int) -> String { "canvas.\(number)" }
        static func prediction(_ number: Int) -> String { "prediction.\(number)" }
        static func features(_ direction: AutoencodeRequest.Direction) -> String {
            direction == .encode ? "features.encode" : "features.decode"
        }
        static let sum = "sum", pixels = "pixels"
    }

    /// What the coordinator keeps, beside the input.
    /// - Parameter canvases: 1, or 3 with checkpoints
    package func stores(canvases: Int) -> [Store] {
        // What is summed is float32 in any case.
        let element = StoredValues.Element(self.element)
        let (height, width) = (tiling.canvasHeight, tiling.canvasWidth)
        func store(_ name: String, _ element: StoredValues.Element, channels: Int) -> Store {
            Store(name: name, height: height, width: width, channels: channels, element: element)
        }
        var stores = (0..<canvases).map { store(Store.canvas($0), element, channels: channels) }
        if !tiling.writesDisjointCells { stores.append(store(Store.sum, .float32, channels: channels)) }
        // Elsewhere the windows of every step cover the canvas.
        if tiling.overlap == .reference {
            stores += (0..<canvases).map { store(Store.prediction($0), element, channels: channels) }
        }
        guard let latent else { return stores }
        for direction in [AutoencodeRequest.Direction.encode, .decode] where latent.hasTrunk(direction) {
            stores.append(store(Store.features(direction), .float32, channels: latent.featureChannels(direction)))
        }
        stores.append(
            Store(
                name: Store.pixels, height: height * latent.factor, width: width * latent.factor, channels: 3,
                element: element))
        return stores
    }

    /// Whether there is a canvas to speak of between the phases before `phase` and itself: before its first step one of
    /// pixels is nothing but noise, which is made anew.
    func hasCanvas(before phase: Int) -> Bool {
        let first = phases.firstIndex { if case .denoise = $0 { true } else { false } } ?? 0
        return phase > first || phase == first && !startsWithNoise
    }

    /// The stores that the phases from `phase` on, or the output, read before they write them.
    func filesOfCheckpoint(at phase: Int, canvas: Int?) -> [String] {
        if phase == phases.count, latent != nil { return [Store.pixels] }
        var files: [String] = []
        if let canvas {
            files.append(Store.canvas(canvas))
            if tiling.overlap == .reference { files.append(Store.prediction(canvas)) }
        }
        guard phases.indices.contains(phase) else { return files }
        switch phases[phase] {
        case .encode(let pass) where latent?.encoding[pass].layers == .trunk: files.append(Store.features(.encode))
        case .decode(let pass) where latent?.decoding[pass].layers == .detail: files.append(Store.features(.decode))
        default: break
        }
        return files
    }

    /// Whether a checkpoint can be one of this plan's.
    package func accepts(_ checkpoint: JobFolder.Checkpoint, canvases: Int) -> Bool {
        (1...phases.count).contains(checkpoint.phase)
            && (checkpoint.canvas != nil) == hasCanvas(before: checkpoint.phase)
            && (checkpoint.canvas.map((0..<canvases).contains) ?? true)
            && Set(checkpoint.files.keys) == Set(filesOfCheckpoint(at: checkpoint.phase, canvas: checkpoint.canvas))
            && (latent.map { checkpoint.text?.count == $0.prompts.count * $0.tokens * $0.textWidth * 4 } ?? true)
    }

    /// What the coordinator holds as a rule: what it keeps, where that is in memory, and the windows and answers of the
    /// tiles that are out. A straggler can make answers wait, a step's at the most.
    package func coordinatorBytes(lanes: Int, kept: Int) -> Int {
        var bytes = kept + 4 * lanes * windowBytes + (32 << 20)
        if let latent {
            let area = latent.factor * latent.factor
            let positions = tiling.canvasHeight * tiling.canvasWidth
            if latent.hasTrunk(.encode) || latent.hasTrunk(.decode) {
                // The features, while they travel.
                bytes += 4 * positions * max(latent.featureChannels(.encode), latent.featureChannels(.decode))
            }
            // Windows of features that are out, pixels that come back.
            bytes +=
                2 * lanes * self.area(ofTile: latent.autoencoderTiling.tile)
                * max(latent.featureChannels(.encode), latent.featureChannels(.decode), 3 * area) * 4
        }
        return bytes
    }

    /// What a worker's process holds at most on a machine of `machine` bytes; nil for the small networks of pixels. One
    /// network at a time is in memory.
    package func workerBytes(lanes: Int, machine: Int) -> Int? {
        guard let latent else { return nil }
        let keeps = (latent.encoding + latent.decoding).contains { !$0.wantedNorms.isEmpty }
        return latent.needs.map { part, need in
            need.bytes(lanes: lanes) + (part == .vae && keeps ? PipelineFolder.keptTileBytes(machine: machine) : 0)
        }.max()
    }

    /// Area of a window, which is no larger than the canvas.
    private func area(ofTile side: Int) -> Int { min(side, tiling.canvasHeight) * min(side, tiling.canvasWidth) }

    /// Bytes of a window of the canvas.
    private var windowBytes: Int { area(ofTile: tiling.tile) * channels * 4 }

    /// Bytes of the largest frame, either way.
    package var largestFrame: Int {
        guard let latent else { return windowBytes }
        let decoded = area(ofTile: latent.autoencoderTiling.tile) * latent.factor * latent.factor
        var largest = max(windowBytes, decoded * 12, latent.tokens * latent.textWidth * 4)
        for direction in [AutoencodeRequest.Direction.encode, .decode] {
            for pass in latent.passes(direction) {
                let window = pass.layers == .all ? 0 : pass.tiles.reduce(0) { max($0, pass.grid.window($1).area) }
                largest = max(
                    largest, window * latent.featureChannels(direction) * 4,
                    24 * latent.autoencoder.normNumGroups * pass.wantedNorms.count)
            }
        }
        return largest
    }

    /// A digest of everything that decides the output's bytes, but for the input, the model and how values are stored.
    package var digest: String {
        let parts: [Any] = [
            inputHeight, inputWidth, outputHeight, outputWidth, channels, tiling, seed, precision, phases,
            (0..<sampler.count).map { sampler[$0] }, sampler.start, latent?.method as Any, latent?.prompts as Any,
            latent?.guidanceScale as Any,
            latent?.autoencoderTiling as Any,
        ]
        return ContentDigest(of: Array(parts.map { "\($0)" }.joined(separator: "|").utf8)).hex
    }
}
