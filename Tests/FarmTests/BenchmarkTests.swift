import Foundation
import Testing

/// Inputs that the programs of Benchmarks/ make for the engine, as far as Python's own library makes it.
@Suite("Benchmarks", .serialized)
struct BenchmarkTests {
    private static let python: URL? = ["/usr/bin/python3", "/usr/local/bin/python3"].first {
        FileManager.default.isExecutableFile(atPath: $0)
    }.map { URL(filePath: $0) }

    private static let folder = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Benchmarks")

    private func run(python code: String, _ arguments: String...) throws {
        let python = Process(), errors = Pipe()
        let program: URL = try #require(Self.python)
        python.executableURL = program
        python.arguments = ["-B", "-c", code] + arguments
        python.environment = ProcessInfo.processInfo.environment.merging(["PYTHONPATH": Self.folder.path]) { $1 }
        python.standardError = errors
        try python.run()
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        python.waitUntilExit()
        #expect(python.terminationStatus == 0, "\(text)")
    }

    @Test(
        "the folder that stable_diffusion.py makes around its networks is a pipeline that the engine takes",
        .enabled(if: python != nil, "this machine has no Python"))
    func pipeline() throws {
        let scratch = try Scratch(), model = scratch.url.appending(path: "model")
        // The networks take PyTorch; these are small ones that are there.
        for part in ["unet", "vae", "text_encoder"] {
            try FileManager.default.createDirectory(at: model, withIntermediateDirectories: true)
            try FileManager.default.copyItem(
                at: PipelineCase("img2img").model.appending(path: part), to: model.appending(path: part))
        }
        let config = try scratch.bytes(model.appending(path: "text_encoder/config.json").path)
        let values = try #require(try JSONSerialization.jsonObject(with: config) as? [String: Any])
        let vocabulary = try #require(values["vocab_size"] as? Int)
        try run(
            python: """
                import pathlib, sys, stable_diffusion
                stable_diffusion.make_frame(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
                """, model.path, "\(vocabulary)")
        let bench = try RunningProgram(
            "tilefarm", ["bench", "--model", model.path, "--part", "text", "--lanes", "1", "--seconds", "0.1"])
        #expect(bench.waitForExit(seconds: 30) == 0, "\(bench.standardError)")
        #expect(bench.standardOutput.contains("tiles_per_second"))
        // A job reads the tokenizer too.
        let input = try scratch.picture("in.png", width: 16, height: 16)
        let job = try RunningProgram(
            "tilefarm",
            [
                "upscale", input, "-o", scratch.path("out.png"), "--model", model.path, "--steps", "1", "--prompt",
                "a red fox", "--negative-prompt", "blurry",
            ])
        #expect(job.waitForExit() == 0, "\(job.standardError)")
    }
}
