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
        let folder = try ModelFolder(url: model)
        let plan = try plan(
            ["--scale", "1", "--steps", "1", "--vae-tile", "\(window)"], model: folder, height: input.height,
            width: input.width)
        let job = try SequentialJob(plan, InputImage(input), model: folder.load(precision: .float32))
        for (number, pass) in plan.pipeline.passes.enumerated() where ["encode", "decode"].contains(pass.name) {
            try job.run(
                number..<number + 1,
                change: { task in
                    guard var operation = task.operation as? Autoencode else { return }
                    (operation.signal, operation.noise) = (1, 0)
                    task.operation = operation
                })
        }
        return try job.rows()
    }

    @Test(
        """
        an image of 1024x1024 encoded and decoded in tiles is within 2/255 of the one done in one piece, and steps by \
        less than 1/255 across borders
        """,
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
        let plan = try plan(
            ["--scale", "1", "--steps", "1"], model: ModelFolder(url: model), height: side, width: side)
        let grid = plan.pipeline.passes.last { $0.name == "decode" }?.grid
        let borders = grid?.columns.cells.dropLast().map { $0.upperBound * 8 } ?? []
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
            """
            \(flat ? "flat" : "textured"): largest \(largest * 255)/255, mean \(sum / Double(whole.count) * 255)/255, \
            step \(step * 255)/255, borders \(borders)
            """
        )
        #expect(
            !borders.isEmpty && whole.contains { $0 > 0 && $0 < 1 },
            "a picture that is clamped everywhere shows nothing")
        #expect(largest * 255 < 2 && step * 255 < 1)
    }
}
