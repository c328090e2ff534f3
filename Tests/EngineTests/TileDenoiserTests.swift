import Engine
import Testing

@Suite("Tile denoiser")
struct TileDenoiserTests {
    @Test(
        """
        folding puts channel c, row dy, column dx of a block at (c * factor + dy) * factor + dx, as pixel_unshuffle does
        """,
        arguments: [1, 2, 4])
    func folding(factor: Int) {
        let image = Activation(height: 3 * factor, width: 5 * factor, channels: 3)
        var values = image.mutableSpan
        for i in values.indices { values[i] = Float(i) }
        let depth = 3 * factor * factor
        let other = (0..<image.count).map { Float(1000 - $0) }
        let folded = Activation(height: 3, width: 5, channels: 2 * depth)
        SpaceToDepth.fold(
            image.span, other.span, scale: 2, offset: -1, channels: 3, factor: factor, into: folded, at: 0)
        let half = Activation(height: 3, width: 5, channels: depth)
        var first = half.mutableSpan
        for y in 0..<image.height {
            for x in 0..<image.width {
                for c in 0..<3 {
                    let channel = (c * factor + y % factor) * factor + x % factor
                    let block = y / factor * 5 + x / factor
                    let pixel = (y * image.width + x) * 3 + c
                    #expect(folded.span[block * 2 * depth + channel] == image.span[pixel])
                    #expect(folded.span[block * 2 * depth + depth + channel] == 2 * other[pixel] - 1)
                    first[block * depth + channel] = folded.span[block * 2 * depth + channel]
                }
            }
        }
        let back = Activation(height: image.height, width: image.width, channels: 3)
        SpaceToDepth.unfold(half, from: 0, factor: factor, into: back)
        for i in 0..<image.count { #expect(back.span[i] == image.span[i]) }
    }

    /// A request for part of a 160x120 picture made of 40x30 pixels, and the low-resolution pixels it is conditioned
    /// on.
    static func request(window: Rect, cell: Rect, step: Int, answer: TileStep.Answer) throws -> (
        DenoisePixels, [Float]
    ) {
        let folder = try ModelFolder(url: DefaultModel.url)
        let sampler = try StepSampler(schedule: folder.schedule, sampler: .ddim(eta: 0.5), steps: 4)
        let upsampler = try BicubicUpsampler(inputHeight: 30, inputWidth: 40, outputHeight: 120, outputWidth: 160)
        let source = try upsampler.sourceRect(for: window)
        var pixels: [Float] = []
        for y in source.y..<source.maxY {
            for x in source.x..<source.maxX {
                pixels += [Float(x) / 40, (x / 3 + y / 4) % 2 == 0 ? 0.8 : 0.3, Float(y) / 30]
            }
        }
        let request = DenoisePixels(
            tile: TileStep(
                canvasHeight: 120, canvasWidth: 160, channels: 3, window: window, cell: cell,
                timestep: Float(sampler[step].timestep), coefficients: sampler[step].coefficients, step: step, seed: 5,
                answer: answer),
            enlargement: Enlargement(
                inputHeight: 30, inputWidth: 40, outputHeight: 120, outputWidth: 160, source: source))
        return (request, pixels)
    }

    static func denoise(_ request: DenoisePixels, sample: [Float]?, pixels: [Float]) throws -> [Float] {
        let denoiser = try TileDenoiser(folder: DefaultModel.url)
        let answered = request.tile.answer == .cell ? request.tile.cell : request.tile.window
        var answer = [Float](repeating: .nan, count: answered.area * 3)
        var span = answer.mutableSpan
        let read: TileDenoiser.Sample? = sample.map { sample in
            { start, values in RowCopy.copy(from: sample.span, start: start, to: &values, count: values.count) }
        }
        try denoiser.denoise(request, sample: read, conditioning: pixels.span, workspace: Workspace()) {
            values, start in
            RowCopy.copy(from: values, to: &span, at: start, count: values.count)
        }
        return answer
    }

    @Test("the first step makes the canvas's own noise, so that sending it changes nothing")
    func noise() throws {
        let window = Rect(y: 40, x: 64, height: 80, width: 96)
        let cell = Rect(y: 48, x: 72, height: 40, width: 56)
        let (request, pixels) = try Self.request(window: window, cell: cell, step: 0, answer: .cell)
        let made = try Self.denoise(request, sample: nil, pixels: pixels)
        var noise = [Float](repeating: 0, count: window.area * 3)
        var span = noise.mutableSpan
        Noise.fill(&span, window: window, channels: 3, seed: 5, field: NoiseField(.initial))
        #expect(try Self.denoise(request, sample: noise, pixels: pixels) == made)
    }

    @Test("a cell's answer is the sampler's step of the window's prediction")
    func stepping() throws {
        let window = Rect(y: 0, x: 32, height: 64, width: 72)
        let cell = Rect(y: 8, x: 40, height: 32, width: 40)
        let sample = (0..<window.area * 3).map { Float($0 % 97) / 48 - 1 }
        let (request, pixels) = try Self.request(window: window, cell: cell, step: 2, answer: .cell)
        let stepped = try Self.denoise(request, sample: sample, pixels: pixels)
        var whole = request
        whole.tile.answer = .prediction
        let prediction = try Self.denoise(whole, sample: sample, pixels: pixels)
        var noise = [Float](repeating: 0, count: cell.area * 3)
        var span = noise.mutableSpan
        Noise.fill(&span, window: cell, channels: 3, seed: 5, field: NoiseField(.sampler, step: 2))
        let k = request.tile.coefficients
        for y in 0..<cell.height {
            for x in 0..<cell.width * 3 {
                let from = ((cell.y - window.y + y) * window.width + cell.x - window.x) * 3 + x
                let to = y * cell.width * 3 + x
                let expected =
                    k.nextFromSample * sample[from] + k.nextFromPrediction * prediction[from] + k.noise * noise[to]
                #expect(abs(stepped[to] - expected) <= 1e-5)
            }
        }
    }

    @Test("cells of many sizes in windows of one take no more memory than one of them")
    func cells() throws {
        let window = Rect(y: 0, x: 32, height: 64, width: 72)
        let denoiser = try TileDenoiser(folder: DefaultModel.url), workspace = Workspace()
        let sizes = try [40, 8, 64, 1].map { width in
            let cell = Rect(y: 8, x: 40, height: 32, width: width)
            let (request, pixels) = try Self.request(window: window, cell: cell, step: 0, answer: .cell)
            try denoiser.denoise(request, sample: nil, conditioning: pixels.span, workspace: workspace) { _, _ in }
            return workspace.allocatedBytes
        }
        #expect(Set(sizes).count == 1, "\(sizes)")
    }

    @Test("a request that fits neither window nor network is an error, not a crash")
    func misfits() throws {
        let window = Rect(y: 0, x: 0, height: 64, width: 64)
        let (good, pixels) = try Self.request(window: window, cell: window, step: 1, answer: .cell)
        func fails(_ change: (inout DenoisePixels) -> Void, sample: [Float]) -> Bool {
            var request = good
            change(&request)
            return (try? Self.denoise(request, sample: sample, pixels: pixels)) == nil
        }
        let sample = [Float](repeating: 0, count: window.area * 3)
        #expect(!fails({ _ in }, sample: sample))
        #expect(fails({ $0.tile.window.width = 60 }, sample: Array(sample.prefix(64 * 60 * 3))))
        #expect(fails({ $0.tile.channels = 4 }, sample: sample))
        #expect(fails({ $0.tile.cell.x = 8 }, sample: sample))
        #expect(fails({ $0.enlargement.source = Rect(y: 0, x: 0, height: 1, width: 40) }, sample: sample))
        #expect(
            fails({ _ in }, sample: Array(repeating: .nan, count: sample.count)), "what is not finite goes no further")
    }
}
