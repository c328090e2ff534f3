import Engine
import Foundation
import Testing

@Suite struct UNet2DConditionTests {
    static let cases = ["unet-four-levels", "unet-inpainting-float16", "unet-sharded-bfloat16", "unet-one-level"]

    private static func load(_ name: String, precision: Precision = .float32, kernels: KernelSet? = nil) throws
        -> UNet2DCondition
    {
        try UNet2DCondition(
            folder: NetworkFolder(url: Case.folder(name).appending(path: "model")), precision: precision,
            kernels: kernels)
    }

    /// The inputs of a case's number `index`.
    private static func inputs(_ name: String, _ index: Int) throws -> (
        sample: Activation, timestep: Float, text: Activation, label: Int?, expected: Activation
    ) {
        let tensors = try Safetensors(url: Case.folder(name).appending(path: "case.safetensors"))
        let text = try tensors.tensor("in.\(index).encoder_hidden_states")
        let states = Activation(height: 1, width: text.shape[1], channels: text.shape[2])
        var span = states.mutableSpan
        for i in span.indices { span[i] = text.values[i] }
        return (
            Activation(try tensors.tensor("in.\(index).sample"), image: 0),
            Float(try tensors.integers("in.\(index).timestep")[0]), states,
            tensors.names.contains("in.\(index).class_labels")
                ? try tensors.integers("in.\(index).class_labels")[0] : nil,
            Activation(try tensors.tensor("out.\(index).sample"), image: 0)
        )
    }

    @Test("predictions equal those of diffusers, with every kernel set", arguments: cases, KernelSet.available)
    func matchesDiffusers(name: String, kernels: KernelSet) throws {
        let unet = try Self.load(name, kernels: kernels)
        for index in 0..<(name == "unet-four-levels" ? 3 : 1) {
            let (sample, timestep, text, label, expected) = try Self.inputs(name, index)
            let output = Activation(height: sample.height, width: sample.width, channels: 4)
            try unet.predict(
                sample, timestep: timestep, encoderHiddenStates: text, classLabel: label, into: output,
                workspace: Workspace())
            #expect(relativeError(output, expected) < 2e-5)
        }
    }

    @Test("weights that are half precision in the file may stay so in memory, and lose nothing")
    func float16() throws {
        let unet = try Self.load("unet-inpainting-float16", precision: .float16)
        let (sample, timestep, text, _, expected) = try Self.inputs("unet-inpainting-float16", 0)
        let output = Activation(height: sample.height, width: sample.width, channels: 4)
        try unet.predict(sample, timestep: timestep, encoderHiddenStates: text, into: output, workspace: Workspace())
        #expect(relativeError(output, expected) < 2e-5)
    }

    @Test("a prediction has the same bits after any other, of any size, and takes no memory after the first")
    func deterministic() throws {
        let unet = try Self.load("unet-four-levels")
        let workspace = Workspace()
        func predict(_ index: Int) throws -> [UInt32] {
            let (sample, timestep, text, _, _) = try Self.inputs("unet-four-levels", index)
            let output = Activation(height: sample.height, width: sample.width, channels: 4)
            try unet.predict(sample, timestep: timestep, encoderHiddenStates: text, into: output, workspace: workspace)
            let span = output.span
            return span.indices.map { span[$0].bitPattern }
        }
        let expected = try [predict(0), predict(1)]
        let memory = workspace.allocatedBytes
        for index in [0, 1, 1, 0] { #expect(try predict(index) == expected[index]) }
        #expect(workspace.allocatedBytes == memory)
    }

    @Test("the count of operations is that of the definition")
    func flops() throws {
        // By hooks on torch.nn.Conv2d, torch.nn.Linear (but those of the time embedding) and
        // scaled_dot_product_attention.
        let four = try Self.load("unet-four-levels").configuration
        #expect(four.alignment == 8)
        #expect(four.flops(height: 13, width: 21, tokens: 5) == 25_481_472)
        #expect(try Self.load("unet-sharded-bfloat16").configuration.flops(height: 6, width: 8, tokens: 5) == 1_980_672)
    }

    @Test(
        "an option that the engine does not have is a named error, never ignored",
        arguments: [
            ("act_fn", "gelu"), ("time_embedding_type", "fourier"), ("class_embed_type", "timestep"),
            ("resnet_time_scale_shift", "scale_shift"),
            ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn"), ("addition_embed_type", "text_time"),
            ("encoder_hid_dim_type", "text_proj"),
            ("attention_type", "gated"), ("cross_attention_norm", "layer_norm"), ("time_embedding_act_fn", "silu"),
            ("_class_name", "UNet2DModel"),
        ])
    func unsupported(option: String, value: String) throws {
        let error = try #require(try configurationError { $0[option] = value })
        guard case .unsupported(_, option, value, _) = error else {
            Issue.record("\(error)")
            return
        }
        #expect(!error.description.contains("\n"))
    }

    @Test("options that contradict each other, or any model, are named errors")
    func malformed() throws {
        func option(_ change: @escaping (inout [String: Any]) -> Void) throws -> String? {
            switch try configurationError(change) {
            case .malformed(_, let option, _), .unsupported(_, let option, _, _): option
            default: nil
            }
        }
        #expect(try option { $0["norm_num_groups"] = 7 } == "norm_num_groups")
        #expect(
            try option {
                $0["norm_num_groups"] = NSNull(); $0["block_out_channels"] = [8, 8, 8, 16]
            } == "norm_num_groups")  // the default, 32
        #expect(try option { $0["block_out_channels"] = [Int]() } == "block_out_channels")
        #expect(try option { $0["block_out_channels"] = [8, 8, -8, 16] } == "block_out_channels")
        #expect(try option { $0["attention_head_dim"] = 3 } == "attention_head_dim")
        #expect(try option { $0["attention_head_dim"] = [1, 2] } == "attention_head_dim")
        #expect(
            try option { $0["transformer_layers_per_block"] = [[1], [1], [1], [1]] } == "transformer_layers_per_block")
        #expect(try option { $0["cross_attention_dim"] = [12, 12, 12, 12] } == "cross_attention_dim")
        #expect(try option { $0["layers_per_block"] = [1, 2, 0, 1] } == "layers_per_block")
        #expect(try option { $0["only_cross_attention"] = [true] } == "only_cross_attention")
        #expect(try option { $0["num_class_embeds"] = 0 } == "num_class_embeds")
        #expect(try option { $0["num_attention_heads"] = 8 } == "num_attention_heads")
        #expect(try option { $0["dual_cross_attention"] = true } == "dual_cross_attention")
        #expect(try option { $0["conv_in_kernel"] = 5 } == "conv_in_kernel")
        #expect(try option { $0["mid_block_scale_factor"] = 1.5 } == "mid_block_scale_factor")
        #expect(try option { $0["downsample_padding"] = 0 } == "downsample_padding")
        #expect(try option { $0["down_block_types"] = ["DownBlock2D"] } == "down_block_types")
        #expect(
            try option { $0["up_block_types"] = ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"] }
                == "up_block_types")
        #expect(try configurationError { $0["rotary"] = true } == .unknownOption(file: "config.json", option: "rotary"))
        #expect(
            try configurationError {
                $0["upcast_attention"] = true; $0["sample_size"] = [64, 96]; $0["_name_or_path"] = "x"
            } == nil)
    }

    /// The fault of the configuration of unet-four-levels after `change`; the file's name without its folder.
    private func configurationError(_ change: (inout [String: Any]) -> Void) throws -> ModelError? {
        let original = try Data(contentsOf: Case.folder("unet-four-levels").appending(path: "model/config.json"))
        var options = try #require(try JSONSerialization.jsonObject(with: original) as? [String: Any])
        change(&options)
        return try withTemporaryFolder { folder in
            let file = folder.appending(path: "config.json")
            try JSONSerialization.data(withJSONObject: options).write(to: file)
            do {
                _ = try UNet2DConditionConfiguration(file: file)
                return nil
            } catch let error as ModelError {
                if case .unknownOption(_, let option) = error {
                    return .unknownOption(file: "config.json", option: option)
                }
                return error
            }
        }
    }

    @Test("a configuration of few options has the defaults of diffusers")
    func defaults() throws {
        try withTemporaryFolder { folder in
            let file = folder.appending(path: "config.json")
            try Data(#"{"_class_name": "UNet2DConditionModel"}"#.utf8).write(to: file)
            let configuration = try UNet2DConditionConfiguration(file: file)
            #expect(configuration.blockOutChannels == [320, 640, 1280, 1280])
            #expect(configuration.layersPerBlock == [2, 2, 2, 2])
            #expect(configuration.downAttention == [true, true, true, false])
            #expect(configuration.upAttention == [true, true, true, false])
            #expect(configuration.heads == [8, 8, 8, 8])
            #expect(configuration.crossAttentionDim == 1280)
            #expect(configuration.timeEmbeddingDim == 1280)
        }
    }

    @Test("weights of another model, and inputs that do not fit, are named errors")
    func wrongInputs() throws {
        try withTemporaryFolder { folder in
            let from = try Case.folder("unet-four-levels").appending(path: "model")
            try FileManager.default.copyItem(
                at: from.appending(path: "config.json"), to: folder.appending(path: "config.json"))
            let weights = "diffusion_pytorch_model.safetensors"
            try FileManager.default.copyItem(
                at: try Case.folder("unet-one-level").appending(path: "model/" + weights),
                to: folder.appending(path: weights))
            let error = try #require(throws: SafetensorsError.self) {
                try UNet2DCondition(folder: NetworkFolder(url: folder))
            }
            #expect(["missingTensor", "wrongShape"].contains(caseName(error)))
        }
        let unet = try Self.load("unet-sharded-bfloat16")
        let sample = Activation(height: 4, width: 4, channels: 4), text = Activation(height: 1, width: 2, channels: 12)
        let output = Activation(height: 4, width: 4, channels: 4)
        func error(_ sample: Activation, _ text: Activation, _ label: Int?, _ output: Activation) throws -> String {
            caseName(
                try #require(throws: ModelError.self) {
                    try unet.predict(
                        sample, timestep: 0, encoderHiddenStates: text, classLabel: label, into: output,
                        workspace: Workspace())
                })
        }
        #expect(try error(Activation(height: 4, width: 4, channels: 5), text, 1, output) == "wrongShape")
        #expect(try error(Activation(height: 0, width: 4, channels: 4), text, 1, output) == "wrongShape")
        #expect(try error(sample, Activation(height: 1, width: 2, channels: 13), 1, output) == "wrongShape")
        #expect(try error(sample, Activation(height: 1, width: 0, channels: 12), 1, output) == "wrongShape")
        #expect(try error(sample, text, 1, Activation(height: 4, width: 5, channels: 4)) == "wrongShape")
        for label in [nil, -1, 7, Int.max] { #expect(try error(sample, text, label, output) == "wrongClass") }
        let without = try Self.load("unet-one-level")
        #expect(throws: ModelError.wrongClass(label: 0, count: nil)) {
            try without.predict(
                sample, timestep: 0, encoderHiddenStates: text, classLabel: 0, into: output, workspace: Workspace())
        }
    }
}
