enum Noise {
    static func draw(seed: UInt64, step: Int, index: Int, below bound: UInt32) -> UInt32 {
        var z = seed &+ 0x9E37_79B9_7F4A_7C15 &* UInt64(truncatingIfNeeded: step * 2 + index + 1)
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        z ^= z >> 31
        return UInt32(((z >> 32) * UInt64(bound)) >> 32)
    }
}
