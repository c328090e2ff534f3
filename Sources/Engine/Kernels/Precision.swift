/// How a layer's packed weights stand in memory, and its arithmetic.
public enum Precision: String, Sendable, Hashable, CaseIterable {
    case float32, float16, bfloat16
}
