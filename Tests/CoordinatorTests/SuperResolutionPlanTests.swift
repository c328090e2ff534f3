import Coordinator
import Engine
import Protocol
import Testing

@Suite("Super-resolution plan")
struct SuperResolutionPlanTests {
    static func plan(width: Int, height: Int, scale: Double = 4, steps: Int = 3, tile: Int = 64) throws -> JobPlan {
        let folder = try ModelFolder(url: DefaultModel.url)
        let alignment = try SuperResolution.alignment(of: folder, scale: scale)
        var request = try UpscaleOptions.request([])
        (request.scale, request.steps, request.seed) = (scale, steps, 1)
        request.tiling.tile = (tile + alignment - 1) / alignment * alignment
        request.tiling.halo = alignment
        return try MethodTable.standard.plan(
            request, PlanContext(model: folder, inputHeight: height, inputWidth: width))
    }

    /// The planes of a job, its answers merged as they are given.
    struct Merging {
        let plan: JobPlan
        let planes: PlaneStore
        let input: InputImage

        init(_ plan: JobPlan, _ input: InputImage) throws {
            (self.plan, self.input) = (plan, input)
            planes = try PlaneStore(plan.pipeline, input: input)
        }

        /// Answers every tile of the first pass with so many values.
        func answer(_ values: (_ count: Int) -> [Float]) throws {
            let pass = plan.pipeline.passes[0]
            guard case .task(let operation) = pass.work else { return }
            for tile in 0..<pass.count {
                let slots = try operation(tile).outputs
                planes.merge(
                    slots.map { Frame(floats: values($0.count)) }, slots: slots,
                    of: Scheduler.Tile(pass: 0, index: tile))
            }
        }

        var canvas: Canvas {
            get throws { try #require(planes.canvas(plan.pipeline.output, before: plan.pipeline.passes.count)) }
        }

        var picture: FinishedPicture {
            get throws { FinishedPicture(plan.picture, input: input, canvas: try canvas) }
        }

        func rows(_ rows: Range<Int>) throws -> [Float] {
            var picture = try picture
            return try picture.numbers(rows)
        }

        var residual: [Float] {
            get throws {
                let canvas = try canvas
                var values = [Float](repeating: 0, count: canvas.height * canvas.width * canvas.channels)
                var span = values.mutableSpan
                canvas.load(canvas.whole, into: &span)
                return values
            }
        }
    }

    @Test("the canvas is the output rounded up to the alignment, never smaller than a small window")
    func sizes() throws {
        for (width, height, scale) in [(1, 1, 4.0), (33, 21, 4), (100, 7, 2), (64, 64, 3), (50, 40, 2.5), (16, 16, 1)] {
            let plan = try Self.plan(width: width, height: height, scale: scale)
            #expect(
                plan.picture.outputWidth == Int((Double(width) * scale).rounded())
                    && plan.picture.outputHeight == Int((Double(height) * scale).rounded()))
            #expect(
                plan.tiling.canvasWidth % plan.tiling.alignment == 0
                    && plan.tiling.canvasWidth >= max(plan.picture.outputWidth, 64))
            #expect(plan.tiling.canvasWidth < max(plan.picture.outputWidth, 64) + plan.tiling.alignment)
        }
    }

    @Test(
        """
        every task of a job holds its own geometry: cell in window in canvas, source in the input, noise at the first \
        step alone
        """
    )
    func requests() throws {
        let plan = try Self.plan(width: 61, height: 43)
        let input = Rect(y: 0, x: 0, height: 43, width: 61)
        let canvas = Rect(y: 0, x: 0, height: plan.tiling.canvasHeight, width: plan.tiling.canvasWidth)
        #expect(plan.pipeline.passes.map(\.step) == (0..<plan.steps).map { $0 })
        for (step, pass) in plan.pipeline.passes.enumerated() {
            #expect(pass.count == plan.tiling.grid(step: step).count)
            guard case .task(let operation) = pass.work else { continue }
            for tile in 0..<pass.count {
                let request = try #require(try operation(tile) as? DenoisePixels)
                #expect(
                    canvas.contains(request.tile.window) && request.tile.window.contains(request.tile.cell)
                        && input.contains(request.enlargement.source))
                #expect(pass.reads[0].delivery == (step == 0 ? .noise(NoiseField(.initial)) : .frame))
                #expect(request.tile.step == step && request.tile.seed == 1 && request.tile.answer == .cell)
                #expect(Int(request.tile.timestep) == plan.sampler[step].timestep)
            }
        }
        #expect(plan.sampler[0].timestep == 999, "trailing steps begin at the last timestep")
    }

    @Test(
        """
        the finished picture is the bicubic guess where the canvas is zero, and moves by half the residual over its \
        scale
        """
    )
    func finishing() throws {
        let plan = try Self.plan(width: 20, height: 12)
        var input = RGBImage(width: 20, height: 12)
        for i in input.pixels.indices { input.pixels[i] = Float(i % 6) / 5 }
        let job = try Merging(plan, InputImage(input))
        let rows = 5..<23
        let guess = try job.rows(rows)
        var expected = [Float](repeating: 0, count: rows.count * 80 * 3)
        var span = expected.mutableSpan
        try BicubicUpsampler(inputHeight: 12, inputWidth: 20, outputHeight: 48, outputWidth: 80).upsample(
            crop: input.pixels.span, cropRect: Rect(y: 0, x: 0, height: 12, width: 20), channels: 3,
            window: Rect(y: 5, x: 0, height: 18, width: 80), into: &span)
        #expect(guess == expected)
        try job.answer { Array(repeating: 1, count: $0) }
        let moved = try job.rows(rows)
        let gain = try #require(plan.picture.residualGain)
        #expect(zip(moved, guess).allSatisfy { abs($0 - $1 - gain) < 1e-6 })
    }

    @Test(
        "the picture made in pieces and bands is the one computed in one go, for every kind of input",
        arguments: [(1030, 67, 1.0), (411, 13, 2.5), (301, 11, 4)],
        [(false, false, 8), (false, false, 16), (true, false, 8), (false, true, 8), (true, true, 16)])
    func pieces(size: (width: Int, height: Int, scale: Double), kind: (grey: Bool, alpha: Bool, bitDepth: Int)) throws {
        let plan = try Self.plan(width: size.width, height: size.height, scale: size.scale, steps: 1)
        let (height, width) = (plan.picture.outputHeight, plan.picture.outputWidth)
        let format = PixelFormat(grey: kind.grey, alpha: kind.alpha, bitDepth: kind.bitDepth)
        var cases = SplitMix64(state: 5)
        func random(_ count: Int) -> [Float] { (0..<count).map { _ in .random(in: 0...1, using: &cases) } }
        var image = RGBImage(width: size.width, height: size.height, pixels: random(size.width * size.height * 3))
        if kind.alpha { image.alpha = random(size.width * size.height) }
        let job = try Merging(plan, InputImage(image, format: format))
        try job.answer { random($0) }

        // In one go, of what the format has kept of the input.
        var bytes = [UInt8](repeating: 0, count: size.height * format.rowBytes(width: size.width))
        var (pixels, opacity) = (image.pixels, image.alpha)
        do {
            var samples = bytes.mutableSpan
            format.pack(rgb: image.pixels.span, alpha: image.alpha.span, into: &samples)
            var rgb = pixels.mutableSpan
            var alpha = opacity.mutableSpan
            format.unpack(samples.span, rgb: &rgb, alpha: &alpha)
        }
        func enlarged(_ values: [Float], channels: Int) throws -> [Float] {
            var result = [Float](repeating: 0, count: height * width * channels)
            var span = result.mutableSpan
            try BicubicUpsampler(
                inputHeight: size.height, inputWidth: size.width, outputHeight: height, outputWidth: width
            ).upsample(
                crop: values.span, cropRect: Rect(y: 0, x: 0, height: size.height, width: size.width),
                channels: channels,
                window: Rect(y: 0, x: 0, height: height, width: width), into: &span)
            return result
        }
        var numbers = try enlarged(pixels, channels: 3)
        let alpha = kind.alpha ? try enlarged(opacity, channels: 1) : []
        let (residual, gain) = (try job.residual, try #require(plan.picture.residualGain))
        for y in 0..<height {
            for i in 0..<width * 3 {
                numbers[y * width * 3 + i] += gain * residual[y * plan.tiling.canvasWidth * 3 + i]
            }
        }
        var expected = [UInt8](repeating: 0, count: height * format.rowBytes(width: width))
        do {
            var span = expected.mutableSpan
            format.pack(rgb: numbers.span, alpha: alpha.span, into: &span)
        }

        #expect(try job.rows(0..<height) == numbers)
        var picture = try job.picture
        for count in [height, 32, 5] {
            var (band, bands): ([UInt8], [[UInt8]]) = ([], [])
            for first in stride(from: 0, to: height, by: count) {
                try picture.samples(first..<min(first + count, height), into: &band)
                // Kept every other time: a band that somebody holds stays as it is.
                bands.append(bands.count % 2 == 0 ? band : band.map { $0 })
            }
            #expect(Array(bands.joined()) == expected, "\(count) rows at a time")
        }
    }
}
