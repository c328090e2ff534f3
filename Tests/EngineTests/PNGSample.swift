import Engine
import Glibc

/// A directory for one test's files.
final class ScratchDirectory {
    let path: String

    init() {
        var template = "/tmp/tilefarm-test-XXXXXX".utf8CString.map { $0 }
        path = mkdtemp(&template).map { String(cString: $0) } ?? "."
    }

    deinit {
        for name in names { unlink("\(path)/\(name)") }
        rmdir(path)
    }

    var names: [String] { Self.names(in: path) }

    static func names(in path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    func file(_ name: String, _ bytes: [UInt8]) -> String {
        unlink("\(path)/\(name)")  // some file systems wait for the disk when a file is cut and written again
        let file = fopen("\(path)/\(name)", "wb")
        fwrite(bytes, 1, bytes.count, file)
        fclose(file)
        return "\(path)/\(name)"
    }
}

func contents(of path: String) -> [UInt8] {
    guard let file = fopen(path, "rb") else { return [] }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = fread(&bytes, 1, bytes.count, file)
    return Array(bytes.prefix(count))
}

func bytes(hex: String) -> [UInt8] {
    let digits = hex.utf8.compactMap { UInt8(String(UnicodeScalar($0)), radix: 16) }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

/// An image as a PNG stores it, and an encoder of its own for it (PNG specification, second edition): no filter, stored
/// deflate blocks.
struct PNGSample: CustomStringConvertible {
    enum Color: Int, CaseIterable { case grey = 0, rgb = 2, palette = 3, greyAlpha = 4, rgba = 6 }

    var color: Color
    var depth: Int
    var interlaced: Bool
    /// tRNS: the transparent sample (grey, rgb) or the alpha of the first palette entries.
    var transparent: [Int]?
    var width: Int
    var height: Int
    var palette: [[Int]] = []
    /// height x width x stored channels
    var samples: [Int] = []

    var description: String {
        "\(color) \(depth) bit \(interlaced ? "interlaced " : "")\(transparent == nil ? "" : "tRNS ")\(width)x\(height)"
    }

    static let kinds: [(Color, Int)] = [
        (.grey, 1), (.grey, 2), (.grey, 4), (.grey, 8), (.grey, 16), (.rgb, 8), (.rgb, 16),
        (.palette, 1), (.palette, 2), (.palette, 4), (.palette, 8), (.greyAlpha, 8), (.greyAlpha, 16), (.rgba, 8),
        (.rgba, 16),
    ]

    /// Every colour type, depth, interlacing and transparency, at random sizes with random samples.
    static func all(seed: UInt64) -> [PNGSample] {
        var cases = SplitMix64(seed: Int(truncatingIfNeeded: seed))
        var samples: [PNGSample] = []
        for (color, depth) in kinds {
            for interlaced in [false, true] {
                for transparent in color.rawValue < 4 ? [false, true] : [false] {
                    samples.append(PNGSample(color, depth, interlaced, transparent, using: &cases))
                }
            }
        }
        return samples
    }

    init(_ color: Color, _ depth: Int, _ interlaced: Bool, _ transparent: Bool, using cases: inout SplitMix64) {
        self.color = color
        self.depth = depth
        self.interlaced = interlaced
        width = .random(in: 1...19, using: &cases)
        height = .random(in: 1...19, using: &cases)
        let top = (1 << depth) - 1
        samples = (0..<width * height * channels).map { _ in .random(in: 0...top, using: &cases) }
        if color == .palette {
            palette = (0...top).map { _ in (0..<3).map { _ in .random(in: 0...255, using: &cases) } }
        }
        if transparent {
            // Of grey and rgb, one pixel that occurs.
            self.transparent =
                color == .palette
                ? (0...top / 2).map { _ in .random(in: 0...255, using: &cases) } : Array(samples.prefix(channels))
        }
    }

    var channels: Int {
        switch color {
        case .grey, .palette: 1
        case .greyAlpha: 2
        case .rgb: 3
        case .rgba: 4
        }
    }

    var isGrey: Bool { color == .grey || color == .greyAlpha }
    var hasAlpha: Bool { color.rawValue >= 4 || transparent != nil }

    /// The picture that a reader should deliver.
    var expected: RGBImage {
        var image = RGBImage(width: width, height: height)
        let top = Float((1 << depth) - 1)
        for i in 0..<width * height {
            let stored = samples[i * channels..<(i + 1) * channels].map { $0 }
            var alpha: Float = 1
            for c in 0..<3 {
                image.pixels[3 * i + c] =
                    switch color {
                    case .palette: Float(palette[stored[0]][c]) / 255
                    case .grey, .greyAlpha: Float(stored[0]) / top
                    case .rgb, .rgba: Float(stored[c]) / top
                    }
            }
            switch color {
            case .greyAlpha, .rgba: alpha = Float(stored[channels - 1]) / top
            case .palette:
                if let transparent, stored[0] < transparent.count { alpha = Float(transparent[stored[0]]) / 255 }
            case .grey, .rgb: if stored == transparent { alpha = 0 }
            }
            if hasAlpha { image.alpha.append(alpha) }
        }
        return image
    }

    var encoded: [UInt8] {
        var raw: [UInt8] = []
        let passes =
            interlaced
            ? [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
            : [(0, 0, 1, 1)]
        for (x0, y0, dx, dy) in passes where x0 < width {
            for y in stride(from: y0, to: height, by: dy) {
                raw.append(0)
                var (bits, count) = (0, 0)
                for x in stride(from: x0, to: width, by: dx) {
                    for c in 0..<channels {
                        bits = bits << depth | samples[(y * width + x) * channels + c]
                        count += depth
                        while count >= 8 {
                            raw.append(UInt8(bits >> (count - 8) & 255))
                            count -= 8
                        }
                    }
                    bits &= 0xFFFF
                }
                if count > 0 { raw.append(UInt8(bits << (8 - count) & 255)) }
            }
        }
        var stream: [UInt8] = [0x78, 0x01]
        for start in stride(from: 0, to: raw.count, by: 65535) {
            let block = raw[start..<min(raw.count, start + 65535)]
            let length = UInt16(block.count)
            stream += [start + 65535 >= raw.count ? 1 : 0]
            stream += [UInt8(length & 255), UInt8(length >> 8), UInt8(~length & 255), UInt8(~length >> 8)] + block
        }
        var (a, b): (UInt32, UInt32) = (1, 0)
        for byte in raw {
            a = (a + UInt32(byte)) % 65521
            b = (b + a) % 65521
        }
        stream += bigEndian(b << 16 | a)

        var file: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
        let header = bigEndian(UInt32(width)) + bigEndian(UInt32(height))
        file += chunk("IHDR", header + [UInt8(depth), UInt8(color.rawValue), 0, 0, interlaced ? 1 : 0])
        if color == .palette { file += chunk("PLTE", palette.flatMap { $0.map { UInt8($0) } }) }
        if let transparent {
            file += chunk(
                "tRNS", transparent.flatMap { color == .palette ? [UInt8($0)] : [UInt8($0 >> 8), UInt8($0 & 255)] })
        }
        return file + chunk("IDAT", stream) + chunk("IEND", [])
    }
}

func bigEndian(_ value: UInt32) -> [UInt8] {
    [24, 16, 8, 0].map { UInt8(value >> $0 & 255) }
}

func chunk(_ name: String, _ data: [UInt8]) -> [UInt8] {
    bigEndian(UInt32(data.count)) + name.utf8 + data + bigEndian(crc(name.utf8 + data))
}

private func crc(_ bytes: [UInt8]) -> UInt32 {
    var crc: UInt32 = 0xFFFF_FFFF
    for byte in bytes {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
    }
    return ~crc
}

/// The file with the checksums of its chunks made right, so that damage reaches the code behind them.
func withChecksumsRepaired(_ file: [UInt8]) -> [UInt8] {
    var (file, start) = (file, 8)
    while start + 12 <= file.count {
        let length = file[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
        guard start + 12 + length <= file.count else { break }
        let end = start + 8 + length
        file.replaceSubrange(end..<end + 4, with: bigEndian(crc(Array(file[start + 4..<end]))))
        start = end + 4
    }
    return file
}
