import Coordinator
import Engine
import Protocol
import Testing

@Suite("Render plan")
struct RenderPlanTests {
    static func plan(width: Int, height: Int, scale: Double = 4, steps: Int = 3, tile: Int = 64) throws -> RenderPlan {
        let folder = try ModelFolder(url: DefaultModel.url)
        let alignment = try RenderPlan.alignment(of: folder, scale: scale)
        return try RenderPlan(
            folder: folder, inputHeight: height, inputWidth: width, scale: scale, steps: steps, sampler: .ddim(eta: 0),
            tile: RenderPlan.roundUp(tile, alignment), overlap: .implicit(halo: alignment), offset: .random,
            offsetRange: nil, seed: 1)
    }

    @Test("the canvas is the output rounded up to the alignment, never smaller than a small window")
    func sizes() throws {
        for (width, height, scale) in [(1, 1, 4.0), (33, 21, 4), (100, 7, 2), (64, 64, 3), (50, 40, 2.5), (16, 16, 1)] {
            let plan = try Self.plan(width: width, height: height, scale: scale)
            #expect(
                plan.outputWidth == Int((Double(width) * scale).rounded())
                    && plan.outputHeight == Int((Double(height) * scale).rounded()))
            #expect(
                plan.tiling.canvasWidth % plan.tiling.alignment == 0
                    && plan.tiling.canvasWidth >= max(plan.outputWidth, 64))
            #expect(plan.tiling.canvasWidth < max(plan.outputWidth, 64) + plan.tiling.alignment)
        }
    }

    @Test(
        "every task of a job holds its own geometry: cell in window in canvas, source in the input, noise at the first step alone"
    )
    func requests() throws {
        let plan = try Self.plan(width: 61, height: 43)
        let input = Rect(y: 0, x: 0, height: 43, width: 61)
        let canvas = Rect(y: 0, x: 0, height: plan.tiling.canvasHeight, width: plan.tiling.canvasWidth)
        #expect(plan.phases == (0..<plan.steps).map { .denoise($0) })
        for step in 0..<plan.steps {
            for tile in 0..<plan.tiling.grid(step: step).count {
                guard case .denoise(let request) = try plan.work(phase: step, tile: tile),
                    case .enlarged(let enlargement) = request.conditioning
                else {
                    Issue.record("no denoising of an enlarged picture")
                    return
                }
                #expect(
                    canvas.contains(request.window) && request.window.contains(request.cell)
                        && input.contains(enlargement.source))
                #expect(
                    request.sampleIsNoise == (step == 0) && request.step == step && request.seed == 1
                        && request.answer == .cell)
                #expect(Int(request.timestep) == plan.sampler[step].timestep)
            }
        }
        #expect(plan.sampler[0].timestep == 999, "trailing steps begin at the last timestep")
    }

    @Test(
        "the finished picture is the bicubic guess where the canvas is zero, and moves by half the residual over its scale"
    )
    func finishing() throws {
        let plan = try Self.plan(width: 20, height: 12)
        var input = RGBImage(width: 20, height: 12)
        for i in input.pixels.indices { input.pixels[i] = Float(i % 6) / 5 }
        let rendering = try Rendering(plan: plan, input: input)
        let rows = 5..<23
        let guess = try rendering.finishedRows(rows)
        var expected = [Float](repeating: 0, count: rows.count * 80 * 3)
        var span = expected.mutableSpan
        try BicubicUpsampler(inputHeight: 12, inputWidth: 20, outputHeight: 48, outputWidth: 80).upsample(
            crop: input.pixels.span, cropRect: Rect(y: 0, x: 0, height: 12, width: 20), channels: 3,
            window: Rect(y: 5, x: 0, height: 18, width: 80), into: &span)
        #expect(guess == expected)
        for tile in 0..<plan.tiling.grid(step: 0).count {
            let work = try plan.work(phase: 0, tile: tile)
            rendering.merge(
                Frame(floats: Array(repeating: 1, count: work.answerByteCount / 4)), of: work, phase: 0, tile: tile)
        }
        let moved = try rendering.finishedRows(rows)
        guard case .superResolution(let superResolution) = plan.model else { return }
        let gain = 0.5 / superResolution.residualScale
        #expect(zip(moved, guess).allSatisfy { abs($0 - $1 - gain) < 1e-6 })
    }

    @Test(
        "the picture made in pieces and bands is the one computed in one go, for every kind of input",
        arguments: [(1030, 67, 1.0), (411, 13, 2.5), (301, 11, 4)],
        [(false, false, 8), (false, false, 16), (true, false, 8), (false, true, 8), (true, true, 16)])
    func pieces(size: (width: Int, height: Int, scale: Double), kind: (grey: Bool, alpha: Bool, bitDepth: Int)) throws {
        let plan = try Self.plan(width: size.width, height: size.height, scale: size.scale, steps: 1)
        guard case .superResolution(let superResolution) = plan.model else { return }
        let (height, width) = (plan.outputHeight, plan.outputWidth)
        let format = PixelFormat(grey: kind.grey, alpha: kind.alpha, bitDepth: kind.bitDepth)
        var cases = SplitMix64(state: 5)
        func random(_ count: Int) -> [Float] { (0..<count).map { _ in .random(in: 0...1, using: &cases) } }
        var image = RGBImage(width: size.width, height: size.height, pixels: random(size.width * size.height * 3))
        if kind.alpha { image.alpha = random(size.width * size.height) }
        let rendering = try Rendering(
            plan: plan, input: InputImage(image, format: format), stores: plan.stores(canvases: 1))
        for tile in 0..<plan.tiling.grid(step: 0).count {
            let work = try plan.work(phase: 0, tile: tile)
            rendering.merge(Frame(floats: random(work.answerByteCount / 4)), of: work, phase: 0, tile: tile)
        }

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
        let (residual, gain) = (rendering.latents, 0.5 / superResolution.residualScale)
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

        #expect(try rendering.finishedRows(0..<height) == numbers)
        var picture = rendering.picture
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
