import Engine
import Foundation
import Testing

@Suite struct UNet2DTests {
    @Test("predictions equal those of diffusers, with every kernel set", arguments: ["unet2d-sr", "unet2d-ddpm-cifar"], KernelSet.available)
    func matchesDiffusers(name: String, kernels: KernelSet) throws {
        let folder = try Case.folder(name)
        let unet = try UNet2D(folder: folder.appending(path: "model"), kernels: kernels)
        let tensors = try Safetensors(url: folder.appending(path: "case.safetensors"))
        let workspace = Workspace()
        for i in 0..<2 {
            let sample = try tensors.tensor("in.\(i).sample"), expected = try tensors.tensor("out.\(i).sample")
            let timestep = Float(try tensors.integers("in.\(i).timestep")[0])
            for image in 0..<sample.shape[0] {
                let input = Activation(sample, image: image)
                let output = Activation(height: input.height, width: input.width, channels: unet.configuration.outChannels)
                try unet.predict(input, timestep: timestep, into: output, workspace: workspace)
                let error = relativeError(output, Activation(expected, image: image))
                #expect(error < 2e-5)
            }
        }
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
            for i in 0..<height * width { values[i * channels + c] = tensor.values[(image * channels + c) * height * width + i] }
        }
    }
}

/// The largest difference over the largest magnitude of `expected`.
func relativeError(_ actual: Activation, _ expected: Activation) -> Float {
    guard (actual.height, actual.width, actual.channels) == (expected.height, expected.width, expected.channels) else { return .infinity }
    let (a, e) = (actual.span, expected.span)
    var difference: Float = 0, largest: Float = 0
    for i in a.indices {
        if !a[i].isFinite { return .infinity }
        difference = max(difference, abs(a[i] - e[i]))
        largest = max(largest, abs(e[i]))
    }
    return difference / largest
}
