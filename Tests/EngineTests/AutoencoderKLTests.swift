import Engine
import Foundation
import Testing

@Suite struct AutoencoderKLTests {
    static func load(_ name: String, kernels: KernelSet? = nil) throws -> AutoencoderKL {
        try AutoencoderKL(folder: NetworkFolder(url: Case.folder(name).appending(path: "model")), kernels: kernels)
    }

    @Test(
        "encodings and decodings equal those of diffusers, with every kernel set",
        arguments: ["vae-old-names", "vae-bare"], KernelSet.available)
    func matchesDiffusers(name: String, kernels: KernelSet) throws {
        let vae = try Self.load(name, kernels: kernels)
        let tensors = try Safetensors(url: Case.folder(name).appending(path: "case.safetensors"))
        let image = try vae.decode(Activation(try tensors.tensor("in.latent"), image: 0), workspace: Workspace())
        #expect(relativeError(image, Activation(try tensors.tensor("out.image"), image: 0)) < 2e-5)
        let moments = try vae.encode(Activation(try tensors.tensor("in.image"), image: 0), workspace: Workspace())
        let (mean, logarithm) = (
            Activation(try tensors.tensor("out.mean"), image: 0), Activation(try tensors.tensor("out.logvar"), image: 0)
        )
        let expected = Activation(height: mean.height, width: mean.width, channels: 2 * mean.channels)
        var span = expected.mutableSpan
        for i in 0..<mean.height * mean.width {
            for c in 0..<mean.channels {
                span[i * 2 * mean.channels + c] = mean.span[i * mean.channels + c]
                span[i * 2 * mean.channels + mean.channels + c] = logarithm.span[i * mean.channels + c]
            }
        }
        #expect(relativeError(moments, expected) < 2e-5)
    }

    /// A latent whose parts differ, so that tiles' own statistics would.
    func latent(_ height: Int, _ width: Int, _ channels: Int) -> Activation {
        var random = SplitMix64(seed: 8)
        let result = random.activation(height, width, channels)
        var span = result.mutableSpan
        for y in 0..<height {
            for x in 0..<width {
                for c in 0..<channels {
                    span[(y * width + x) * channels + c] *= Float(1 + x / 4);
                    span[(y * width + x) * channels + c] += Float(y) / 5
                }
            }
        }
        return result
    }

    func crop(_ image: Activation, _ rect: Rect) -> Activation {
        let result = Activation(height: rect.height, width: rect.width, channels: image.channels)
        var span = result.mutableSpan
        RowCopy.copy(
            from: image.span, start: (rect.y * image.width + rect.x) * image.channels,
            stride: image.width * image.channels, to: &span, start: 0,
            stride: rect.width * image.channels, rows: rect.height, count: rect.width * image.channels)
        return result
    }

    @Test("statistics of the whole canvas give the bits of a call without statistics")
    func ownStatistics() throws {
        let vae = try Self.load("vae-old-names")
        let latent = latent(6, 9, 4), workspace = Workspace()
        let norms = 0..<vae.configuration.decoderNorms
        let statistics = try vae.decoderStatistics(
            latent, cell: Rect(y: 0, x: 0, height: 6, width: 9), norms: norms, workspace: workspace)
        #expect(statistics.norms == norms)
        let with = try vae.decode(latent, statistics: statistics, workspace: workspace)
        let without = try vae.decode(latent, workspace: workspace)
        #expect(with.span.indices.allSatisfy { with.span[$0] == without.span[$0] })

        let image = latentImage(vae)
        let cell = Rect(y: 0, x: 0, height: image.height, width: image.width)
        let encoded = try vae.encoderStatistics(
            image, cell: cell, norms: 0..<vae.configuration.encoderNorms, workspace: workspace)
        let moments = try vae.encode(image, statistics: encoded, workspace: workspace),
            own = try vae.encode(image, workspace: workspace)
        #expect(moments.span.indices.allSatisfy { moments.span[$0] == own.span[$0] })
    }

    func latentImage(_ vae: AutoencoderKL) -> Activation {
        latent(6 * vae.configuration.factor, 9 * vae.configuration.factor, 3)
    }

    @Test("statistics that are no statistics of the network, or nonsense from a wire, are named errors")
    func wrongStatistics() throws {
        let vae = try Self.load("vae-bare")
        let latent = latent(4, 4, 3), whole = Rect(y: 0, x: 0, height: 4, width: 4), workspace = Workspace()
        let count = vae.configuration.decoderNorms
        func name(_ body: () throws -> Void) throws -> String {
            caseName(try #require(throws: ModelError.self) { try body() })
        }
        let good = try vae.decoderStatistics(latent, cell: whole, norms: 0..<3, workspace: workspace)
        for norms in [0..<0, 0..<count + 1, count..<count + 1] {
            #expect(
                try name { _ = try vae.decoderStatistics(latent, cell: whole, norms: norms, workspace: workspace) }
                    == "wrongStatistics")
        }
        for cell in [
            Rect(y: 0, x: 0, height: 5, width: 4), Rect(y: -1, x: 0, height: 2, width: 2),
            Rect(y: 0, x: 0, height: 0, width: 4),
        ] {
            #expect(
                try name { _ = try vae.decoderStatistics(latent, cell: cell, norms: 0..<1, workspace: workspace) }
                    == "wrongStatistics")
        }
        let image = Activation(height: 8, width: 8, channels: 3)
        let odd = Rect(y: 0, x: 1, height: 8, width: 4)
        #expect(
            try name { _ = try vae.encoderStatistics(image, cell: odd, norms: 0..<1, workspace: workspace) }
                == "wrongStatistics")
        let later = try CanvasStatistics(
            groups: good.groups, norms: 1..<2, values: Array(good.values.prefix(3 * good.groups)))
        #expect(try name { _ = try vae.decode(latent, statistics: later, workspace: workspace) } == "wrongStatistics")
        #expect(
            try name {
                var sum = good; try sum.add(later)
            } == "wrongStatistics")
        let many = try CanvasStatistics(
            groups: good.groups, norms: 0..<count + 1, values: Array(repeating: 1, count: 3 * good.groups * (count + 1))
        )
        #expect(try name { _ = try vae.decode(latent, statistics: many, workspace: workspace) } == "wrongStatistics")
        #expect(try name { _ = try CanvasStatistics(groups: 2, norms: 0..<2, values: [1, 1, 1]) } == "wrongStatistics")
        #expect(try name { _ = try CanvasStatistics(groups: 1, norms: 0..<1, values: [1, 1, 0]) } == "wrongStatistics")
        #expect(
            try name { _ = try CanvasStatistics(groups: 1, norms: 0..<1, values: [.nan, 1, 1]) } == "wrongStatistics")
        #expect(
            try name { _ = try CanvasStatistics(groups: .max, norms: 0..<Int.max, values: []) } == "wrongStatistics")
    }

    @Test("inputs that do not fit are named errors")
    func wrongShapes() throws {
        let vae = try Self.load("vae-bare")
        #expect(throws: ModelError.self) {
            try vae.decode(Activation(height: 4, width: 4, channels: 4), workspace: Workspace())
        }
        #expect(throws: ModelError.self) {
            try vae.decode(Activation(height: 0, width: 4, channels: 3), workspace: Workspace())
        }
        #expect(throws: ModelError.self) {
            try vae.encode(Activation(height: 4, width: 5, channels: 3), workspace: Workspace())
        }
        #expect(throws: ModelError.self) {
            try vae.encode(Activation(height: 4, width: 4, channels: 1), workspace: Workspace())
        }
    }

    @Test("the configuration has the defaults of diffusers, and refuses what the engine cannot do")
    func configuration() throws {
        func read(_ options: String) throws -> AutoencoderKLConfiguration {
            try withTemporaryFolder { folder in
                let file = folder.appending(path: "config.json")
                try Data(
                    "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [128, 256, 512, 512]\(options)}".utf8
                ).write(to: file)
                return try AutoencoderKLConfiguration(file: file)
            }
        }
        let usual = try read("")
        #expect(usual.factor == 8)
        #expect(usual.scalingFactor == 0.18215)
        #expect(usual.quantConv && usual.postQuantConv && usual.midAttention)
        #expect(usual.latentChannels == 4)
        #expect(try read(#", "layers_per_block": 2"#).decoderNorms == 30)
        #expect(try read(#", "layers_per_block": 2"#).encoderNorms == 22)
        for (expected, options) in [
            ("unsupported", #""shift_factor": 0.1"#), ("unsupported", #""latents_mean": [0]"#),
            ("unsupported", #""act_fn": "relu""#),
            (
                "unsupported",
                #""up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "#
                    + #""AttnUpDecoderBlock2D"]"#
            ),
            ("malformed", #""norm_num_groups": 48"#), ("malformed", #""scaling_factor": 0"#),
            ("malformed", #""down_block_types": []"#),
            ("unknownOption", #""tiling": true"#),
        ] {
            let error = try #require(throws: ModelError.self) { try read(", " + options) }
            #expect(caseName(error) == expected, "\(options)")
        }
    }

    @Test("the count of operations is that of the definition")
    func flops() throws {
        // By hooks on torch.nn.Conv2d, torch.nn.Linear and scaled_dot_product_attention of diffusers' decoder and
        // encoder.
        let configuration = try Self.load("vae-old-names").configuration
        #expect(configuration.decoderFlops(height: 6, width: 10) == 23_754_240)
        #expect(configuration.encoderFlops(height: 6, width: 10) == 12_026_880)
    }
}
