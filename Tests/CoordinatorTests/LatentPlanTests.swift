import Coordinator
import Engine
import Foundation
import Testing

/// Plans of latent models: texts and the autoencoder's tiles around the sampler's steps.
@Suite("Latent plans")
struct LatentPlanTests {
    static func model(_ name: String) throws -> ModelFolder {
        let cases = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(
            path: "EngineTests/Cases")
        return try ModelFolder(url: cases.appending(path: "pipeline-\(name)/model"))
    }

    static func plan(_ arguments: [String], _ model: ModelFolder, height: Int, width: Int) throws -> JobPlan {
        try MethodTable.standard.plan(
            UpscaleOptions.request(arguments), PlanContext(model: model, inputHeight: height, inputWidth: width))
    }

    @Test(
        """
        a latent job encodes text, encodes pictures if it begins with one, denoises, and decodes norm by norm; every \
        task fits its frames
        """)
    func passes() throws {
        for (name, arguments) in [("upscale", []), ("img2img", ["--scale", "8", "--strength", "0.5"])] {
            let model = try Self.model(name)
            let plan = try Self.plan(["--steps", "4"] + arguments, model, height: 70, width: 90)
            let vae = try #require(model.pipeline).vaeConfiguration
            let norms = vae.norms(.decode, .detail).count, passes = plan.pipeline.passes
            #expect(passes.count { $0.name == "decode" } == norms + 2, "the trunk, every norm, the pixels")
            #expect(passes.first?.name == "text" && passes.count { $0.name == "text" } == 2)
            #expect(passes.last?.name == "decode" && passes.last?.count == passes.last?.grid?.count)
            #expect(plan.steps == (name == "upscale" ? 4 : 2))
            #expect(passes.contains { $0.name == "encode" } == (name == "img2img"))
            let canvas = Rect(y: 0, x: 0, height: plan.tiling.canvasHeight, width: plan.tiling.canvasWidth)
            for pass in passes {
                guard case .task(let operation) = pass.work else { continue }
                for tile in 0..<pass.count {
                    let operation = try operation(tile)
                    #expect(operation.outputs.allSatisfy { $0.byteCount <= plan.sizes.largestOutput })
                    if let request = operation as? Autoencode {
                        #expect(canvas.contains(request.window) && request.window.contains(request.cell))
                    }
                    if operation is DenoiseLatents {
                        let isNoise = if case .noise = pass.reads[0].delivery { true } else { false }
                        #expect(isNoise == (name == "upscale" && pass.step == 0))
                    }
                }
            }
        }
    }

    @Test(
        """
        windows that no frame could carry are refused when the plan is made, and the field is named; those that the \
        canvas cuts short are not
        """)
    func windowTooLarge() throws {
        let model = try Self.model("img2img"), vae = try #require(model.pipeline).vaeConfiguration
        func plan(_ options: [String], side: Int) throws -> JobPlan {
            try Self.plan(["--scale", "4", "--steps", "1"] + options, model, height: side / 4, width: side / 4)
        }
        // Pixels and features of a window, 4 bytes a value, in 256 MiB.
        let values = max(3 * vae.factor * vae.factor, vae.featureChannels(.decode), vae.featureChannels(.encode))
        let most = Int((Double(64 << 20) / Double(values)).squareRoot())
        try #require((65...1000).contains(most), "the case's autoencoder does not reach the limit")
        for tile in [most + 1, 1024] {
            let error = #expect(throws: RequestError.self) {
                try plan(["--vae-tile", "\(tile)"], side: 1100 * vae.factor)
            }
            guard case .windowTooLarge(.autoencoderTile, _, _) = error else {
                Issue.record("\(String(describing: error))")
                continue
            }
        }
        _ = try plan(["--vae-tile", "1024"], side: 60 * vae.factor)
        let large = try plan(["--vae-tile", "\(most)"], side: 1100 * vae.factor)
        #expect(large.sizes.largestFrame <= TaskLimits.tensorBytes)
    }

    @Test(
        """
        statistics of a canvas of many tiles come from some that are spread over it, and a huge canvas leaves the \
        attention to its windows
        """)
    func sweeps() throws {
        let autoencoder = try #require(Self.model("img2img").pipeline).vaeConfiguration
        let tiling = AutoencoderTiling()
        let large = try AutoencoderSweep.sweeps(.decode, tiling, autoencoder, height: 256, width: 256)
        #expect(
            large.first?.layers == .trunk && large[1].tiles.count == tiling.statisticsTiles
                && large.last?.tiles.count == large.last?.grid.count)
        #expect(
            Set(large[1].tiles).count == tiling.statisticsTiles
                && large[1].tiles.allSatisfy { $0 < large[1].grid.count })
        let huge = try AutoencoderSweep.sweeps(.decode, tiling, autoencoder, height: 2000, width: 300)
        #expect(huge.allSatisfy { $0.layers == .all } && huge.count == autoencoder.decoderNorms + 1)
        let small = try AutoencoderSweep.sweeps(.decode, tiling, autoencoder, height: 64, width: 40)
        #expect(small.count == 1 && small[0].givenNorms == 0 && small[0].layers == .all)
    }

    @Test("what many tasks share travels as blobs: embeddings, and what an autoencoder's tile begins with")
    func blobs() throws {
        let plan = try Self.plan(
            ["--scale", "8", "--strength", "0.5", "--steps", "4"], Self.model("img2img"), height: 70, width: 90)
        for pass in plan.pipeline.passes {
            switch pass.name {
            case "denoise": #expect(pass.reads.dropFirst().allSatisfy { $0.delivery == .blob } && pass.reads.count == 3)
            case "encode" where pass.affinity != nil, "decode" where pass.affinity != nil:
                #expect(pass.reads[0].delivery == .blob)
            default: #expect(pass.reads.allSatisfy { $0.delivery == .frame })
            }
        }
    }
}
