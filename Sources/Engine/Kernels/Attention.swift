internal import CKernels

/// softmax(q k^T / sqrt(width of a head)) v for each head (Vaswani et al., arXiv:1706.03762, equation 1), in blocks of
/// queries and keys whose scores never leave the processor's caches (Dao et al., arXiv:2205.14135).
package enum Attention {
    /// - Parameters:
    ///   - query: height x width x (at least heads * headWidth), the head's channels side by side, from channel
    ///     `queryAt` on
    ///   - key: the same for as many other positions, from channel `keyAt` on
    ///   - value: positions as `key`, from channel `valueAt` on
    ///   - causal: whether query i reads only keys 0...i, as a language model's does
    /// - Returns: of the query's height and width, heads * headWidth channels
    package static func attend(
        query: Activation, at queryAt: Int = 0, key: Activation, at keyAt: Int = 0, value: Activation,
        at valueAt: Int = 0,
        heads: Int, headWidth: Int, causal: Bool = false, kernels: KernelSet, workspace: Workspace
    ) -> Activation {
        let inner = heads * headWidth
        let (queries, keys) = (query.height * query.width, key.height * key.width)
        precondition(min(queryAt, keyAt, valueAt) >= 0 && heads > 0 && headWidth > 0 && keys > 0)
        precondition(
            queryAt + inner <= query.channels && keyAt + inner <= key.channels && valueAt + inner <= value.channels)
        precondition((key.height, key.width) == (value.height, value.width))
        precondition(max(queries, keys, inner) < 1 << 30, "the kernels count in 32 bits")
        ComputeProgress.advance()
        let output = workspace.activation(height: query.height, width: query.width, channels: inner)
        output.moments = nil
        var call = tf_attention()
        (call.queries, call.keys, call.heads, call.width) = (
            Int32(queries), Int32(keys), Int32(heads), Int32(headWidth)
        )
        call.causal = causal ? 1 : 0
        (call.query, call.query_step) = (UnsafePointer(query.values.pointer) + queryAt, query.channels)
        (call.key, call.key_step) = (UnsafePointer(key.values.pointer) + keyAt, key.channels)
        (call.value, call.value_step) = (UnsafePointer(value.values.pointer) + valueAt, value.channels)
        (call.output, call.output_step) = (output.values.pointer, inner)
        tf_attend(kernels.isa, &call, workspace.scratch(tf_attention_scratch(kernels.isa, &call)).pointer)
        withExtendedLifetime((query, key, value)) {}
        return output
    }
}
