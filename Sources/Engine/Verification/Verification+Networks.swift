// Cases with a network in model/. Images are batch x channels x height x width in the file.
extension Verification {
    /// in.N.sample, in.N.timestep -> out.N.sample.
    func unet2D(_ folder: NetworkFolder) throws -> (String) throws -> [Double] {
        let network = try UNet2D(folder: folder)
        return try denoiser(outChannels: network.configuration.outChannels) { _, _ in
            { sample, timestep, output, workspace in
                try network.predict(sample, timestep: timestep, into: output, workspace: workspace)
            }
        }
    }

    /// in.N.sample, in.N.timestep, in.N.encoder_hidden_states (batch x tokens x width) and perhaps in.N.class_labels
    /// (batch) -> out.N.sample.
    func unet2DCondition(_ folder: NetworkFolder) throws -> (String) throws -> [Double] {
        let network = try UNet2DCondition(folder: folder, precision: precision)
        return try denoiser(outChannels: network.configuration.outChannels) { input, image in
            let name = input + "encoder_hidden_states"
            let text = try file.tensor(name)
            guard text.shape.count == 3, image < text.shape[0] else {
                throw VerificationError.wrongShape(
                    file: file.url.path, tensor: name, shape: text.shape, expected: "batch x tokens x width")
            }
            let states = Activation(height: 1, width: text.shape[1], channels: text.shape[2])
            var span = states.mutableSpan
            for i in span.indices { span[i] = text.values[image * span.count + i] }
            let labels = file.names.contains(input + "class_labels") ? try file.integers(input + "class_labels") : []
            let label = labels.indices.contains(image) ? labels[image] : nil
            return { sample, timestep, output, workspace in
                try network.predict(
                    sample, timestep: timestep, encoderHiddenStates: states, classLabel: label, into: output,
                    workspace: workspace)
            }
        }
    }

    private typealias Prediction = (
        _ sample: Activation, _ timestep: Float, _ output: Activation, _ workspace: Workspace
    ) throws -> Void

    /// - Parameter prediction: for the prefix of a case's inputs and the number of an image in the batch
    private func denoiser(
        outChannels: Int, _ prediction: @escaping (_ input: String, _ image: Int) throws -> Prediction
    ) throws -> (String) throws -> [Double] {
        let workspace = Workspace()
        return { name in
            guard let match = name.wholeMatch(of: /out\.([0-9]+)\.sample/) else { throw unknown(name) }
            let input = "in.\(match.1)."
            guard let timestep = try file.integers(input + "timestep").first else {
                throw VerificationError.wrongShape(
                    file: file.url.path, tensor: input + "timestep", shape: [0], expected: "[1]")
            }
            return try images(input + "sample").enumerated().flatMap { image, sample in
                let output = Activation(height: sample.height, width: sample.width, channels: outChannels)
                try prediction(input, image)(sample, Float(timestep), output, workspace)
                return planar(output, channels: 0..<outChannels)
            }
        }
    }

    /// in.image -> out.mean and out.logvar, in.latent -> out.image.
    func autoencoderKL(_ folder: NetworkFolder) throws -> (String) throws -> [Double] {
        let network = try AutoencoderKL(folder: folder, precision: precision)
        let workspace = Workspace()
        let latent = network.configuration.latentChannels
        return { name in
            switch name {
            case "out.image":
                return try images("in.latent").flatMap { image in
                    planar(
                        try network.decode(image, workspace: workspace), channels: 0..<network.configuration.outChannels
                    )
                }
            case "out.mean", "out.logvar":
                return try images("in.image").flatMap { image in
                    let moments = try network.encode(image, workspace: workspace)
                    // diffusers clamps the logarithm.
                    return name == "out.mean"
                        ? planar(moments, channels: 0..<latent)
                        : planar(moments, channels: latent..<2 * latent).map { min(max($0, -30), 20) }
                }
            default: throw unknown(name)
            }
        }
    }

    func images(_ name: String) throws -> [Activation] {
        let tensor = try file.tensor(name)
        guard tensor.shape.count == 4, tensor.shape.allSatisfy({ $0 > 0 }) else {
            throw VerificationError.wrongShape(
                file: file.url.path, tensor: name, shape: tensor.shape, expected: "batch x channels x height x width")
        }
        let (channels, height, width) = (tensor.shape[1], tensor.shape[2], tensor.shape[3])
        return (0..<tensor.shape[0]).map { image in
            let result = Activation(height: height, width: width, channels: channels)
            var span = result.mutableSpan
            for channel in 0..<channels {
                for pixel in 0..<height * width {
                    span[pixel * channels + channel] =
                        tensor.values[(image * channels + channel) * height * width + pixel]
                }
            }
            return result
        }
    }

    func planar(_ activation: Activation, channels: Range<Int>) -> [Double] {
        let span = activation.span
        return channels.flatMap { channel in
            (0..<activation.height * activation.width).map { Double(span[$0 * activation.channels + channel]) }
        }
    }
}
