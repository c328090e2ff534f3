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
            tile: RenderPlan.roundUp(tile, alignment), overlap: .implicit(halo: alignment), offset: .random, offsetRange: nil, seed: 1)
    }

    @Test("the canvas is the output rounded up to the alignment, never smaller than a small window")
    func sizes() throws {
        for (width, height, scale) in [(1, 1, 4.0), (33, 21, 4), (100, 7, 2), (64, 64, 3), (50, 40, 2.5), (16, 16, 1)] {
            let plan = try Self.plan(width: width, height: height, scale: scale)
            #expect(plan.outputWidth == Int((Double(width) * scale).rounded()) && plan.outputHeight == Int((Double(height) * scale).rounded()))
            #expect(plan.tiling.canvasWidth % plan.tiling.alignment == 0 && plan.tiling.canvasWidth >= max(plan.outputWidth, 64))
            #expect(plan.tiling.canvasWidth < max(plan.outputWidth, 64) + plan.tiling.alignment)
        }
    }

    @Test("every task of a job holds its own geometry: cell in window in canvas, source in the input, noise at the first step alone")
    func requests() throws {
        let plan = try Self.plan(width: 61, height: 43)
        let input = Rect(y: 0, x: 0, height: 43, width: 61)
        let canvas = Rect(y: 0, x: 0, height: plan.tiling.canvasHeight, width: plan.tiling.canvasWidth)
        #expect(plan.phases == (0..<plan.steps).map { .denoise($0) })
        for step in 0..<plan.steps {
            for tile in 0..<plan.tiling.grid(step: step).count {
                guard case .denoise(let request) = try plan.work(phase: step, tile: tile), case .enlarged(let enlargement) = request.conditioning else {
                    Issue.record("no denoising of an enlarged picture")
                    return
                }
                #expect(canvas.contains(request.window) && request.window.contains(request.cell) && input.contains(enlargement.source))
                #expect(request.sampleIsNoise == (step == 0) && request.step == step && request.seed == 1 && request.answer == .cell)
                #expect(Int(request.timestep) == plan.sampler[step].timestep)
            }
        }
        #expect(plan.sampler[0].timestep == 999, "trailing steps begin at the last timestep")
    }

    @Test("the finished picture is the bicubic guess where the canvas is zero, and moves by half the residual over its scale")
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
            rendering.merge(Frame(floats: Array(repeating: 1, count: work.answerByteCount / 4)), of: work, phase: 0, tile: tile)
        }
        let moved = try rendering.finishedRows(rows)
        guard case .superResolution(let superResolution) = plan.model else { return }
        let gain = 0.5 / superResolution.residualScale
        #expect(zip(moved, guess).allSatisfy { abs($0 - $1 - gain) < 1e-6 })
    }
}
