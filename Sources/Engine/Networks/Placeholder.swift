/// The layers of a network whose weights were looked up in the headers and not read. Each is a whole layer of one
/// channel, so that a network of them can do no harm; it is good for nothing and is thrown away.
enum Placeholder {
    static func convolution(_ kernels: KernelSet) -> Convolution {
        Convolution(weights: [0], bias: [0], outputs: 1, inputs: 1, size: 1, kernels: kernels)
    }

    static func linear(_ kernels: KernelSet) -> Linear {
        Linear(weights: [0], bias: [0], inputs: 1, outputs: 1, kernels: kernels)
    }

    static func groupNorm(_ kernels: KernelSet) -> GroupNorm {
        GroupNorm(gamma: [0], beta: [0], groups: 1, eps: 1, kernels: kernels)
    }

    static func layerNorm(_ kernels: KernelSet) -> LayerNorm { LayerNorm(gamma: [0], beta: [0], kernels: kernels) }
}
