import Foundation

/// The denoiser of latent diffusion models, which reads a text beside the noisy sample: diffusers'
/// `UNet2DConditionModel` (Rombach et al., arXiv:2112.10752), as the Stable Diffusion family uses it.
///
/// Immutable once loaded: every lane uses the same one, with a workspace of its own.
public final class UNet2DCondition: Sendable {
    public let configuration: UNet2DConditionConfiguration
    /// The kernels that its arithmetic runs on.
    public let kernels: KernelSet
    private let convIn, convOut: Convolution
    private let normOut: GroupNorm
    private let time: TimeEmbedding
    /// classEmbeddings x timeEmbeddingDim; empty where there are none.
    private let classEmbedding: [Float]
    private let down: [DownLevel]
    private let middle: (first: ResnetBlock, transformer: SpatialTransformer, second: ResnetBlock)
    private let up: [UpLevel]

    private typealias Layer = (resnet: ResnetBlock, transformer: SpatialTransformer?)

    private struct DownLevel {
        var layers: [Layer]
        /// Halves the size.
        var downsample: Convolution?
    }

    private struct UpLevel {
        var layers: [Layer]
        /// Doubles the size.
        var upsample: Upsampler?
    }

    /// - Parameters:
    ///   - precision: of the weights and the arithmetic of the linear layers and convolutions
    ///   - headersOnly: makes a network of `Placeholder`s, to see whether the weights fit
    /// - Throws: `ModelError`, `SafetensorsError`, `KernelError`.
    package init(
        folder: NetworkFolder, precision: Precision = .float32, kernels chosen: KernelSet? = nil,
        headersOnly: Bool = false
    ) throws {
        let kernels = try chosen ?? KernelSet.chosen()
        let configuration = try UNet2DConditionConfiguration(file: folder.configuration)
        let weights = WeightPath(try ModelWeights(folder, headersOnly: headersOnly))
        let build = BlockBuilder(
            kernels: kernels, precision: precision, groups: configuration.normNumGroups, eps: configuration.normEps,
            timeEmbeddingDim: configuration.timeEmbeddingDim)
        let widths = configuration.blockOutChannels, last = widths.count - 1
        func transformer(_ weights: WeightPath, _ level: Int, onlyText: Bool) throws -> SpatialTransformer {
            try build.transformer(
                weights, channels: widths[level], heads: configuration.heads[level],
                blocks: configuration.transformerLayers[level],
                textWidth: configuration.crossAttentionDim, onlyText: onlyText)
        }

        convIn = try build.convolution(weights / "conv_in", inputs: configuration.inChannels, outputs: widths[0])
        time = try TimeEmbedding(
            weights / "time_embedding", channels: widths[0], outputs: configuration.timeEmbeddingDim,
            flipSinToCos: configuration.flipSinToCos,
            freqShift: configuration.freqShift)
        classEmbedding =
            try configuration.classEmbeddings.map {
                try (weights / "class_embedding")("weight", $0, configuration.timeEmbeddingDim)
            } ?? []

        down = try widths.indices.map { level in
            let block = weights / "down_blocks" / level
            return DownLevel(
                layers: try (0..<configuration.layersPerBlock[level]).map { layer in
                    (
                        try build.resnet(
                            block / "resnets" / layer,
                            inputs: (layer > 0 ? widths[level] : widths[max(level - 1, 0)], 0), outputs: widths[level]),
                        configuration.downAttention[level]
                            ? try transformer(
                                block / "attentions" / layer, level, onlyText: configuration.onlyCrossAttention[level])
                            : nil
                    )
                },
                downsample: level < last
                    ? try build.convolution(
                        block / "downsamplers" / 0 / "conv", inputs: widths[level], outputs: widths[level], stride: 2)
                    : nil)
        }
        let mid = weights / "mid_block"
        middle = (
            try build.resnet(mid / "resnets" / 0, inputs: (widths[last], 0), outputs: widths[last]),
            try transformer(mid / "attentions" / 0, last, onlyText: false),
            try build.resnet(mid / "resnets" / 1, inputs: (widths[last], 0), outputs: widths[last])
        )
        up = try configuration.upInputs.enumerated().reversed().map { level, inputs in
            let block = weights / "up_blocks" / (last - level)
            return UpLevel(
                layers: try inputs.enumerated().map { layer, inputs in
                    (
                        try build.resnet(block / "resnets" / layer, inputs: inputs, outputs: widths[level]),
                        configuration.upAttention[level]
                            ? try transformer(
                                block / "attentions" / layer, level, onlyText: configuration.onlyCrossAttention[level])
                            : nil
                    )
                },
                upsample: level > 0
                    ? try build.upsampler(block / "upsamplers" / 0 / "conv", channels: widths[level]) : nil)
        }
        normOut = try build.norm(weights / "conv_norm_out", channels: widths[0])
        convOut = try build.convolution(weights / "conv_out", inputs: widths[0], outputs: configuration.outChannels)
        self.configuration = configuration
        self.kernels = kernels
    }

    /// Predicts what the model was trained for (noise or velocity) for one noisy sample.
    /// - Parameters:
    ///   - sample: height x width x `inChannels`, of any size; multiples of `configuration.alignment` cost least
    ///   - timestep: in the range of the training's, [0, 999] as a rule
    ///   - encoderHiddenStates: the text, 1 x tokens x `crossAttentionDim`
    ///   - classLabel: in 0..<`classEmbeddings`; nil for a model that has none
    ///   - output: height x width x `outChannels`
    /// - Throws: `ModelError`.
    public func predict(
        _ sample: Activation, timestep: Float, encoderHiddenStates: Activation, classLabel: Int? = nil,
        into output: Activation,
        workspace: Workspace
    ) throws {
        guard sample.channels == configuration.inChannels, sample.height > 0, sample.width > 0 else {
            throw ModelError.wrongShape(
                what: "a sample", shape: [sample.height, sample.width, sample.channels],
                expected: "not empty, with \(configuration.inChannels) channels")
        }
        guard encoderHiddenStates.channels == configuration.crossAttentionDim, encoderHiddenStates.count > 0 else {
            throw ModelError.wrongShape(
                what: "a text",
                shape: [encoderHiddenStates.height, encoderHiddenStates.width, encoderHiddenStates.channels],
                expected: "1 x tokens x \(configuration.crossAttentionDim)")
        }
        guard (output.height, output.width, output.channels) == (sample.height, sample.width, configuration.outChannels)
        else {
            throw ModelError.wrongShape(
                what: "an output", shape: [output.height, output.width, output.channels],
                expected: "\(sample.height) x \(sample.width) x \(configuration.outChannels)")
        }
        guard
            classLabel == nil
                ? configuration.classEmbeddings == nil
                : (0..<(configuration.classEmbeddings ?? 0)).contains(classLabel ?? 0)
        else {
            throw ModelError.wrongClass(label: classLabel, count: configuration.classEmbeddings)
        }

        let width = configuration.timeEmbeddingDim
        let time = time(timestep, adding: classLabel.map { classEmbedding[$0 * width..<($0 + 1) * width] } ?? [])
        func run(_ layer: Layer, _ x: Activation, _ skip: Activation? = nil) throws -> Activation {
            let h = try layer.resnet(x, skip, time: time, workspace: workspace)
            return layer.transformer?(h, text: encoderHiddenStates, workspace: workspace) ?? h
        }
        var x = convIn(sample, workspace: workspace)
        var skips = [x]
        for level in down {
            for layer in level.layers {
                x = try run(layer, x)
                skips.append(x)
            }
            if let downsample = level.downsample {
                x = downsample(x, workspace: workspace)
                skips.append(x)
            }
        }
        x = try run((middle.first, middle.transformer), x)
        x = try run((middle.second, nil), x)
        for level in up {
            for layer in level.layers { x = try run(layer, x, skips.removeLast()) }
            if let upsample = level.upsample, let next = skips.last {
                x = upsample(x, height: next.height, width: next.width, workspace: workspace)
            }
        }
        convOut(
            x, normalization: normOut.scaleShift(x, workspace: workspace), into: output, moments: false,
            workspace: workspace)
    }
}

extension UNet2DConditionConfiguration {
    /// Floating-point operations of one prediction by the definition of its convolutions, linear layers and attention
    /// (the other layers are small beside them), whatever the algorithm.
    public func flops(height: Int, width: Int, tokens: Int) -> Double {
        var total = 0.0
        var sizes = [(height: height, width: width)]
        for level in blockOutChannels.indices.dropFirst() {
            sizes.append(((sizes[level - 1].height + 1) / 2, (sizes[level - 1].width + 1) / 2))
        }
        func positions(_ level: Int) -> Double { Double(sizes[level].height) * Double(sizes[level].width) }
        func convolution(_ inputs: Int, _ outputs: Int, level: Int, size: Int = 3) {
            total += 2 * positions(level) * Double(inputs * size * size) * Double(outputs)
        }
        func resnet(_ inputs: Int, level: Int) {
            convolution(inputs, blockOutChannels[level], level: level)
            convolution(blockOutChannels[level], blockOutChannels[level], level: level)
            if inputs != blockOutChannels[level] { convolution(inputs, blockOutChannels[level], level: level, size: 1) }
        }
        func transformer(level: Int, onlyText: Bool) {
            let n = Double(blockOutChannels[level]), p = positions(level), t = Double(tokens),
                w = Double(crossAttentionDim)
            // Queries and output, keys and values, and the two products of attention.
            let toText = 4 * p * n * n + 4 * t * w * n + 4 * p * t * n
            let toSample = 8 * p * n * n + 4 * p * p * n
            let block = (onlyText ? toText : toSample) + toText + 24 * p * n * n
            total += 4 * p * n * n + Double(transformerLayers[level]) * block
        }
        let widths = blockOutChannels, last = widths.count - 1
        convolution(inChannels, widths[0], level: 0)
        for level in widths.indices {
            for layer in 0..<layersPerBlock[level] {
                resnet(layer > 0 ? widths[level] : widths[max(level - 1, 0)], level: level)
                if downAttention[level] { transformer(level: level, onlyText: onlyCrossAttention[level]) }
            }
            if level < last { convolution(widths[level], widths[level], level: level + 1) }
        }
        for _ in 0..<2 { resnet(widths[last], level: last) }
        transformer(level: last, onlyText: false)
        for (level, inputs) in upInputs.enumerated() {
            for input in inputs {
                resnet(input.below + input.skip, level: level)
                if upAttention[level] { transformer(level: level, onlyText: onlyCrossAttention[level]) }
            }
            if level > 0 { convolution(widths[level], widths[level], level: level - 1) }
        }
        convolution(widths[0], outChannels, level: 0)
        return total
    }
}
