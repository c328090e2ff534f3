internal import CKernels

/// y = (x - mean) / sqrt(variance + eps) * gamma + beta, with mean and variance over the channels of each position
/// (Ba, Kiros & Hinton, arXiv:1607.06450; `torch.nn.LayerNorm`).
package struct LayerNorm: Sendable {
    package let channels: Int
    package let eps: Float
    package let kernels: KernelSet
    private let gamma, beta: ConstantBuffer

    package init(gamma: [Float], beta: [Float], eps: Double = 1e-5, kernels: KernelSet) {
        precondition(gamma.count == beta.count && !gamma.isEmpty)
        (channels, self.eps, self.kernels) = (gamma.count, Float(eps), kernels)
        self.gamma = ConstantBuffer(gamma, paddedTo: kernels.padded(gamma.count))
        self.beta = ConstantBuffer(beta, paddedTo: kernels.padded(gamma.count))
    }

    /// - Parameter input: height x width x channels
    /// - Returns: the same shape
    package func callAsFunction(_ input: Activation, workspace: Workspace) -> Activation {
        precondition(input.channels == channels)
        let output = workspace.activation(height: input.height, width: input.width, channels: channels)
        tf_layer_norm(
            kernels.isa, input.values.pointer, input.height * input.width, Int32(channels), gamma.pointer, beta.pointer,
            eps,
            output.values.pointer)
        output.moments = nil
        withExtendedLifetime(input) {}
        return output
    }
}
