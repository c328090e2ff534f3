import Engine
import Foundation
import Testing

private func noise(
    _ window: Rect, channels: Int = 3, seed: UInt64 = 42, field: NoiseField = NoiseField(.initial)
) -> [Float] {
    var values = [Float](repeating: .nan, count: window.area * channels)
    var span = values.mutableSpan
    Noise.fill(&span, window: window, channels: channels, seed: seed, field: field)
    return values
}

private func correlation(_ a: [Float], _ b: [Float]) -> Double {
    zip(a, b).reduce(0) { $0 + Double($1.0) * Double($1.1) } / Double(a.count)
}

@Suite struct NoiseTests {
    // kat_vectors of Random123 1.14, philox4x32 10 rounds: counter, key, answer.
    @Test(
        "Philox gives the published answers",
        arguments: [
            (SIMD4<UInt32>(0, 0, 0, 0), UInt64(0), SIMD4<UInt32>(0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8)),
            (SIMD4(repeating: UInt32.max), UInt64.max, SIMD4(0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd)),
            (
                SIMD4(0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344), UInt64(0x299f_31d0_a409_3822),
                SIMD4(0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1)
            ),
        ])
    func philox(counter: SIMD4<UInt32>, key: UInt64, answer: SIMD4<UInt32>) {
        #expect(Philox4x32.block(counter: counter, key: key) == answer)
    }

    @Test("any window holds what the whole canvas has there", arguments: [1, 3, 4, 12])
    func windows(channels: Int) {
        var generator = SystemRandomNumberGenerator()
        let canvas = Rect(y: -7, x: -9, height: 40, width: 53)
        let whole = noise(canvas, channels: channels)
        for _ in 0..<50 {
            let (height, width) = (Int.random(in: 1...20, using: &generator), Int.random(in: 1...30, using: &generator))
            let window = Rect(
                y: .random(in: canvas.y...canvas.maxY - height, using: &generator),
                x: .random(in: canvas.x...canvas.maxX - width, using: &generator), height: height, width: width)
            let part = noise(window, channels: channels)
            for y in 0..<height {
                let start = ((window.y + y - canvas.y) * canvas.width + window.x - canvas.x) * channels
                #expect(
                    part[y * width * channels..<(y + 1) * width * channels] == whole[start..<start + width * channels])
            }
        }
    }

    @Test("the first channels are the same however many there are")
    func channels() {
        let window = Rect(y: 3, x: 5, height: 9, width: 17)
        let (three, four) = (noise(window, channels: 3), noise(window, channels: 4))
        for pixel in 0..<window.area {
            #expect(three[pixel * 3..<pixel * 3 + 3] == four[pixel * 4..<pixel * 4 + 3])
        }
    }

    @Test("the values are the same in every build and on every machine")
    func golden() {
        // Of this implementation, so that a change of the noise is noticed: it changes every picture.
        let values = noise(
            Rect(y: 0, x: 0, height: 1, width: 4), channels: 1, seed: 0x0123_4567_89ab_cdef,
            field: NoiseField(.sampler, step: 3))
        #expect(values.map(\.bitPattern) == [0xbf81_7041, 0x3d65_7958, 0xbe79_a8dc, 0xbe5c_d3a5])
    }

    @Test("the values are standard normals")
    func moments() {
        let values = noise(Rect(y: 0, x: 0, height: 1024, width: 1024), channels: 3).map { Double($0) }
        let count = Double(values.count)
        func moment(_ power: Double) -> Double { values.reduce(0) { $0 + pow($1, power) } / count }
        // Five standard errors of each moment.
        let error = 5 / count.squareRoot()
        #expect(abs(moment(1)) < error)
        #expect(abs(moment(2) - 1) < error * 2.0.squareRoot())
        #expect(abs(moment(3)) < error * 15.0.squareRoot())
        #expect(abs(moment(4) - 3) < error * 96.0.squareRoot())
        // The whole distribution: Kolmogorov and Smirnov, at one in ten million.
        let sorted = values.sorted()
        let distance = sorted.enumerated().reduce(0.0) { worst, item in
            let expected = 0.5 * erfc(-item.element / 2.0.squareRoot())
            return max(
                worst, abs(expected - Double(item.offset) / count), abs(expected - Double(item.offset + 1) / count))
        }
        #expect(distance * count.squareRoot() < 2.9)
        #expect(values.allSatisfy { $0.isFinite })
        #expect((4.5..<6.8).contains(values.map { abs($0) }.max() ?? 0))
    }

    @Test("neighbours, channels, steps, stages, purposes and seeds are independent of each other")
    func independence() {
        let window = Rect(y: 100, x: 200, height: 256, width: 256)
        let reference = noise(window)
        let limit = 5 / Double(reference.count).squareRoot()
        for x in 1...9 {
            #expect(abs(correlation(reference, noise(Rect(y: 100, x: 200 + x, height: 256, width: 256)))) < limit)
        }
        for y in 1...4 {
            #expect(abs(correlation(reference, noise(Rect(y: 100 + y, x: 200, height: 256, width: 256)))) < limit)
        }
        let others = [
            noise(window, seed: 43), noise(window, seed: 42 | 1 << 63), noise(window, field: NoiseField(.sampler)),
            noise(window, field: NoiseField(.initial, stage: 1)), noise(window, field: NoiseField(.sampler, step: 1)),
        ]
        for (index, other) in others.enumerated() {
            #expect(abs(correlation(reference, other)) < limit)
            for another in others[..<index] { #expect(abs(correlation(another, other)) < limit) }
        }
        let shifted = Array(reference[1...] + reference[..<1])  // the next channel
        #expect(abs(correlation(reference, shifted)) < limit)
    }

    @Test(
        "normals are right to single precision, and the same bits whatever the kernels", arguments: KernelSet.available)
    func functions(kernels: KernelSet) {
        var generator = SystemRandomNumberGenerator()
        var radii = (0..<100_000).map { _ in UInt32.random(in: .min ... .max, using: &generator) },
            angles = Array(radii.shuffled())
        // The extremes: as far out as noise can be, and zero; and every quadrant's edge.
        radii.replaceSubrange(0..<4, with: [0, 1, .max, 1 << 31])
        angles.replaceSubrange(0..<8, with: [0, 0, 0, .max, 1 << 31, 1 << 29, 1 << 30, 7 << 29])
        let count = radii.count
        func normals(_ kernels: KernelSet) -> [Float] {
            var values = [Float](repeating: .nan, count: 2 * count)
            var span = values.mutableSpan
            BoxMuller.fill(&span, at: 0, count, radii: radii, angles: angles, kernels: kernels)
            return values
        }
        let values = normals(kernels)
        #expect(values.map(\.bitPattern) == normals(.baseline).map(\.bitPattern))
        for index in 0..<count {
            let uniform = Double(Float((Double(radii[index]) + 0.5) * 0x1p-32))
            let radius = (-2 * log(uniform)).squareRoot(), angle = Double(angles[index]) * 2 * .pi * 0x1p-32
            #expect(
                abs(Double(values[index]) - radius * cos(angle)) <= 1e-6 * radius
                    && abs(Double(values[count + index]) - radius * sin(angle)) <= 1e-6 * radius)
        }
        #expect((6.6..<6.8).contains(values[0]) && abs(values[2]) < 1e-3)
    }

    @Test("Philox gives the same whatever the kernels, over the end of its counter too", arguments: KernelSet.available)
    func kernels(_ kernels: KernelSet) {
        let zeros = [UInt32](repeating: 0, count: 100)
        var (a, b, c, d) = (zeros, zeros, zeros, zeros)
        Philox4x32.fill(
            &a, &b, &c, &d, counter: SIMD4(.max - 50, 2, 3, 4), key: 0x0123_4567_89ab_cdef, kernels: kernels)
        for index in 0..<100 {
            let block = Philox4x32.block(
                counter: SIMD4(.max - 50 &+ UInt32(index), 2, 3, 4), key: 0x0123_4567_89ab_cdef)
            #expect(SIMD4(a[index], b[index], c[index], d[index]) == block)
        }
    }
}
