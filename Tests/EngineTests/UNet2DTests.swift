import Engine
import Foundation
import Testing

@Suite struct UNet2DTests {
    @Test(
        "predictions equal those of diffusers, with every kernel set", arguments: ["unet2d-sr", "unet2d-ddpm-cifar"],
        KernelSet.available)
    func matchesDiffusers(name: String, kernels: KernelSet) throws {
        let folder = try Case.folder(name)
        let unet = try UNet2D(folder: NetworkFolder(url: folder.appending(path: "model")), kernels: kernels)
        let tensors = try Safetensors(url: folder.appending(path: "case.safetensors"))
        let workspace = Workspace()
        for i in 0..<2 {
            let sample = try tensors.tensor("in.\(i).sample"), expected = try tensors.tensor("out.\(i).sample")
            let timestep = Float(try tensors.integers("in.\(i).timestep")[0])
            for image in 0..<sample.shape[0] {
                let input = Activation(sample, image: image)
                let output = Activation(
                    height: input.height, width: input.width, channels: unet.configuration.outChannels)
                try unet.predict(input, timestep: timestep, into: output, workspace: workspace)
                let error = relativeError(output, Activation(expected, image: image))
                #expect(error < 2e-5)
            }
        }
    }

    @Test("a prediction has the same bits after any other, in any lane, and takes no memory after the first")
    func deterministic() async throws {
        let folder = try Case.folder("unet2d-ddpm-cifar")
        let unet = try UNet2D(folder: NetworkFolder(url: folder.appending(path: "model")))
        let tensors = try Safetensors(url: folder.appending(path: "case.safetensors"))
        let tensor = try tensors.tensor("in.1.sample")

        @Sendable func predict(_ workspace: Workspace, image: Int) throws -> [UInt32] {
            let input = Activation(tensor, image: image)
            let output = Activation(height: input.height, width: input.width, channels: unet.configuration.outChannels)
            try unet.predict(input, timestep: 500, into: output, workspace: workspace)
            let span = output.span
            return span.indices.map { span[$0].bitPattern }
        }
        let expected = try [predict(Workspace(), image: 0), predict(Workspace(), image: 1)]
        #expect(expected[0] != expected[1])

        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<4 {
                group.addTask { () throws -> Void in
                    let workspace = Workspace()
                    let first = try predict(workspace, image: lane % 2)
                    #expect(first == expected[lane % 2])
                    let memory = workspace.allocatedBytes
                    for tile in 0..<4 {
                        let next = try predict(workspace, image: tile % 2)
                        #expect(next == expected[tile % 2])
                    }
                    #expect(workspace.allocatedBytes == memory)
                }
            }
            try await group.waitForAll()
        }
    }

    @Test("the count of operations is that of the definition")
    func flops() throws {
        // 2 * outputs * inputs * size^2 for each position, summed over torch.nn.Conv2d of diffusers' UNet2DModel by a
        // forward hook.
        let sr = try UNet2DConfiguration(file: Case.folder("unet2d-sr").appending(path: "model/config.json"))
        #expect(sr.flops(height: 64, width: 64) == 1_549_664_256)
        #expect(sr.alignment == 4)
        let cifar = try UNet2DConfiguration(file: Case.folder("unet2d-ddpm-cifar").appending(path: "model/config.json"))
        #expect(cifar.flops(height: 32, width: 48) == 1_063_059_456)
    }

    @Test(
        "an option that the engine does not have is a named error, never ignored",
        arguments: [
            ("act_fn", "mish"), ("time_embedding_type", "fourier"), ("class_embed_type", "timestep"),
            ("resnet_time_scale_shift", "spatial"),
            ("mid_block_type", "UNetMidBlock2DCrossAttn"), ("downsample_type", "resnet"), ("upsample_type", "resnet"),
            ("_class_name", "UNet1DModel"),
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
            guard case .malformed(_, let option, _) = try configurationError(change) else { return nil }
            return option
        }
        #expect(try option { $0["norm_num_groups"] = 7 } == "norm_num_groups")
        #expect(try option { $0["norm_num_groups"] = 0 } == "norm_num_groups")
        #expect(try option { $0["block_out_channels"] = [Int]() } == "block_out_channels")
        #expect(try option { $0["block_out_channels"] = [32, -48, 64] } == "block_out_channels")
        #expect(try option { $0["block_out_channels"] = "wide" } == "block_out_channels")
        #expect(try option { $0["in_channels"] = 1e18 } == "in_channels")
        #expect(try option { $0["layers_per_block"] = 0 } == "layers_per_block")
        #expect(try option { $0["down_block_types"] = ["DownBlock2D"] } == "down_block_types")
        #expect(
            try option {
                $0["add_attention"] = true; $0["attention_head_dim"] = 7
            } == "attention_head_dim")
        #expect(try option { $0["freq_shift"] = 16 } == "freq_shift")
        #expect(try configurationError { $0["rotary"] = true } == .unknownOption(file: "config.json", option: "rotary"))
        #expect(try configurationError { _ in } == nil)
    }

    /// The fault of the configuration of unet2d-sr after `change`; the file's name without its folder.
    private func configurationError(_ change: (inout [String: Any]) -> Void) throws -> ModelError? {
        let original = try Data(contentsOf: Case.folder("unet2d-sr").appending(path: "model/config.json"))
        var options = try #require(try JSONSerialization.jsonObject(with: original) as? [String: Any])
        change(&options)
        let folder = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appending(path: "config.json")
        try JSONSerialization.data(withJSONObject: options).write(to: file)
        do {
            _ = try UNet2DConfiguration(file: file)
            return nil
        } catch let error as ModelError {
            if case .unknownOption(_, let option) = error { return .unknownOption(file: "config.json", option: option) }
            return error
        }
    }

    @Test("weights that do not belong to the configuration, and missing files, are named errors")
    func wrongFolder() throws {
        let nowhere = URL(filePath: "/nowhere/at/all")
        #expect(throws: ModelFolderError.missingFolder(nowhere.path)) {
            try UNet2D(folder: NetworkFolder(url: nowhere))
        }

        let (sr, cifar) = (try Case.folder("unet2d-sr"), try Case.folder("unet2d-ddpm-cifar"))
        let folder = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.copyItem(
            at: sr.appending(path: "model/config.json"), to: folder.appending(path: "config.json"))
        #expect(throws: ModelFolderError.self) { try UNet2D(folder: NetworkFolder(url: folder)) }
        let weights = "diffusion_pytorch_model.safetensors"
        try FileManager.default.copyItem(
            at: cifar.appending(path: "model/" + weights), to: folder.appending(path: weights))
        let file = folder.appending(path: weights).path
        #expect(
            throws: SafetensorsError.wrongShape(
                file: file, tensor: "conv_in.weight", shape: [32, 3, 3, 3], expected: [32, 6, 3, 3])
        ) {
            try UNet2D(folder: NetworkFolder(url: folder))
        }
    }

    @Test("a sample or an output of the wrong shape is a named error")
    func wrongShape() throws {
        let unet = try UNet2D(folder: NetworkFolder(url: Case.folder("unet2d-sr").appending(path: "model")))
        let good = Activation(height: 8, width: 12, channels: 6), output = Activation(height: 8, width: 12, channels: 3)
        try unet.predict(good, timestep: 0, into: output, workspace: Workspace())
        for bad in [
            Activation(height: 8, width: 10, channels: 6), Activation(height: 8, width: 12, channels: 5),
            Activation(height: 0, width: 12, channels: 6),
        ] {
            #expect(throws: ModelError.self) {
                try unet.predict(bad, timestep: 0, into: output, workspace: Workspace())
            }
        }
        #expect(throws: ModelError.self) {
            try unet.predict(
                good, timestep: 0, into: Activation(height: 8, width: 8, channels: 3), workspace: Workspace())
        }
    }

    @Test("the benchmark counts what it has run")
    func benchmark() throws {
        let folder = try Case.folder("unet2d-sr").appending(path: "model")
        let result = try DenoiserBenchmark.run(folder: ModelFolder(url: folder), tile: 32, lanes: 2, seconds: 0.2)
        let unet = try UNet2D(folder: NetworkFolder(url: folder))
        #expect(result.secondsPerTile > 0 && result.tilesPerSecond > 0 && result.peakMemoryBytes > 1 << 20)
        #expect(
            abs(result.gflops * 1e9 / result.tilesPerSecond / unet.configuration.flops(height: 32, width: 32) - 1)
                < 1e-9)
    }
}

enum Case {
    static func folder(_ name: String) throws -> URL {
        try #require(Bundle.module.url(forResource: name, withExtension: nil, subdirectory: "Cases"))
    }
}

extension Activation {
    /// One image of a batch x channels x height x width tensor.
    convenience init(_ tensor: Tensor, image: Int) {
        let (channels, height, width) = (tensor.shape[1], tensor.shape[2], tensor.shape[3])
        self.init(height: height, width: width, channels: channels)
        var values = mutableSpan
        for c in 0..<channels {
            for i in 0..<height * width {
                values[i * channels + c] = tensor.values[(image * channels + c) * height * width + i]
            }
        }
    }
}

/// The largest difference over the largest magnitude of `expected`.
func relativeError(_ actual: Activation, _ expected: Activation) -> Float {
    guard (actual.height, actual.width, actual.channels) == (expected.height, expected.width, expected.channels) else {
        return .infinity
    }
    let (a, e) = (actual.span, expected.span)
    var difference: Float = 0, largest: Float = 0
    for i in a.indices {
        if !a[i].isFinite { return .infinity }
        difference = max(difference, abs(a[i] - e[i]))
        largest = max(largest, abs(e[i]))
    }
    return difference / largest
}
