package enum Elementwise {
    /// Whether no value is infinite or not a number. Integer arithmetic, so that the compiler works on many at once.
    package static func isFinite(_ values: Span<Float>) -> Bool {
        values.withUnsafeBufferPointer { values in
            var bad: UInt32 = 0
            for value in values { bad |= (value.bitPattern & 0x7F80_0000) &+ 0x0080_0000 }
            return bad & 0x8000_0000 == 0
        }
    }
}
