internal import CKernels
internal import COpenBLAS

/// y = x W^T + b for many rows x.
///
/// With packed weights of its own, but for single precision without AVX2: there OpenBLAS is faster (31 to 27 GFLOP/s a
/// core; with AVX2 and AVX-512 it is slower, most where the rows are few: 65 to 83 and 110 to 168).
package final class Linear: Sendable {
    package let inputs, outputs: Int
    package let kernels: KernelSet
    private let gated: Bool
    private let weights: Weights

    private enum Weights: Sendable {
        case packed(ConstantBytes, bias: ConstantBuffer, storage: tf_storage)
        /// outputs x inputs
        case plain(ConstantBuffer, bias: ConstantBuffer?)
    }

    /// - Parameters:
    ///   - weights: outputs x inputs; 2 * outputs x inputs if `gated`
    ///   - bias: outputs (2 * outputs), or none
    ///   - gated: the layer ends in diffusers' `GEGLU`: the first half of the weights makes a value, the second half
    ///     its gate, and the output is value * gelu(gate). The same as `Gating.geglu` of a layer with twice as many
    ///     outputs, which are never stored.
    package init(
        weights: [Float], bias: [Float]?, inputs: Int, outputs: Int, gated: Bool = false,
        precision: Precision = .float32, kernels: KernelSet
    ) {
        let columns = gated ? 2 * outputs : outputs
        precondition(weights.count == inputs * columns && bias.map { $0.count == columns } ?? true)
        precondition(
            inputs > 0 && outputs > 0 && inputs <= 1 << 18 && columns <= 1 << 20, "the kernels count in 32 bits")
        (self.inputs, self.outputs, self.gated, self.kernels) = (inputs, outputs, gated, kernels)
        if kernels == .baseline, precision == .float32 {
            self.weights = .plain(ConstantBuffer(weights), bias: bias.map { ConstantBuffer($0) })
            return
        }
        var shape = tf_linear()
        (shape.inputs, shape.outputs, shape.gated) = (Int32(inputs), Int32(outputs), gated ? 1 : 0)
        shape.storage =
            switch precision {
            case .float32: TF_FLOAT32
            case .float16: TF_FLOAT16
            case .bfloat16: kernels.hasBFloat16Dots ? TF_BFLOAT16_DOTS : TF_BFLOAT16
            }
        let packed = AlignedBuffer<UInt8>(count: tf_linear_weights(kernels.isa, &shape))
        tf_pack_linear(kernels.isa, &shape, weights, packed.pointer)
        let packedBias = AlignedBuffer<Float>(count: tf_linear_bias(kernels.isa, &shape))
        if let bias { tf_pack_bias(kernels.isa, &shape, bias, packedBias.pointer) }
        self.weights = .packed(ConstantBytes(packed), bias: ConstantBuffer(packedBias), storage: shape.storage)
    }

    /// - Parameters:
    ///   - input: any height x width x inputs
    ///   - residual: height x width x outputs, added
    /// - Returns: height x width x outputs
    package func callAsFunction(_ input: Activation, residual: Activation? = nil, workspace: Workspace) -> Activation {
        precondition(input.channels == inputs && input.height * input.width < 1 << 31)
        precondition(
            residual.map { ($0.height, $0.width, $0.channels) == (input.height, input.width, outputs) } ?? true)
        ComputeProgress.advance()
        switch weights {
        case .packed(let packed, let bias, let storage):
            let output = workspace.activation(height: input.height, width: input.width, channels: outputs)
            output.moments = nil
            var call = tf_linear()
            (call.rows, call.inputs, call.outputs) = (Int32(input.height * input.width), Int32(inputs), Int32(outputs))
            (call.input, call.input_step) = (UnsafePointer(input.values.pointer), inputs)
            (call.storage, call.gated, call.weights, call.bias) = (storage, gated ? 1 : 0, packed.pointer, bias.pointer)
            (call.residual, call.residual_step) = (residual.map { UnsafePointer($0.values.pointer) }, outputs)
            (call.output, call.output_step) = (output.values.pointer, outputs)
            tf_multiply(kernels.isa, &call, workspace.scratch(tf_linear_scratch(kernels.isa, &call)).pointer)
            withExtendedLifetime((input, residual)) {}
            return output
        case .plain(let weights, let bias):
            guard gated else {
                return product(input, weights, bias: bias, columns: outputs, residual: residual, workspace: workspace)
            }
            let both = product(input, weights, bias: bias, columns: 2 * outputs, residual: nil, workspace: workspace)
            let output = Gating.geglu(both, kernels: kernels, workspace: workspace)
            if let residual {
                var sum = output.mutableSpan
                let added = residual.span
                for i in sum.indices { sum[i] += added[i] }
            }
            return output
        }
    }

    private func product(
        _ input: Activation, _ weights: ConstantBuffer, bias: ConstantBuffer?, columns: Int, residual: Activation?,
        workspace: Workspace
    ) -> Activation {
        let output = workspace.activation(height: input.height, width: input.width, channels: columns)
        output.moments = nil
        let rows = input.height * input.width
        // What is added stands in the output before the product is.
        let to = output.values.pointer, added = residual?.values.pointer, bias = bias?.pointer
        for row in 0..<rows {
            for i in 0..<columns { to[row * columns + i] = (bias?[i] ?? 0) + (added?[row * columns + i] ?? 0) }
        }
        OpenBLAS.product(
            rows: rows, columns: columns, depth: inputs, UnsafePointer(input.values.pointer), step: inputs,
            weights.pointer, step: inputs,
            transposed: true, adding: true, to: output.values.pointer, step: columns)
        withExtendedLifetime((input, residual)) {}
        return output
    }

    /// Multiplications and additions for so many rows.
    package func flops(rows: Int) -> Double {
        2 * Double(rows) * Double(inputs) * Double(gated ? 2 * outputs : outputs)
    }
}

/// Matrix products of the calling thread.
enum OpenBLAS {
    /// Each lane computes alone; set once, before the first product. (The OpenMP build of OpenBLAS counts threads for
    /// each caller: there the environment, which `KernelEnvironment` sets, decides.)
    private static let singleThreaded: Void = openblas_set_num_threads(1)

    /// c = a b (or a b^T), or c += of it: rows x columns, all row-major with the given distances between rows.
    static func product(
        rows: Int, columns: Int, depth: Int, _ a: UnsafePointer<Float>, step aStep: Int, _ b: UnsafePointer<Float>,
        step bStep: Int,
        transposed: Bool, adding: Bool, to c: UnsafeMutablePointer<Float>, step cStep: Int
    ) {
        _ = singleThreaded
        cblas_sgemm(
            CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans, blasint(rows), blasint(columns),
            blasint(depth), 1, a,
            blasint(aStep), b, blasint(bStep), adding ? 1 : 0, c, blasint(cStep))
    }

    /// The kernels that OpenBLAS has chosen and its version, for example "SkylakeX-0.3.21": the same products have
    /// other bits in another one.
    static var core: String {
        // "OpenBLAS 0.3.21 DYNAMIC_ARCH ..."
        let version = String(cString: openblas_get_config()).split(separator: " ").dropFirst().first ?? "?"
        return "\(String(cString: openblas_get_corename()))-\(version)"
    }
}
