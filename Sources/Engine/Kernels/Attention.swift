internal import CKernels

/// softmax(q k^T / sqrt(width of a head)) v for each head (Vaswani et al., arXiv:1706.03762, equation 1).
package enum Attention {
    /// How much of a score matrix is held at a time, in floats.
    static let scoreLimit = 1 << 18

    /// - Parameters:
    ///   - query: height x width x (at least heads * headWidth), the head's channels side by side, from channel `queryAt` on
    ///   - key: the same for as many other positions, from channel `keyAt` on
    ///   - value: positions as `key`, from channel `valueAt` on
    ///   - causal: whether query i reads only keys 0...i, as a language model's does
    /// - Returns: of the query's height and width, heads * headWidth channels
    package static func attend(
        query: Activation, at queryAt: Int = 0, key: Activation, at keyAt: Int = 0, value: Activation, at valueAt: Int = 0,
        heads: Int, headWidth: Int, causal: Bool = false, kernels: KernelSet, workspace: Workspace
    ) -> Activation {
        let inner = heads * headWidth
        precondition(queryAt + inner <= query.channels && keyAt + inner <= key.channels && valueAt + inner <= value.channels)
        precondition((key.height, key.width) == (value.height, value.width))
        let (queries, keys) = (query.height * query.width, key.height * key.width)
        let output = workspace.activation(height: query.height, width: query.width, channels: inner)
        output.moments = nil
        let block = max(1, min(queries, scoreLimit / max(1, keys)))
        let scores = workspace.buffer(block * keys)
        for head in 0..<heads {
            let at = head * headWidth
            for row in stride(from: 0, to: queries, by: block) {
                let rows = min(block, queries - row)
                OpenBLAS.product(
                    rows: rows, columns: keys, depth: headWidth,
                    UnsafePointer(query.values.pointer) + row * query.channels + queryAt + at, step: query.channels,
                    UnsafePointer(key.values.pointer) + keyAt + at, step: key.channels,
                    transposed: true, adding: false, to: scores.pointer, step: keys)
                if causal {
                    for i in 0..<rows {
                        for j in min(keys, row + i + 1)..<keys { scores.pointer[i * keys + j] = -.infinity }
                    }
                }
                tf_softmax(kernels.isa, scores.pointer, rows, keys, keys, 1 / Float(headWidth).squareRoot())
                OpenBLAS.product(
                    rows: rows, columns: headWidth, depth: keys, scores.pointer, step: keys,
                    UnsafePointer(value.values.pointer) + valueAt + at, step: value.channels,
                    transposed: false, adding: false, to: output.values.pointer + row * inner + at, step: inner)
            }
        }
        withExtendedLifetime((query, key, value)) {}
        return output
    }
}
