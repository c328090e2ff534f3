public import Engine

extension Frame: TaskTensor {
    public func withFloats<R>(_ body: (Span<Float>) throws -> R) throws -> R {
        try withValues(of: Float.self) { values throws in try body(values) }
    }

    public var text: String { withBytes { String(decoding: $0, as: UTF8.self) } }
}
