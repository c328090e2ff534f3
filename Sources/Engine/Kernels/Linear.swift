internal import COpenBLAS

/// y = x W^T + b for many rows x, by OpenBLAS in the calling thread.
package final class Linear: Sendable {
    package let inputs, outputs: Int
    private let weights: ConstantBuffer  // outputs x inputs
    private let bias: ConstantBuffer?

    /// - Parameters:
    ///   - weights: outputs x inputs
    ///   - bias: outputs, or none
    package init(weights: [Float], bias: [Float]?, inputs: Int, outputs: Int, precision: Precision = .float32, kernels: KernelSet) {
        precondition(weights.count == inputs * outputs && bias.map { $0.count == outputs } ?? true)
        (self.inputs, self.outputs) = (inputs, outputs)
        self.weights = ConstantBuffer(weights)
        self.bias = bias.map { ConstantBuffer($0) }
    }

    /// - Parameters:
    ///   - input: any height x width x inputs
    ///   - residual: height x width x outputs, added
    /// - Returns: height x width x outputs
    package func callAsFunction(_ input: Activation, residual: Activation? = nil, workspace: Workspace) -> Activation {
        precondition(input.channels == inputs)
        precondition(residual.map { ($0.height, $0.width, $0.channels) == (input.height, input.width, outputs) } ?? true)
        let output = workspace.activation(height: input.height, width: input.width, channels: outputs)
        let rows = input.height * input.width
        output.moments = nil
        // What is added stands in the output before the product is.
        let to = output.values.pointer, added = residual?.values.pointer, bias = bias?.pointer
        for row in 0..<rows {
            for i in 0..<outputs { to[row * outputs + i] = (bias?[i] ?? 0) + (added?[row * outputs + i] ?? 0) }
        }
        OpenBLAS.product(
            rows: rows, columns: outputs, depth: inputs, UnsafePointer(input.values.pointer), step: inputs, weights.pointer, step: inputs,
            transposed: true, adding: true, to: output.values.pointer, step: outputs)
        withExtendedLifetime((input, residual)) {}
        return output
    }
}

/// Matrix products of the calling thread.
enum OpenBLAS {
    /// Each lane computes alone; set once, before the first product. (The OpenMP build of OpenBLAS counts threads for each caller: there the
    /// environment, which `KernelEnvironment` sets, decides.)
    private static let singleThreaded: Void = openblas_set_num_threads(1)

    /// c = a b (or a b^T), or c += of it: rows x columns, all row-major with the given distances between rows.
    static func product(
        rows: Int, columns: Int, depth: Int, _ a: UnsafePointer<Float>, step aStep: Int, _ b: UnsafePointer<Float>, step bStep: Int,
        transposed: Bool, adding: Bool, to c: UnsafeMutablePointer<Float>, step cStep: Int
    ) {
        _ = singleThreaded
        cblas_sgemm(
            CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, blasint(rows), blasint(columns), blasint(depth), 1, a,
            blasint(aStep), b, blasint(bStep), adding ? 1 : 0, c, blasint(cStep))
    }

    /// The kernels that OpenBLAS has chosen and its version, for example "SkylakeX-0.3.21": the same products have other bits in another one.
    static var core: String {
        // "OpenBLAS 0.3.21 DYNAMIC_ARCH ..."
        let version = String(cString: openblas_get_config()).split(separator: " ").dropFirst().first ?? "?"
        return "\(String(cString: openblas_get_corename()))-\(version)"
    }
}
