import Engine
import Testing

@Suite("PNG kernels")
struct PNGKernelTests {
    private static func random(_ count: Int, seed: Int) -> [UInt8] {
        var cases = SplitMix64(seed: seed)
        return (0..<count).map { _ in .random(in: 0...255, using: &cases) }
    }

    @Test(
        "the average filter takes half of left and above, rounded down, in any part of a row",
        arguments: KernelSet.available)
    func filter(kernels: KernelSet) {
        let (row, above) = (Self.random(400, seed: 1), Self.random(400, seed: 2))
        for pixelBytes in 1...8 {
            for count in Array(0..<70) + [300] {
                let (start, target) = (8 + count % 5, count % 3)
                var filtered = [UInt8](repeating: 9, count: target + count + 1)
                do {
                    var span = filtered.mutableSpan
                    PNGKernels.filter(
                        row.span, above: above.span, start: start, count: count, pixelBytes: pixelBytes, into: &span,
                        at: target, kernels: kernels)
                }
                let expected = (start..<start + count).map {
                    row[$0] &- UInt8((Int(row[$0 - pixelBytes]) + Int(above[$0])) / 2)
                }
                #expect(filtered == [UInt8](repeating: 9, count: target) + expected + [9])
            }
        }
    }

    @Test("Adler-32 of any length is the sum of RFC 1950, in one part or two", arguments: KernelSet.available)
    func adler(kernels: KernelSet) {
        #expect(PNGKernels.adler32(1, Array("Wikipedia".utf8).span, kernels: kernels) == 0x11E6_0398)
        for bytes in [Self.random(20_000, seed: 3), [UInt8](repeating: 255, count: 20_000)] {
            var (low, high) = (1, 0)
            for (i, byte) in bytes.enumerated() {
                (low, high) = ((low + Int(byte)) % 65521, (high + low + Int(byte)) % 65521)
                guard i < 40 || i % 1023 < 3 || i + 1 == bytes.count else { continue }
                let first = PNGKernels.adler32(1, bytes.span.extracting(0..<i / 3), kernels: kernels)
                #expect(
                    PNGKernels.adler32(first, bytes.span.extracting(i / 3..<i + 1), kernels: kernels)
                        == UInt32(high << 16 | low))
            }
        }
    }

    @Test(
        "every width is halved to means of 2x2 pixels, halves upwards, the last counting twice",
        arguments: KernelSet.available, [1, 3])
    func halving(kernels: KernelSet, channels: Int) {
        for width in Array(1...40) + [255, 256, 257, 258, 1001] {
            let (above, below) = (Self.random(width * channels, seed: 4), Self.random(width * channels, seed: 5))
            var half = [UInt8](repeating: 0, count: (width + 1) / 2 * channels)
            do {
                var span = half.mutableSpan
                PNGKernels.halve(
                    above.span, below.span, width: width, channels: channels, into: &span, kernels: kernels)
            }
            let expected = half.indices.map { i in
                let (left, right) = (2 * (i / channels), min(2 * (i / channels) + 1, width - 1))
                let sum = [left, right].reduce(0) {
                    $0 + Int(above[$1 * channels + i % channels]) + Int(below[$1 * channels + i % channels])
                }
                return UInt8((sum + 2) / 4)
            }
            #expect(half == expected)
        }
    }

    /// Common bytes that are no runs, and now and then runs and rows of rare bytes, whose codes are long.
    private static func bursts(_ count: Int, seed: Int) -> [UInt8] {
        var cases = SplitMix64(seed: seed)
        var bytes: [UInt8] = []
        while bytes.count < count {
            bytes += (0..<Int.random(in: 1...3000, using: &cases)).map { UInt8($0 % 2) }
            bytes += (0..<Int.random(in: 0...40, using: &cases)).map { _ in .random(in: 0...255, using: &cases) }
            bytes += [UInt8](repeating: 7, count: .random(in: 0...300, using: &cases))
        }
        return Array(bytes[..<count])
    }

    @Test("deflate gives the same bytes whatever the kernels, no longer than stored ones")
    func deflate() {
        for (seed, count) in (Array(1..<80) + [511, 4096, 32_767, 32_768, 70_003, 131_072]).enumerated() {
            for bytes in [
                Self.bursts(count, seed: seed), Self.random(count, seed: seed), [UInt8](repeating: 3, count: count),
            ] {
                let outputs = KernelSet.available.map { kernels in
                    var deflate = Deflate(kernels: kernels)
                    var output = [UInt8](repeating: 0, count: 2 * Deflate.room(count))
                    var span = output.mutableSpan
                    // Two blocks, so that the second begins within a byte.
                    let middle = deflate.compress(bytes.span, isLast: false, into: &span, at: 0)
                    let end = deflate.compress(bytes.span, isLast: true, into: &span, at: middle)
                    return Array(output[..<end])
                }
                #expect(outputs.allSatisfy { $0 == outputs[0] })
                #expect(outputs[0].count <= 2 * (count + 5 * (count / 65535 + 1)) + 2)
            }
        }
    }
}
