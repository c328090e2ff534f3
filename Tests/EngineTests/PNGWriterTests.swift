import Engine
import Glibc
import Testing

@Suite("Writing PNG files")
struct PNGWriterTests {
    let scratch = ScratchDirectory()

    func image(_ width: Int, _ height: Int, alpha: Bool, grey: Bool, steps: Int, seed: UInt64) -> RGBImage {
        var cases = SplitMix64(seed: Int(truncatingIfNeeded: seed))
        var image = RGBImage(width: width, height: height)
        for i in 0..<width * height {
            for c in 0..<3 {
                image.pixels[3 * i + c] =
                    grey && c > 0 ? image.pixels[3 * i] : Float(Int.random(in: 0...steps, using: &cases)) / Float(steps)
            }
            if alpha { image.alpha.append(Float(Int.random(in: 0...steps, using: &cases)) / Float(steps)) }
        }
        return image
    }

    func write(_ image: RGBImage, to writer: PNGWriter, rows: Int? = nil) throws {
        let width = image.width
        for y in 0..<(rows ?? image.height) {
            try writer.writeRow(
                rgb: image.pixels.span.extracting(y * width * 3..<(y + 1) * width * 3),
                alpha: image.alpha.span.extracting(image.alpha.isEmpty ? 0..<0 : y * width..<(y + 1) * width))
        }
    }

    @Test("what is written is read back exactly", arguments: [8, 16], [false, true])
    func roundTrip(bitDepth: Int, grey: Bool) throws {
        var cases = SplitMix64(seed: 11)
        let random = (0..<4).map { _ in (Int.random(in: 2...70, using: &cases), Int.random(in: 2...70, using: &cases)) }
        for alpha in [false, true] {
            for size in [(1, 1), (1, 9), (9, 1)] + random {
                let image = image(size.0, size.1, alpha: alpha, grey: grey, steps: 1 << bitDepth - 1, seed: 12)
                let path = "\(scratch.path)/a.png"
                let writer = try PNGWriter(
                    path: path, width: size.0, height: size.1, bitDepth: bitDepth, grey: grey, alpha: alpha)
                try write(image, to: writer)
                try writer.finish()
                let reader = try PNGReader(path: path)
                #expect(reader.bitDepth == bitDepth && reader.isGrey == grey && reader.hasAlpha == alpha)
                #expect(try RGBImage(png: path) == image)
                #expect(
                    contents(of: path).count
                        <= PNGWriter.largestSize(
                            width: size.0, height: size.1, bitDepth: bitDepth, grey: grey, alpha: alpha))
                #expect(scratch.names == ["a.png"])
            }
        }
    }

    @Test("the same rows give the same bytes, without a time in them")
    func deterministic() throws {
        let image = image(40, 30, alpha: true, grey: false, steps: 255, seed: 13)
        let files = try ["a.png", "b.png"].map { name in
            let path = "\(scratch.path)/\(name)"
            let writer = try PNGWriter(path: path, width: 40, height: 30, bitDepth: 8, grey: false, alpha: true)
            try write(image, to: writer)
            try writer.finish()
            return contents(of: path)
        }
        #expect(files[0] == files[1])
        #expect(!files[0].isEmpty)
    }

    @Test("values are clamped, rounded to nearest with halves up, and NaN is black")
    func rounding() throws {
        let values: [Float] = [
            -.infinity, -1, -0.001, 0, 0.5 / 255, 0.499 / 255, 1.5 / 255, 254.5 / 255, 254.4 / 255, 1, 7, .nan,
        ]
        let expected: [Float] = [0, 0, 0, 0, 1, 0, 2, 255, 254, 255, 255, 0]
        let path = "\(scratch.path)/a.png"
        let writer = try PNGWriter(path: path, width: 4, height: 1, bitDepth: 8, grey: false, alpha: false)
        try writer.writeRow(rgb: values.span, alpha: [Float]().span)
        try writer.finish()
        #expect(try RGBImage(png: path).pixels == expected.map { $0 / 255 })
    }

    @Test("a side beyond libpng's million is written and read")
    func wide() throws {
        let path = "\(scratch.path)/wide.png"
        let width = 1_500_000
        let row = (0..<width * 3).map { Float($0 / 3 % 256) / 255 }
        let writer = try PNGWriter(path: path, width: width, height: 2, bitDepth: 8, grey: true, alpha: false)
        for _ in 0..<2 { try writer.writeRow(rgb: row.span, alpha: [Float]().span) }
        try writer.finish()
        #expect(try RGBImage(png: path).pixels == row + row)
    }

    /// Rows that are hard for one part of the compression or another, of more than one of its blocks.
    private static func difficult(_ kind: String, _ count: Int) -> [UInt8] {
        var cases = SplitMix64(seed: 17)
        switch kind {
        case "flat": return [UInt8](repeating: 77, count: count)
        case "noise": return (0..<count).map { _ in .random(in: 0...255, using: &cases) }
        case "runs":
            var bytes: [UInt8] = []
            while bytes.count < count {
                bytes += [UInt8](
                    repeating: .random(in: 0...255, using: &cases), count: .random(in: 1...700, using: &cases))
            }
            return Array(bytes[..<count])
        // Rare bytes in a row, whose codes are long.
        case "bursts":
            var bytes: [UInt8] = []
            while bytes.count < count {
                bytes += (0..<Int.random(in: 1...3000, using: &cases)).map { UInt8($0 % 2) }
                bytes += (0..<Int.random(in: 0...40, using: &cases)).map { _ in .random(in: 0...255, using: &cases) }
            }
            return Array(bytes[..<count])
        // Frequencies that ask for codes far longer than are allowed.
        case "skewed":
            return (0..<count).map { _ in
                UInt8(truncatingIfNeeded: UInt64.random(in: 0...(.max), using: &cases).leadingZeroBitCount)
            }
        default: return (0..<count).map { UInt8(truncatingIfNeeded: $0 / 3) }
        }
    }

    @Test(
        "any bytes come back, and none take more than they must",
        arguments: ["flat", "noise", "runs", "bursts", "skewed", "steps"])
    func compression(kind: String) throws {
        let path = "\(scratch.path)/a.png"
        for (width, height, format) in [
            (1, 1, PixelFormat(grey: true, alpha: false, bitDepth: 8)),
            (131_071, 3, PixelFormat(grey: true, alpha: false, bitDepth: 8)),
            (65_535, 2, PixelFormat(grey: true, alpha: true, bitDepth: 8)),
            (777, 211, PixelFormat(grey: false, alpha: false, bitDepth: 16)),
            (100_003, 4, PixelFormat(grey: false, alpha: true, bitDepth: 16)),
        ] {
            let rowBytes = format.rowBytes(width: width)
            let bytes = Self.difficult(kind, rowBytes * height)
            let writer = try PNGWriter(
                path: path, width: width, height: height, bitDepth: format.bitDepth, grey: format.isGrey,
                alpha: format.hasAlpha)
            for y in 0..<height { try writer.writeRow(bytes.span.extracting(y * rowBytes..<(y + 1) * rowBytes)) }
            try writer.finish()

            let reader = try PNGReader(path: path)
            #expect(reader.format == format)
            var read: [UInt8] = []
            var row = [UInt8](repeating: 0, count: rowBytes)
            for _ in 0..<height {
                var span = row.mutableSpan
                try reader.readRow(samples: &span)
                read += row
            }
            #expect(read == bytes)
            let size = contents(of: path).count
            #expect(
                size
                    <= PNGWriter.largestSize(
                        width: width, height: height, bitDepth: format.bitDepth, grey: format.isGrey,
                        alpha: format.hasAlpha))
            if kind == "flat", bytes.count > 100_000 { #expect(size < bytes.count / 50) }
        }
    }

    @Test(
        """
        a picture with flat margins is as small where its rows have the length that counts repeat with as where they \
        have not
        """
    )
    func margins() throws {
        func size(width: Int) throws -> Int {
            var cases = SplitMix64(seed: 4)
            let path = "\(scratch.path)/m.png"
            let writer = try PNGWriter(path: path, width: width, height: 1024, bitDepth: 8, grey: true, alpha: false)
            for _ in 0..<1024 {
                let row = (0..<width).map {
                    abs(2 * $0 - width) > width / 2 ? 255 : UInt8.random(in: 100...115, using: &cases)
                }
                try writer.writeRow(row.span)
            }
            try writer.finish()
            return contents(of: path).count
        }
        #expect(Double(try size(width: 4096)) < 1.1 * Double(try size(width: 3900)) * 4096 / 3900)
    }

    @Test(
        "numbers become the nearest samples, halves upwards, whatever the kernels, the channels and the depth",
        arguments: KernelSet.available, [8, 16])
    func quantization(kernels: KernelSet, bitDepth: Int) {
        let steps: Float = bitDepth == 8 ? 255 : 65535
        func plain(_ value: Float) -> Int { value.isNaN ? 0 : Int(min(max(value, 0), 1) * steps + 0.5) }
        var cases = SplitMix64(seed: 18)
        var values: [Float] = [
            .nan, .infinity, -.infinity, -0.0, .leastNonzeroMagnitude, .greatestFiniteMagnitude, -1, 2,
        ]
        for step in 0...Int(steps) {
            let half = (Float(step) + 0.5) / steps
            values += [Float(step) / steps, half, half.nextUp, half.nextDown, .random(in: -0.1...1.1, using: &cases)]
        }
        func packed(_ rgb: Span<Float>, alpha: Span<Float>, grey: Bool) -> [Int] {
            let format = PixelFormat(grey: grey, alpha: !alpha.isEmpty, bitDepth: bitDepth)
            var bytes = [UInt8](repeating: 9, count: format.rowBytes(width: rgb.count / 3))
            var span = bytes.mutableSpan
            format.pack(rgb: rgb, alpha: alpha, into: &span, kernels: kernels)
            return bitDepth == 8
                ? bytes.map(Int.init)
                : stride(from: 0, to: bytes.count, by: 2).map { Int(bytes[$0]) << 8 | Int(bytes[$0 + 1]) }
        }
        // Every number of values, for what is left over when a vector is full; then all.
        for count in Array(stride(from: 0, through: 150, by: 3)) + [values.count / 3 * 3] {
            let rgb = Array(values[..<count]), pixels = stride(from: 0, to: count, by: 3)
            let alpha = Array(rgb[..<(count / 3)]), means = pixels.map { (rgb[$0] + rgb[$0 + 1] + rgb[$0 + 2]) / 3 }
            #expect(packed(rgb.span, alpha: [Float]().span, grey: false) == rgb.map(plain))
            #expect(packed(rgb.span, alpha: [Float]().span, grey: true) == means.map(plain))
            guard count > 0 else { continue }
            #expect(
                packed(rgb.span, alpha: alpha.span, grey: false)
                    == pixels.flatMap { rgb[$0..<$0 + 3] + [alpha[$0 / 3]] }.map(plain))
            #expect(
                packed(rgb.span, alpha: alpha.span, grey: true) == zip(means, alpha).flatMap { [plain($0), plain($1)] })
        }
    }
}
