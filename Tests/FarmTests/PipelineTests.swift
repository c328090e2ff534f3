import Coordinator
import Engine
import Foundation
import Protocol
import Testing
import Worker

/// A case that diffusers has answered: a small pipeline with random weights, and the farm's own noise.
struct PipelineCase {
    let name: String
    let folder: URL
    let tensors: Safetensors
    let settings: [String: Any]

    init(_ name: String) throws {
        self.name = name
        let cases = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(
            path: "EngineTests/Cases")
        folder = cases.appending(path: "pipeline-\(name)")
        tensors = try Safetensors(url: folder.appending(path: "case.safetensors"))
        let json = try JSONSerialization.jsonObject(with: Data(contentsOf: folder.appending(path: "case.json")))
        settings = json as? [String: Any] ?? [:]
    }

    var model: URL { folder.appending(path: "model") }

    /// The options of `tilefarm upscale` that the case was made with, for a run of so many steps.
    func options(steps: Int) -> [String] {
        var options = ["--model", model.path, "--precision", "float32", "--seed", "\(settings["seed"] ?? "")"]
        options += [
            "--prompt", settings["prompt"] as? String ?? "", "--negative-prompt",
            settings["negative_prompt"] as? String ?? "",
        ]
        options += ["--guidance-scale", "\(settings["guidance_scale"] ?? "")"]
        if let level = settings["noise_level"] { options += ["--noise-level", "\(level)"] }
        if let strength = settings["strength"] { options += ["--strength", "\(strength)"] }
        if let scale = settings["scale"] { options += ["--scale", "\(scale)"] }
        let runs = settings["steps"] as? [Int] ?? []
        let counts = settings["num_inference_steps"] as? [Int] ?? runs
        return options + ["--steps", "\(counts[runs.firstIndex(of: steps) ?? 0])"]
    }

    /// Batch x channels x height x width to height x width x channels.
    func image(_ name: String) throws -> (height: Int, width: Int, values: [Float]) {
        let tensor = try tensors.tensor(name)
        let (channels, height, width) = (tensor.shape[1], tensor.shape[2], tensor.shape[3])
        let values = (0..<height * width).flatMap { pixel in
            (0..<channels).map { tensor.values[$0 * height * width + pixel] }
        }
        return (height, width, values)
    }

    func input() throws -> RGBImage {
        let (height, width, values) = try image("in.image")
        return RGBImage(width: width, height: height, pixels: values)
    }
}

/// The largest difference over the largest value.
private func relativeError(_ values: [Float], _ expected: [Float]) -> Float {
    guard values.count == expected.count else { return .infinity }
    let scale = expected.reduce(0) { max($0, abs($1)) }
    guard values.allSatisfy(\.isFinite) else { return .infinity }
    return zip(values, expected).reduce(0) { max($0, abs($1.0 - $1.1)) } / scale
}

@Suite("Pipelines")
struct PipelineTests {
    @Test(
        "latents after 1, 5 and 20 steps and the pixels are those of diffusers, to a thousandth",
        arguments: ["upscale", "img2img"], [1, 5, 20])
    func diffusers(name: String, steps: Int) throws {
        let reference = try PipelineCase(name)
        let image = try reference.input(), folder = try ModelFolder(url: reference.model)
        let plan = try plan(
            reference.options(steps: steps), model: folder, height: image.height, width: image.width)
        #expect(plan.steps == steps)
        #expect(
            (0..<steps).map { plan.sampler[$0].timestep } == (try reference.tensors.integers("out.\(steps).timesteps")))
        let job = try SequentialJob(plan, InputImage(image), model: folder.load(precision: plan.precision))
        try job.run(look: { pass, number in
            guard pass.step == steps - 1 else { return }
            let latents = try job.latents(before: number + 1)
            #expect(relativeError(latents, try reference.image("out.\(steps).latents").values) < 1e-3)
        })
        let expected = try reference.image("out.\(steps).image")
        let pixels = expected.values.map { min(max($0 / 2 + 0.5, 0), 1) }
        #expect(relativeError(try job.rows(0..<expected.height), pixels) < 1e-3)
    }

    @Test(
        "a picture decoded and encoded in tiles is the one done in one piece, through both pipelines",
        arguments: ["upscale", "img2img"])
    func tiledAutoencoder(name: String) throws {
        let reference = try PipelineCase(name)
        let small = try reference.input()
        let input = RGBImage(
            width: 44, height: 40, pixels: (0..<40 * 44 * 3).map { small.pixels[$0 % small.pixels.count] })
        func pixels(_ window: String) throws -> [Float] {
            let folder = try ModelFolder(url: reference.model)
            let plan = try plan(
                reference.options(steps: 1) + (name == "img2img" ? ["--scale", "8"] : []) + ["--vae-tile", window],
                model: folder, height: input.height, width: input.width)
            #expect(plan.pipeline.passes.count { $0.name == "decode" } > 1 || window == "64")
            let job = try SequentialJob(plan, InputImage(input), model: folder.load(precision: plan.precision))
            try job.run()
            return try job.rows()
        }
        let (tiled, whole) = (try pixels("32"), try pixels("64"))
        let largest = zip(tiled, whole).reduce(Float(0)) { max($0, abs($1.0 - $1.1)) }
        #expect(tiled.count == whole.count && !tiled.isEmpty && largest * 255 < 2, "\(largest * 255) of 255")
    }

    @Test("a prompt that is too long is cut, and the log says which part is not used")
    func longPrompt() throws {
        let reference = try PipelineCase("upscale")
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 16, height: 16)
        let prompt = String(repeating: "old castle ", count: 60) + "with dragons"
        let farm = try RunningProgram(
            "tilefarm",
            [
                "upscale", input, "-o", scratch.path("out.png"), "--model", reference.model.path, "--steps", "1",
                "--prompt", prompt,
            ])
        #expect(farm.waitForExit() == 0)
        #expect(farm.standardError.contains("longer than 75 tokens") && farm.standardError.contains("castle"))
        // Of so many in all: 122 words, each of several letters' tokens in this small vocabulary.
        let tokens = try CLIPTokenizer(folder: reference.model.appending(path: "tokenizer")).tokenCount(of: prompt)
        #expect(tokens > 122 && farm.standardError.contains("it has \(tokens),"), "\(farm.standardError)")
        #expect(!farm.standardError.contains("negative"))
        // Which of the two it is, too.
        let negative = try RunningProgram(
            "tilefarm",
            [
                "upscale", input, "-o", scratch.path("out.png"), "--model", reference.model.path, "--steps", "1",
                "--negative-prompt", prompt,
            ])
        #expect(negative.waitForExit() == 0)
        #expect(
            negative.standardError.contains(
                "the negative prompt is longer than 75 tokens and was cut; it has \(tokens),"),
            "\(negative.standardError)")
    }

    @Test("a machine that cannot hold the model is refused in words before it loads anything, and the job goes on")
    func tooSmall() throws {
        let reference = try PipelineCase("upscale")
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 16, height: 16)
        let farm = try BoundFarm(scratch, input, ["--model", reference.model.path, "--steps", "1"])
        let socket = try DealerSocket(SocketContext(), connect: Endpoint(farm.endpoint))
        let hello = Hello(
            session: 1, name: "small", host: "small", lanes: 2, kernels: "avx2", memoryBytes: 16 << 20, credit: 4,
            blobBytes: 0)
        try socket.deliver(WorkerMessage.hello(hello).frames())
        let reason = try socket.next { if case .refused(let reason) = $0 { reason } else { nil } }
        #expect(
            reason.contains("16.0 MiB") && reason.contains("2 lanes") && reason.contains("--lanes")
                && !reason.contains("\n"))
        let worker = try farm.worker("large", lanes: 2)
        #expect(farm.program.waitForExit() == 0, "\(farm.program.standardError)")
        farm.dismiss(worker)
    }

    @Test("model says what a folder is, plan what a job with it would take", arguments: ["upscale", "img2img"])
    func words(name: String) throws {
        let reference = try PipelineCase(name)
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 100, height: 80)
        let model = try RunningProgram("tilefarm", ["model", reference.model.path])
        #expect(model.waitForExit() == 0, "\(model.standardError)")
        let kind = name == "upscale" ? "StableDiffusionUpscalePipeline" : "StableDiffusionPipeline"
        for word in [
            kind, "UNet2DConditionModel", "AutoencoderKL", "CLIPTextModel", "parameters", "GFLOP", "float16",
            "--prompt",
        ] {
            #expect(model.standardOutput.contains(word), "\(word): \(model.standardOutput)")
        }
        let plan = try RunningProgram("tilefarm", ["plan", input, "--model", reference.model.path, "--steps", "3"])
        #expect(plan.waitForExit() == 0, "\(plan.standardError)")
        for word in ["400x320", "latents", "decode", "passes", "memory", "time"] {
            #expect(plan.standardOutput.contains(word), "\(word): \(plan.standardOutput)")
        }
    }

    @Test(
        "the programs render a pipeline folder, and the picture is that of diffusers to one step of a byte",
        arguments: ["upscale", "img2img"])
    func program(name: String) throws {
        let reference = try PipelineCase(name)
        let scratch = try Scratch()
        let image = try reference.input()
        let input = scratch.path("in.png"), output = scratch.path("out.png")
        let writer = try PNGWriter(
            path: input, width: image.width, height: image.height, bitDepth: 8, grey: false, alpha: false)
        for row in 0..<image.height {
            try writer.writeRow(
                rgb: image.pixels.span.extracting(row * image.width * 3..<(row + 1) * image.width * 3),
                alpha: [Float]().span)
        }
        try writer.finish()

        let farm = try RunningProgram("tilefarm", ["upscale", input, "-o", output] + reference.options(steps: 5))
        #expect(farm.waitForExit() == 0, "\(farm.standardError)")
        let rendered = try RGBImage(reading: PNGReader(path: output))
        let expected = try reference.image("out.5.image")
        #expect((rendered.height, rendered.width) == (expected.height, expected.width))
        let difference = zip(rendered.pixels, expected.values).reduce(0) {
            max($0, abs($1.0 - min(max($1.1 / 2 + 0.5, 0), 1)))
        }
        #expect(difference * 255 <= 1)
    }
}
