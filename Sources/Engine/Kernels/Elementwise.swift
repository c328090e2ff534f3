package enum Elementwise {
    /// Whether no value is infinite or not a number. Integer arithmetic, so that the compiler works on many at once.
    package static func isFinite(_ values: Span<Float>) -> Bool {
        values.withUnsafeBufferPointer { values in
            var bad: UInt32 = 0
            for value in values { bad |= (value.bitPattern & 0x7F80_0000) &+ 0x0080_0000 }
            return bad & 0x8000_0000 == 0
        }
    }

    /// sums[i] += factor * values[i], product and sum rounded each.
    package static func add(_ values: Span<Float>, times factor: Float, to sums: inout MutableSpan<Float>) {
        precondition(values.count == sums.count)
        values.withUnsafeBufferPointer { values in
            sums.withUnsafeMutableBufferPointer { sums in
                guard let from = values.baseAddress, let to = sums.baseAddress else { return }
                for i in 0..<values.count { to[i] += factor * from[i] }
            }
        }
    }
}
