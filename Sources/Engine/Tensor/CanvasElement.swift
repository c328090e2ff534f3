/// How the numbers of a canvas are stored, and those that are cut out of it and written into it sent. What is computed
/// with is float32.
public enum CanvasElement: String, Sendable, Hashable, CaseIterable, Codable {
    case float32, float16

    /// Bytes of one.
    public var size: Int { self == .float32 ? 4 : 2 }
}
