import Engine
import Glibc
import Testing

@Suite("Reading PNG files")
struct PNGReaderTests {
    let scratch = ScratchDirectory()

    @Test("every colour type, depth, interlacing and transparency is read exactly", arguments: PNGSample.all(seed: 1))
    func everyKind(sample: PNGSample) throws {
        let path = scratch.file("a.png", sample.encoded)
        let reader = try PNGReader(path: path)
        #expect(reader.width == sample.width && reader.height == sample.height)
        #expect(reader.bitDepth == (sample.depth == 16 ? 16 : 8))
        #expect(reader.isGrey == sample.isGrey && reader.hasAlpha == sample.hasAlpha)
        #expect(try RGBImage(png: path) == sample.expected)

        // The samples as they are stored, turned into numbers later.
        var image = RGBImage(width: sample.width, height: sample.height)
        for _ in 0..<sample.height {
            var samples = [UInt8](repeating: 0, count: reader.format.rowBytes(width: sample.width))
            var span = samples.mutableSpan
            try reader.readRow(samples: &span)
            var rgb = [Float](repeating: 0, count: sample.width * 3)
            var alpha = [Float](repeating: 0, count: sample.hasAlpha ? sample.width : 0)
            var rgbSpan = rgb.mutableSpan
            var alphaSpan = alpha.mutableSpan
            reader.format.unpack(samples.span, rgb: &rgbSpan, alpha: &alphaSpan)
            image.pixels.replaceSubrange((reader.row - 1) * rgb.count..<reader.row * rgb.count, with: rgb)
            image.alpha += alpha
        }
        #expect(image == sample.expected)
    }

    // Made by Pillow 13: a 3x2 palette image of indices 0 1 2 / 3 1 0, without and with transparency=bytes([0, 128,
    // 255]); a 9x2 one-bit image, 255 and 0 in turn; a 3x2 16-bit image.
    @Test("files of another encoder are read exactly")
    func pillow() throws {
        let head = "89504e470d0a1a0a0000000d49484452"
        let palette = head + "00000003000000020203000000e01a8e890000000c504c54450a141ec86432ffffff0000006071083e"
        let transparency = "0000000374524e530080ffecf7b318"
        let indices = "0000000c49444154789c639060b80000011c00e9fc95490a0000000049454e44ae426082"
        let colors: [[Float]] = [
            [10, 20, 30], [200, 100, 50], [255, 255, 255], [0, 0, 0], [200, 100, 50], [10, 20, 30],
        ]
        let opaque = try RGBImage(png: scratch.file("p.png", bytes(hex: palette + indices)))
        #expect(opaque.pixels == colors.flatMap { $0 }.map { $0 / 255 })
        #expect(opaque.alpha.isEmpty)
        let clear = try RGBImage(png: scratch.file("t.png", bytes(hex: palette + transparency + indices)))
        #expect(clear.pixels == opaque.pixels)
        #expect(clear.alpha == [0, 128, 255, 255, 128, 0].map { $0 / 255 })

        let oneBit = "00000009000000020100000000a22dcb7e0000000e49444154789c635c758d21940100076001d74370aab6"
        let bits = try RGBImage(png: scratch.file("1.png", bytes(hex: head + oneBit + "0000000049454e44ae426082")))
        #expect(bits.pixels == (0..<18).flatMap { [Float](repeating: $0 % 2 == 0 ? 1 : 0, count: 3) })

        let deep =
            "00000003000000021000000000e88fe5850000001649444154789c63606060606c6060f8ff9f91c1c01200102a02ea73ccf966"
        let grey = try RGBImage(png: scratch.file("16.png", bytes(hex: head + deep + "0000000049454e44ae426082")))
        #expect(grey.pixels == [0, 1, 32768, 65535, 256, 12345].flatMap { [Float](repeating: $0 / 65535, count: 3) })
    }

    @Test("a file cut at any length is a named error", arguments: [false, true])
    func truncation(interlaced: Bool) throws {
        var cases = SplitMix64(seed: 2)
        let file = PNGSample(.palette, 4, interlaced, true, using: &cases).encoded
        for length in 0..<file.count {
            let path = scratch.file("cut.png", Array(file[..<length]))
            let error = #expect(throws: PNGError.self) { try RGBImage(png: path) }
            switch error {
            case .empty: #expect(length == 0)
            case .truncated, .implausibleSize: break
            default: Issue.record("\(length) of \(file.count) bytes: \(String(describing: error))")
            }
        }
    }

    @Test("damaged bytes are an error or an image, never a crash", arguments: [false, true])
    func damage(repairing: Bool) throws {
        var cases = SplitMix64(seed: repairing ? 3 : 4)
        let files = PNGSample.all(seed: 5).map(\.encoded)
        var readable = 0
        for _ in 0..<2_000 {
            var file = files.randomElement(using: &cases) ?? []
            for _ in 0...Int.random(in: 0...3, using: &cases) {
                file[.random(in: 8..<file.count, using: &cases)] = .random(in: 0...255, using: &cases)
            }
            let path = scratch.file("bad.png", repairing ? withChecksumsRepaired(file) : file)
            do {
                _ = try RGBImage(png: path, pixelLimit: 1 << 20)
                readable += 1
            } catch is PNGError {}
        }
        #expect(readable < 2_000)
        if repairing { #expect(readable > 100, "the damage should reach the pixels") }
    }

    @Test("a header that promises too much is refused before anything is allocated")
    func sizes() throws {
        func header(_ width: UInt32, _ height: UInt32, interlaced: Bool = false) -> String {
            let data = bigEndian(width) + bigEndian(height) + [8, 6, 0, 0, interlaced ? 1 : 0]
            let signature: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
            return scratch.file(
                "head.png", signature + chunk("IHDR", data) + chunk("IDAT", [UInt8](repeating: 0, count: 3_000)))
        }
        func error(_ path: String, pixelLimit: Int = 1 << 31, memoryLimit: Int = 1 << 30) -> PNGError? {
            #expect(throws: PNGError.self) {
                try PNGReader(path: path, pixelLimit: pixelLimit, memoryLimit: memoryLimit)
            }
        }
        let path = header(0, 5)
        #expect(error(path) == .noPixels(path: path, width: 0, height: 5))
        #expect(error(header(5, 0)) == .noPixels(path: path, width: 5, height: 0))
        #expect(
            error(header(0x7FFF_FFFF, 0x7FFF_FFFF))
                == .tooManyPixels(path: path, width: 0x7FFF_FFFF, height: 0x7FFF_FFFF, limit: 1 << 31))
        #expect(error(header(0xFFFF_FFFF, 0xFFFF_FFFF)) != nil)
        #expect(error(header(0xFFFF_FFFF, 1)) != nil)
        #expect(
            error(header(40_000, 50_000)) == .implausibleSize(path: path, width: 40_000, height: 50_000, bytes: 3_045))
        #expect(
            error(header(0x7FFF_FFFF, 0x7FFF_FFFF), pixelLimit: .max)
                == .implausibleSize(path: path, width: 0x7FFF_FFFF, height: 0x7FFF_FFFF, bytes: 3_045))
        #expect(
            error(header(500_000, 1), memoryLimit: 1_000_000)
                == .rowTooLarge(path: path, width: 500_000, bytes: 2_000_000, limit: 1_000_000))
        #expect(
            error(header(800, 900, interlaced: true), memoryLimit: 1_000_000)
                == .interlacedTooLarge(path: path, bytes: 2_880_000, limit: 1_000_000))
    }

    @Test("what is not a readable PNG file is named")
    func strangers() throws {
        func error(_ path: String) -> PNGError? { #expect(throws: PNGError.self) { try PNGReader(path: path) } }
        let directory = scratch.path
        #expect(error("\(directory)/none.png") == .missing(path: "\(directory)/none.png"))
        #expect(error(directory) == .isDirectory(path: directory))
        #expect(error("/dev/null") == .notAFile(path: "/dev/null"))
        let formats: [(String?, [UInt8])] = [
            ("a JPEG", [0xFF, 0xD8, 0xFF, 0xE0]), ("a GIF", Array("GIF89a".utf8)),
            ("a WebP", Array("RIFFabcdWEBPVP8 ".utf8)),
            ("a BMP", Array("BM123456".utf8)), ("a TIFF", [0x49, 0x49, 42, 0]), ("a TIFF", [0x4D, 0x4D, 0, 42]),
            (nil, Array("hello".utf8)),
        ]
        for (seems, start) in formats {
            let path = scratch.file("x", start)
            #expect(error(path) == .notPNG(path: path, seems: seems))
        }
        let empty = scratch.file("x", [])
        #expect(error(empty) == .empty(path: empty))
        #expect(
            "\(PNGError.notPNG(path: "a.png", seems: "a JPEG"))"
                == "a.png: is not a PNG but seems to be a JPEG; convert it to PNG")
    }

    @Test("rows end with the image, and after an error nothing more is read")
    func order() throws {
        var cases = SplitMix64(seed: 6)
        let sample = PNGSample(.rgb, 8, false, false, using: &cases)
        func read(_ reader: PNGReader) throws {
            var rgb = [Float](repeating: 0, count: reader.width * 3)
            var none: [Float] = []
            var rgbSpan = rgb.mutableSpan
            var noneSpan = none.mutableSpan
            try reader.readRow(rgb: &rgbSpan, alpha: &noneSpan)
        }
        let path = scratch.file("a.png", sample.encoded)
        let whole = try PNGReader(path: path)
        for _ in 0..<sample.height { try read(whole) }
        #expect(throws: PNGError.noMoreRows(path: path)) { try read(whole) }

        var file = sample.encoded
        file[file.count - 20] ^= 1  // the IDAT chunk's end
        let damaged = try PNGReader(path: scratch.file("b.png", file))
        var first: PNGError?
        for _ in 0..<sample.height + 2 {
            do { try read(damaged) } catch let error as PNGError {
                if let first { #expect(error == first) }
                first = error
            }
        }
        #expect(first != nil)
    }
}
