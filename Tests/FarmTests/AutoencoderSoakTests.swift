import Coordinator
import Engine
import Foundation
import Protocol
import Testing
import Worker

/// The autoencoder in tiles at its real size: minutes, and a folder that is not in the repository. `make soak
/// MODEL=DIR` runs it on an image-to-image pipeline.
@Suite("Soak")
struct AutoencoderSoakTests {
    static let model = ProcessInfo.processInfo.environment["TILEFARM_SOAK_MODEL"].flatMap { $0.isEmpty ? nil : $0 }

    /// The way into the latents and out again, without denoising between, of an image of 1024x1024.
    static func roundTrip(_ input: RGBImage, window: Int, model: URL) throws -> [Float] {
        let plan = try UpscaleOptions.plan(
            ["--scale", "1", "--steps", "1", "--vae-tile", "\(window)"], folder: ModelFolder(url: model),
            inputHeight: input.height,
            inputWidth: input.width)
        let perform = try Denoiser.load(model, precision: .float32).makeLane()
        let rendering = try Rendering(plan: plan, input: input)
        for (index, phase) in plan.phases.enumerated() {
            switch phase {
            case .encodeText, .denoise: continue
            case .encode, .decode: break
            }
            for tile in 0..<plan.step(index).count {
                guard case .autoencode(var request) = try plan.work(phase: index, tile: tile) else { continue }
                (request.signal, request.noise) = (1, 0)
                let work = Work.autoencode(request)
                rendering.merge(
                    try perform(work, rendering.inputs(of: work, phase: index, tile: tile)).frame, of: work,
                    phase: index, tile: tile)
            }
            rendering.finish(phase: index)
        }
        return try rendering.finishedRows(0..<plan.outputHeight)
    }

    @Test(
        "an image of 1024x1024 encoded and decoded in tiles is within 2/255 of the one done in one piece, and steps by less than 1/255 across borders",
        .enabled(if: model != nil), arguments: [true, false])
    func tiles(flat: Bool) throws {
        let model = URL(filePath: try #require(Self.model)), side = 1024
        var input = RGBImage(width: side, height: side)
        for y in 0..<side {
            for x in 0..<side {
                for c in 0..<3 {
                    let texture = Float((x / 7 + y / 5 + c) % 4) / 5 + Float(x * y % 97) / 400
                    input.pixels[(y * side + x) * 3 + c] =
                        flat ? [0.65, 0.4, 0.78][c] : min(texture + Float(x) / Float(2 * side), 1)
                }
            }
        }
        let whole = try Self.roundTrip(input, window: side / 8, model: model)
        let tiled = try Self.roundTrip(input, window: 64, model: model)
        var largest: Float = 0, sum = 0.0
        for i in whole.indices {
            largest = max(largest, abs(whole[i] - tiled[i]))
            sum += Double(abs(whole[i] - tiled[i]))
        }
        // The error's step across each border of cells, in means of 8x8 pixels.
        let plan = try UpscaleOptions.plan(
            ["--scale", "1", "--steps", "1"], folder: ModelFolder(url: model), inputHeight: side, inputWidth: side)
        let borders = plan.latent?.decoding.last?.grid.columns.cells.dropLast().map { $0.upperBound * 8 } ?? []
        var step = 0.0
        for border in borders {
            for y in stride(from: 0, to: side, by: 8) {
                for c in 0..<3 {
                    var difference = 0.0
                    for dy in 0..<8 {
                        for dx in 0..<8 {
                            let left = ((y + dy) * side + border - 8 + dx) * 3 + c, right = left + 24
                            difference += Double(tiled[right] - whole[right]) - Double(tiled[left] - whole[left])
                        }
                    }
                    step = max(step, abs(difference / 64))
                }
            }
        }
        print(
            "\(flat ? "flat" : "textured"): largest \(largest * 255)/255, mean \(sum / Double(whole.count) * 255)/255, step \(step * 255)/255, borders \(borders)"
        )
        #expect(
            !borders.isEmpty && whole.contains { $0 > 0 && $0 < 1 },
            "a picture that is clamped everywhere shows nothing")
        #expect(largest * 255 < 2 && step * 255 < 1)
    }
}
