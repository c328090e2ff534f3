internal import CKernels

/// The function between the layers of a perceptron.
package enum ActivationFunction: Sendable {
    /// x Phi(x) with the exact error function (Hendrycks & Gimpel, arXiv:1606.08415; `torch.nn.GELU`).
    case gelu
    /// x sigmoid(1.702 x), as CLIP has it.
    case quickGELU
    /// x sigmoid(x).
    case silu

    /// Replaces every value.
    package func apply(to activation: Activation, kernels: KernelSet) {
        let kind: tf_activation =
            switch self {
            case .gelu: TF_GELU
            case .quickGELU: TF_QUICK_GELU
            case .silu: TF_SILU
            }
        tf_activate(kernels.isa, kind, activation.values.pointer, activation.count)
        activation.moments = nil
    }
}

/// Gated linear units (Shazeer, arXiv:2002.05202).
package enum Gating {
    /// value * gelu(gate), as diffusers' `GEGLU`.
    ///
    /// - Parameter x: height x width x 2n, the n channels of the value before those of the gate
    /// - Returns: height x width x n
    package static func geglu(_ x: Activation, kernels: KernelSet, workspace: Workspace) -> Activation {
        precondition(x.channels % 2 == 0)
        let output = workspace.activation(height: x.height, width: x.width, channels: x.channels / 2)
        tf_geglu(kernels.isa, x.values.pointer, x.height * x.width, Int32(x.channels / 2), output.values.pointer)
        output.moments = nil
        withExtendedLifetime(x) {}
        return output
    }
}
