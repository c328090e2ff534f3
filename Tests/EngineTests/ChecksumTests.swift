import Engine
import Testing

@Suite("Checksum")
struct ChecksumTests {
    static func checksum(_ bytes: [UInt8], _ elements: Checksum.Elements, _ kernels: KernelSet) -> Checksum {
        Checksum(bytes.span.bytes, of: elements, kernels: kernels)
    }

    @Test("the check values of RFC 3720, appendix B.4, come out", arguments: KernelSet.available)
    func known(kernels: KernelSet) {
        #expect(Self.checksum(Array("123456789".utf8), .bytes, kernels).crc32c == 0xe306_9283)
        #expect(Self.checksum(Array(repeating: 0, count: 32), .bytes, kernels).crc32c == 0x8a91_36aa)
        #expect(Self.checksum(Array(repeating: 0xff, count: 32), .bytes, kernels).crc32c == 0x62a8_ab43)
        #expect(Self.checksum(Array(0..<32), .bytes, kernels).crc32c == 0x46dd_794e)
        #expect(Self.checksum([], .floats, kernels) == Self.checksum([], .bytes, kernels))
    }

    @Test("every length and alignment has the sum of a bit-by-bit reference, whatever the kernels")
    func lengths() {
        // Long ones are done in blocks of their own.
        for count in Array(0..<70) + [3071, 3072, 3073, 3080, 6143, 6144, 6145, 9300] {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ count) }
            var sum = UInt32.max
            for byte in bytes {
                sum ^= UInt32(byte)
                for _ in 0..<8 { sum = sum >> 1 ^ (sum & 1 == 1 ? 0x82f6_3b78 : 0) }
            }
            for kernels in KernelSet.available { #expect(Self.checksum(bytes, .bytes, kernels).crc32c == ~sum) }
        }
    }

    @Test("one value that is not finite is seen in every part of a long tensor", arguments: KernelSet.available)
    func finiteLong(kernels: KernelSet) {
        var values = [Float](repeating: .greatestFiniteMagnitude, count: 1603)
        #expect(Checksum(values.span.bytes, of: .floats, kernels: kernels).isFinite)
        for place in values.indices {
            values[place] = .infinity
            #expect(!Checksum(values.span.bytes, of: .floats, kernels: kernels).isFinite)
            values[place] = 0
        }
    }

    @Test(
        "one value that is not finite is seen wherever it stands, and finite ones never are",
        arguments: KernelSet.available)
    func finite(kernels: KernelSet) {
        for count in 1..<20 {
            let good: [Float] = (0..<count).map {
                [0, -0, .greatestFiniteMagnitude, -.greatestFiniteMagnitude, .leastNonzeroMagnitude][$0 % 5]
            }
            #expect(Checksum(good.span.bytes, of: .floats, kernels: kernels).isFinite)
            let wide = good.map(Double.init)
            #expect(Checksum(wide.span.bytes, of: .doubles, kernels: kernels).isFinite)
            let halves = good.map { Float16(max(min($0, 65504), -65504)).bitPattern }
            #expect(Checksum(halves.span.bytes, of: .halves, kernels: kernels).isFinite)
            for place in 0..<count {
                for value in [Float.nan, .infinity, -.infinity] {
                    var bad = good
                    bad[place] = value
                    #expect(!Checksum(bad.span.bytes, of: .floats, kernels: kernels).isFinite)
                    let doubles = bad.map(Double.init)
                    #expect(!Checksum(doubles.span.bytes, of: .doubles, kernels: kernels).isFinite)
                    let halves = bad.map { Float16($0).bitPattern }
                    #expect(!Checksum(halves.span.bytes, of: .halves, kernels: kernels).isFinite)
                    #expect(Checksum(bad.span.bytes, of: .bytes, kernels: kernels).isFinite)
                }
            }
        }
    }
}
