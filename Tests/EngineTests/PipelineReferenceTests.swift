import Engine
import Foundation
import Testing

/// Whole pipelines against diffusers, part by part and from end to end on one canvas: `make_pipelines.py` made the cases.
@Suite("pipelines of diffusers") struct PipelineReferenceTests {
    static let cases = ["pipeline-upscale", "pipeline-img2img"]

    private struct Case {
        let pipeline: PipelineFolder
        let tensors: Safetensors
        let settings: [String: Any]
        let seed: UInt64

        init(_ name: String) throws {
            let folder = try caseFolder(name)
            pipeline = try #require(try ModelFolder(url: folder.appending(path: "model")).pipeline)
            tensors = try Safetensors(url: folder.appending(path: "case.safetensors"))
            let json = try JSONSerialization.jsonObject(with: Data(contentsOf: folder.appending(path: "case.json")))
            settings = try #require(json as? [String: Any])
            seed = UInt64(try #require(settings["seed"] as? Int))
        }

        func number(_ key: String) throws -> Float { Float(try #require(settings[key] as? Double)) }

        /// A tensor of 1 x channels x height x width with the channels innermost.
        func image(_ name: String) throws -> Activation {
            let tensor = try tensors.tensor(name)
            let (channels, pixels) = (tensor.shape[1], tensor.shape[2] * tensor.shape[3])
            let result = Activation(height: tensor.shape[2], width: tensor.shape[3], channels: channels)
            var span = result.mutableSpan
            for i in span.indices { span[i] = tensor.values[i % channels * pixels + i / channels] }
            return result
        }

        /// A tensor of 1 x rows x columns.
        func rows(_ name: String) throws -> Activation {
            let tensor = try tensors.tensor(name)
            let result = Activation(height: 1, width: tensor.shape[1], channels: tensor.shape[2])
            var span = result.mutableSpan
            for i in span.indices { span[i] = tensor.values[i] }
            return result
        }
    }

    /// The largest difference over the largest expected value.
    private func error(_ values: Activation, _ expected: Activation) -> Float {
        guard (values.height, values.width, values.channels) == (expected.height, expected.width, expected.channels) else { return .infinity }
        let (a, b) = (values.span, expected.span)
        return a.indices.reduce(0) { max($0, abs(a[$1] - b[$1])) } / b.indices.reduce(0) { max($0, abs(b[$1])) }
    }

    private func mapped(_ a: Activation, _ b: Activation? = nil, _ body: (Float, Float) -> Float) -> Activation {
        let result = Activation(height: a.height, width: a.width, channels: a.channels)
        var span = result.mutableSpan
        for i in span.indices { span[i] = body(a.span[i], b?.span[i] ?? 0) }
        return result
    }

    private func noise(_ purpose: NoiseField.Purpose, like other: Activation, seed: UInt64) -> Activation {
        let result = Activation(height: other.height, width: other.width, channels: other.channels)
        var span = result.mutableSpan
        Noise.fill(
            &span, window: Rect(y: 0, x: 0, height: other.height, width: other.width), channels: other.channels, seed: seed,
            field: NoiseField(purpose))
        return result
    }

    @Test("prompts become the same tokens and the same embeddings", arguments: cases)
    func prompts(name: String) throws {
        let reference = try Case(name)
        let tokenizer = try CLIPTokenizer(folder: reference.pipeline.tokenizer)
        for precision in [Precision.float32, .float16] {
            let encoder = try CLIPText(folder: reference.pipeline.textEncoder, precision: precision)
            for (key, ids, embeddings) in [
                ("prompt", "out.ids", "out.prompt_embeds"), ("negative_prompt", "out.negative_ids", "out.negative_prompt_embeds"),
            ] {
                let text = try #require(reference.settings[key] as? String)
                let encoded = try tokenizer.encode(text)
                #expect(encoded.ids == (try reference.tensors.integers(ids)))
                #expect(encoded.dropped == nil)
                let states = try encoder.encode(ids: encoded.ids, workspace: Workspace())
                #expect(error(states, try reference.rows(embeddings)) < 2e-6)
            }
        }
    }

    @Test("the reference was given the engine's noise and its enlarged image", arguments: cases)
    func given(name: String) throws {
        let reference = try Case(name)
        for (tensor, purpose) in [
            ("in.initial_noise", NoiseField.Purpose.initial), ("in.low_resolution_noise", .lowResolution), ("in.posterior_noise", .posterior),
        ] where reference.tensors.names.contains(tensor) {
            let expected = try reference.image(tensor)
            #expect(error(noise(purpose, like: expected, seed: reference.seed), expected) < 1e-6)
        }
        if reference.pipeline.kind == .imageToImage {
            let expected = try reference.image("in.enlarged")
            #expect(error(try enlarged(try reference.image("in.image"), like: expected), expected) < 1e-6)
        }
    }

    private func enlarged(_ image: Activation, like other: Activation) throws -> Activation {
        let result = Activation(height: other.height, width: other.width, channels: other.channels)
        var span = result.mutableSpan
        try BicubicUpsampler(inputHeight: image.height, inputWidth: image.width, outputHeight: other.height, outputWidth: other.width).upsample(
            crop: image.span, cropRect: Rect(y: 0, x: 0, height: image.height, width: image.width), channels: image.channels,
            window: Rect(y: 0, x: 0, height: other.height, width: other.width), into: &span)
        return result
    }

    /// x sqrt(alpha) + noise sqrt(1 - alpha) at a timestep.
    private func noised(_ x: Activation, _ noise: Activation, _ schedule: NoiseSchedule, at timestep: Int) -> Activation {
        let alpha = schedule.alphasCumprod[timestep]
        return mapped(x, noise) { Float(alpha.squareRoot()) * $0 + Float((1 - alpha).squareRoot()) * $1 }
    }

    @Test("latents after 1, 5 and 20 steps and the pixels are those of diffusers", arguments: cases)
    func endToEnd(name: String) throws {
        let reference = try Case(name)
        let pipeline = reference.pipeline, workspace = Workspace()
        let unet = try UNet2DCondition(folder: pipeline.unet), vae = try AutoencoderKL(folder: pipeline.vae)
        let text = try CLIPText(folder: pipeline.textEncoder)
        let positive = try text.encode(ids: try reference.tensors.integers("out.ids"), workspace: workspace)
        let negative = try text.encode(ids: try reference.tensors.integers("out.negative_ids"), workspace: workspace)
        let schedule = try NoiseSchedule(pipeline.schedule)
        let image = try reference.image("in.image")
        let guidance = try reference.number("guidance_scale")

        // What stands beside the latents, and what sampling starts from at a timestep.
        let beside: Activation?
        let start: (Int) -> Activation
        if let low = pipeline.lowResolutionSchedule {
            let pixels = mapped(image) { x, _ in 2 * x - 1 }
            let noisy = noised(
                pixels, noise(.lowResolution, like: pixels, seed: reference.seed), try NoiseSchedule(low), at: Int(try reference.number("noise_level")))
            #expect(error(noisy, try reference.image("out.low_resolution")) < 1e-6)
            beside = noisy
            let initial = noise(.initial, like: try reference.image("in.initial_noise"), seed: reference.seed)
            start = { _ in initial }
        } else {
            let large = try enlarged(image, like: try reference.image("in.enlarged"))
            let moments = try vae.encode(mapped(large) { x, _ in 2 * x - 1 }, workspace: workspace)
            let expected = try reference.image("out.encoded")
            let random = noise(.posterior, like: expected, seed: reference.seed)
            let encoded = Activation(height: expected.height, width: expected.width, channels: expected.channels)
            var span = encoded.mutableSpan
            for i in span.indices {
                let at = i / expected.channels * moments.channels + i % expected.channels
                let logVariance = min(max(moments.span[at + expected.channels], -30), 20)
                span[i] = (moments.span[at] + exp(logVariance / 2) * random.span[i]) * pipeline.scalingFactor
            }
            #expect(error(encoded, expected) < 1e-5)
            beside = nil
            start = { noised(encoded, noise(.initial, like: encoded, seed: reference.seed), schedule, at: $0) }
        }

        for steps in [1, 5, 20] {
            let strength = pipeline.kind == .imageToImage ? Double(try reference.number("strength")) : 1
            let count = try #require((1...100).first { Int(Double($0) * strength + 1e-6) == steps })
            let plan = try schedule.plan(.ddim(eta: 0), steps: count).suffix(steps)
            #expect(plan.map(\.timestep) == (try reference.tensors.integers("out.\(steps).timesteps")))
            var latents = start(try #require(plan.first).timestep)
            for step in plan {
                let input = Activation(height: latents.height, width: latents.width, channels: latents.channels + (beside?.channels ?? 0))
                var span = input.mutableSpan
                for i in span.indices {
                    let (pixel, channel) = (i / input.channels, i % input.channels)
                    span[i] = channel < latents.channels ? latents.span[pixel * latents.channels + channel]
                        : (beside.map { $0.span[pixel * $0.channels + channel - latents.channels] } ?? 0)
                }
                func predict(_ text: Activation) throws -> Activation {
                    let output = Activation(height: latents.height, width: latents.width, channels: latents.channels)
                    try unet.predict(
                        input, timestep: Float(step.timestep), encoderHiddenStates: text,
                        classLabel: beside == nil ? nil : Int(try reference.number("noise_level")), into: output, workspace: workspace)
                    return output
                }
                let prediction = mapped(try predict(positive), try predict(negative)) { $1 + guidance * ($0 - $1) }
                let next = Activation(height: latents.height, width: latents.width, channels: latents.channels)
                var values = next.mutableSpan
                step.coefficients.apply(sample: latents.span, prediction: prediction.span, noise: prediction.span, into: &values)
                latents = next
            }
            #expect(error(latents, try reference.image("out.\(steps).latents")) < 1e-4, "\(steps) steps")
            let decoded = try vae.decode(mapped(latents) { x, _ in x / pipeline.scalingFactor }, workspace: workspace)
            #expect(error(decoded, try reference.image("out.\(steps).image")) < 1e-4, "\(steps) steps")
        }
    }
}
