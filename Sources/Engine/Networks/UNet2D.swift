import Foundation

/// The denoiser of pixel-space diffusion models: diffusers' `UNet2DModel` (Ho et al., arXiv:2006.11239, appendix B).
///
/// Immutable once loaded: every lane uses the same one, with a workspace of its own.
public final class UNet2D: Sendable {
    public let configuration: UNet2DConfiguration
    /// The kernels that its arithmetic runs on.
    public let kernels: KernelSet
    private let convIn, convOut: Convolution
    private let normOut: GroupNorm
    private let time: TimeEmbedding
    private let down: [Level]
    private let middle: Middle?
    private let up: [Level]

    /// A level of the way down (`change` halves the size) or up (`change` doubles it).
    private struct Level {
        var layers: [(resnet: ResnetBlock, attention: AttentionBlock?)] = []
        var change: Convolution?
    }

    private struct Middle {
        var first: ResnetBlock
        var attention: AttentionBlock?
        var second: ResnetBlock
    }

    /// - Throws: `ModelError`, `SafetensorsError`, `KernelError`.
    public convenience init(folder: NetworkFolder) throws { try self.init(folder: folder, kernels: KernelSet.chosen()) }

    /// - Parameter headersOnly: makes a network of `Placeholder`s, to see whether the weights fit
    package init(folder: NetworkFolder, kernels: KernelSet, headersOnly: Bool = false) throws {
        let configuration = try UNet2DConfiguration(file: folder.configuration)
        let weights = WeightPath(try ModelWeights(folder, headersOnly: headersOnly))
        let groups = configuration.normNumGroups
        let build = BlockBuilder(
            kernels: kernels, groups: groups, eps: configuration.normEps,
            timeEmbeddingDim: configuration.timeEmbeddingDim,
            timeScaleShift: configuration.timeScaleShift)
        func attention(_ weights: WeightPath, channels: Int, groups: Int?) throws -> AttentionBlock {
            try build.attention(
                weights, channels: channels, headWidth: configuration.attentionHeadDim ?? channels, groups: groups)
        }
        let widths = configuration.blockOutChannels, layers = configuration.layersPerBlock

        convIn = try build.convolution(weights / "conv_in", inputs: configuration.inChannels, outputs: widths[0])
        time = try TimeEmbedding(
            weights / "time_embedding", channels: widths[0], outputs: configuration.timeEmbeddingDim,
            flipSinToCos: configuration.flipSinToCos,
            freqShift: configuration.freqShift)

        down = try widths.indices.map { level in
            let block = weights / "down_blocks" / level
            var result = Level()
            for layer in 0..<layers {
                let inputs = layer > 0 ? widths[level] : widths[max(level - 1, 0)]
                result.layers.append(
                    (
                        try build.resnet(block / "resnets" / layer, inputs: (inputs, 0), outputs: widths[level]),
                        configuration.downAttention[level]
                            ? try attention(block / "attentions" / layer, channels: widths[level], groups: groups) : nil
                    ))
            }
            if level < widths.count - 1 {
                result.change = try build.convolution(
                    block / "downsamplers" / 0 / "conv", inputs: widths[level], outputs: widths[level], stride: 2,
                    padding: configuration.downsamplePadding)
            }
            return result
        }

        let deepest = widths[widths.count - 1]
        middle =
            try configuration.hasMidBlock
            ? Middle(
                first: build.resnet(weights / "mid_block" / "resnets" / 0, inputs: (deepest, 0), outputs: deepest),
                attention: configuration.midAttention
                    ? attention(
                        weights / "mid_block" / "attentions" / 0, channels: deepest,
                        groups: configuration.midAttentionGroups) : nil,
                second: build.resnet(weights / "mid_block" / "resnets" / 1, inputs: (deepest, 0), outputs: deepest))
            : nil

        up = try configuration.upInputs.enumerated().map { level, inputs in
            let block = weights / "up_blocks" / level
            let width = widths[widths.count - 1 - level]
            var result = Level()
            for (layer, inputs) in inputs.enumerated() {
                result.layers.append(
                    (
                        try build.resnet(block / "resnets" / layer, inputs: inputs, outputs: width),
                        configuration.upAttention[level]
                            ? try attention(block / "attentions" / layer, channels: width, groups: groups) : nil
                    ))
            }
            if level < widths.count - 1 {
                result.change = try build.convolution(
                    block / "upsamplers" / 0 / "conv", inputs: width, outputs: width, upsampling: true)
            }
            return result
        }

        normOut = try build.norm(weights / "conv_norm_out", channels: widths[0])
        convOut = try build.convolution(weights / "conv_out", inputs: widths[0], outputs: configuration.outChannels)
        self.configuration = configuration
        self.kernels = kernels
    }

    /// Predicts what the model was trained for (noise, velocity or the image) for one noisy sample.
    /// - Parameters:
    ///   - sample: height x width x `inChannels`; height and width are multiples of `configuration.alignment`
    ///   - timestep: in the range of the training's, [0, 999] as a rule
    ///   - output: height x width x `outChannels`
    /// - Throws: `ModelError.wrongShape`.
    public func predict(_ sample: Activation, timestep: Float, into output: Activation, workspace: Workspace) throws {
        let alignment = configuration.alignment
        guard sample.channels == configuration.inChannels, sample.height > 0, sample.width > 0,
            sample.height % alignment == 0,
            sample.width % alignment == 0
        else {
            throw ModelError.wrongShape(
                what: "a sample", shape: [sample.height, sample.width, sample.channels],
                expected: "a multiple of \(alignment) high and wide with \(configuration.inChannels) channels")
        }
        guard (output.height, output.width, output.channels) == (sample.height, sample.width, configuration.outChannels)
        else {
            throw ModelError.wrongShape(
                what: "an output", shape: [output.height, output.width, output.channels],
                expected: "\(sample.height) x \(sample.width) x \(configuration.outChannels)")
        }

        let time = time(timestep)
        var x = convIn(configuration.centerInputSample ? centered(sample, workspace) : sample, workspace: workspace)
        var skips = [x]
        for level in down {
            for layer in level.layers {
                x = try layer.resnet(x, time: time, workspace: workspace)
                if let attention = layer.attention { x = try attention(x, workspace: workspace) }
                skips.append(x)
            }
            if let downsample = level.change {
                x = downsample(x, workspace: workspace)
                skips.append(x)
            }
        }
        if let middle {
            x = try middle.first(x, time: time, workspace: workspace)
            if let attention = middle.attention { x = try attention(x, workspace: workspace) }
            x = try middle.second(x, time: time, workspace: workspace)
        }
        for level in up {
            for layer in level.layers {
                x = try layer.resnet(x, skips.removeLast(), time: time, workspace: workspace)
                if let attention = layer.attention { x = try attention(x, workspace: workspace) }
            }
            if let upsample = level.change { x = upsample(x, workspace: workspace) }
        }
        convOut(
            x, normalization: normOut.scaleShift(x, workspace: workspace), into: output, moments: false,
            workspace: workspace)
    }

    private func centered(_ sample: Activation, _ workspace: Workspace) -> Activation {
        let result = workspace.activation(height: sample.height, width: sample.width, channels: sample.channels)
        var to = result.mutableSpan
        let from = sample.span
        for i in from.indices { to[i] = 2 * from[i] - 1 }
        return result
    }
}

extension UNet2DConfiguration {
    /// Floating-point operations of one prediction by the definition of its convolutions (the other layers are small
    /// beside them), whatever the algorithm.
    public func flops(height: Int, width: Int) -> Double {
        var total = 0.0
        func convolution(_ inputs: Int, _ outputs: Int, level: Int, size: Int = 3) {
            total +=
                2 * Double(height >> level) * Double(width >> level) * Double(inputs * size * size) * Double(outputs)
        }
        func resnet(_ inputs: Int, _ outputs: Int, level: Int) {
            convolution(inputs, outputs, level: level)
            convolution(outputs, outputs, level: level)
            if inputs != outputs { convolution(inputs, outputs, level: level, size: 1) }
        }
        let widths = blockOutChannels, last = widths.count - 1
        convolution(inChannels, widths[0], level: 0)
        for level in widths.indices {
            for layer in 0..<layersPerBlock {
                resnet(layer > 0 ? widths[level] : widths[max(level - 1, 0)], widths[level], level: level)
            }
            if level < last { convolution(widths[level], widths[level], level: level + 1) }
        }
        if hasMidBlock { for _ in 0..<2 { resnet(widths[last], widths[last], level: last) } }
        for (index, inputs) in upInputs.enumerated() {
            let level = last - index
            for input in inputs { resnet(input.below + input.skip, widths[level], level: level) }
            if level > 0 { convolution(widths[level], widths[level], level: level - 1) }
        }
        convolution(widths[0], outChannels, level: 0)
        return total
    }
}
