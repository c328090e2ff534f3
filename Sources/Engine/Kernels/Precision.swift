/// How a layer's weights stand in memory, and its arithmetic. Activations are single precision everywhere.
public enum Precision: String, Sendable, Hashable, CaseIterable, Codable {
    /// Single precision, both.
    case float32
    /// Weights in half precision (exact for a folder that has them so), arithmetic in single precision.
    case float16
    /// Weights rounded to bfloat16. With `KernelSet.avx512bf16` their products are the processor's dot products of
    /// bfloat16 pairs: the layer's input is rounded to bfloat16 too and the sums are single precision. With other
    /// kernels, and in convolutions, the arithmetic is single precision.
    case bfloat16
}
