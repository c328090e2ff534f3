import Engine
import Foundation
import Synchronization
import Testing

/// Samples of a picture, rows from the top.
private struct Samples: Equatable {
    var width: Int
    var height: Int
    var format: PixelFormat
    var bytes: [UInt8]

    /// Smooth, with noise; some pixels are transparent.
    init(width: Int, height: Int, format: PixelFormat, seed: Int) {
        var cases = SplitMix64(seed: seed)
        self.width = width
        self.height = height
        self.format = format
        bytes = []
        for y in 0..<height {
            for x in 0..<width {
                for c in 0..<format.channels {
                    let isAlpha = format.hasAlpha && c == format.channels - 1
                    let value =
                        isAlpha
                        ? (x / 5 + y / 7) % 3 * 127
                        : 128 + Int(90 * sin(Double(x * (c + 1) + 2 * y) / 37)) + .random(in: 0...30, using: &cases)
                    bytes +=
                        format.bitDepth == 8 ? [UInt8(value)] : [UInt8(value), .random(in: 0...255, using: &cases)]
                }
            }
        }
    }

    init(png path: String) throws {
        let reader = try PNGReader(path: path)
        (width, height, format, bytes) = (reader.width, reader.height, reader.format, [])
        var row = [UInt8](repeating: 0, count: format.rowBytes(width: width))
        for _ in 0..<height {
            var span = row.mutableSpan
            try reader.readRow(samples: &span)
            bytes += row
        }
    }

    private init(width: Int, height: Int, format: PixelFormat) {
        (self.width, self.height, self.format, bytes) = (width, height, format, [])
    }

    func writeRows(to writer: DeepZoomWriter, count: Int? = nil) throws {
        let rowBytes = format.rowBytes(width: width)
        for y in 0..<(count ?? height) { try writer.writeRow(bytes.span.extracting(y * rowBytes..<(y + 1) * rowBytes)) }
    }

    func writePyramid(to directory: String) throws {
        let writer = try DeepZoomWriter(directory: directory, width: width, height: height, format: format)
        try writeRows(to: writer)
        try writer.finish()
    }

    subscript(x: Int, y: Int, c: Int) -> Int { Int(bytes[(y * width + x) * format.channels + c]) }

    /// 16 bits to the nearest of 8.
    var with8Bits: Samples {
        guard format.bitDepth == 16 else { return self }
        var result = Samples(width: width, height: height, format: format.with8Bits)
        result.bytes = stride(from: 0, to: bytes.count, by: 2).map {
            UInt8((Double(Int(bytes[$0]) << 8 | Int(bytes[$0 + 1])) / 257).rounded())
        }
        return result
    }

    /// Means over 2x2 pixels, or over those there are at an odd edge.
    var half: Samples {
        var result = Samples(width: (width + 1) / 2, height: (height + 1) / 2, format: format)
        for y in 0..<result.height {
            for x in 0..<result.width {
                let pixels = [0, 1].flatMap { dy in [0, 1].map { dx in (2 * x + dx, 2 * y + dy) } }.filter {
                    $0.0 < width && $0.1 < height
                }
                let alphas = pixels.map { format.hasAlpha ? self[$0.0, $0.1, format.channels - 1] : 1 }
                let isVisible = alphas.contains { $0 > 0 }
                for c in 0..<format.channels {
                    let isColour = !format.hasAlpha || c < format.channels - 1
                    let weights = isColour && isVisible ? alphas : pixels.map { _ in 1 }
                    let (sum, total) = (
                        zip(pixels, weights).reduce(0) { $0 + self[$1.0.0, $1.0.1, c] * $1.1 }, weights.reduce(0, +)
                    )
                    result.bytes.append(UInt8((2 * sum + total) / (2 * total)))
                }
            }
        }
        return result
    }

    func cropped(_ columns: Range<Int>, _ rows: Range<Int>) -> Samples {
        var result = Samples(width: columns.count, height: rows.count, format: format)
        for y in rows {
            result.bytes +=
                bytes[
                    (y * width + columns.lowerBound) * format.channels..<(y * width + columns.upperBound)
                        * format.channels]
        }
        return result
    }
}

@Suite("Deep Zoom pyramids")
final class DeepZoomTests {
    private let scratch = FileManager.default.temporaryDirectory.appending(path: "tilefarm-zoom-\(UUID().uuidString)")
        .path

    init() throws { try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(atPath: scratch) }

    private func names(_ path: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted()
    }

    static let kinds = [false, true].flatMap { grey in
        [false, true].flatMap { alpha in [8, 16].map { PixelFormat(grey: grey, alpha: alpha, bitDepth: $0) } }
    }

    @Test("every tile of every level has the pixels of a plain reference", arguments: kinds)
    func reference(format: PixelFormat) throws {
        // Tiles are 254 pixels: sides about multiples of that, and thin ones.
        for (index, (width, height)) in [
            (1, 1), (2, 3), (254, 255), (256, 253), (509, 763), (700, 1), (1, 510), (301, 508),
        ].enumerated() {
            let directory = "\(scratch)/zoom-\(index)"
            let picture = Samples(width: width, height: height, format: format, seed: index)
            try picture.writePyramid(to: directory)
            #expect(names(directory) == ["index.html", "picture.dzi", "picture_files"])
            let description = try String(contentsOfFile: "\(directory)/picture.dzi", encoding: .utf8)
            #expect(
                description.contains("Overlap=\"1\" TileSize=\"254\"")
                    && description.contains("Width=\"\(width)\" Height=\"\(height)\""))

            var level = picture.with8Bits
            var number = Int(log2(Double(max(width, height))).rounded(.up))
            #expect(names("\(directory)/picture_files") == (0...number).map(String.init).sorted())
            var bytes = 0
            while true {
                let folder = "\(directory)/picture_files/\(number)"
                let (columns, rows) = ((level.width + 253) / 254, (level.height + 253) / 254)
                #expect(names(folder).count == columns * rows)
                for row in 0..<rows {
                    for column in 0..<columns {
                        let expected = level.cropped(
                            max(0, 254 * column - 1)..<min(level.width, 254 * column + 255),
                            max(0, 254 * row - 1)..<min(level.height, 254 * row + 255))
                        let tile = "\(folder)/\(column)_\(row).png"
                        #expect(
                            try Samples(png: tile) == expected,
                            "\(width)x\(height) level \(number) tile \(column) \(row)")
                        bytes += try FileManager.default.attributesOfItem(atPath: tile)[.size] as? Int ?? 0
                    }
                }
                if number == 0 { break }
                level = level.half
                number -= 1
            }
            #expect(level.width == 1 && level.height == 1)
            #expect(bytes <= DeepZoomWriter.largestSize(width: width, height: height, format: format))
        }
        #expect(names(scratch).allSatisfy { !$0.hasPrefix(".") })
    }

    @Test("a pyramid replaces an empty directory and an older pyramid, and nothing else")
    func replacement() throws {
        let format = PixelFormat(grey: false, alpha: false, bitDepth: 8)
        let (first, second) = (
            Samples(width: 300, height: 20, format: format, seed: 1),
            Samples(width: 20, height: 30, format: format, seed: 2)
        )
        let directory = "\(scratch)/zoom"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
        try first.writePyramid(to: directory)
        try second.writePyramid(to: directory + "/")
        #expect(try Samples(png: "\(directory)/picture_files/5/0_0.png") == second)
        #expect(names("\(directory)/picture_files").count == 6)
        #expect(names(scratch) == ["zoom"])

        // Something of the user's in any place keeps all of it.
        for place in ["notes.txt", "picture_files/notes.txt", "picture_files/3/notes.png", "index.html"] {
            let note = "\(directory)/\(place)"
            let before = FileManager.default.contents(atPath: note)
            try Data("mine".utf8).write(to: URL(filePath: note))
            #expect(throws: (any Error).self) { try first.writePyramid(to: directory) }
            #expect(FileManager.default.contents(atPath: note) == Data("mine".utf8))
            #expect(try Samples(png: "\(directory)/picture_files/5/0_0.png") == second)
            try FileManager.default.removeItem(atPath: note)
            if let before { try before.write(to: URL(filePath: note)) }
        }

        // Also when it appears while the pyramid is made.
        let late = "\(scratch)/late"
        let writer = try DeepZoomWriter(directory: late, width: 20, height: 30, format: format)
        try second.writeRows(to: writer)
        try FileManager.default.createDirectory(atPath: late, withIntermediateDirectories: false)
        try Data().write(to: URL(filePath: "\(late)/mine"))
        #expect(throws: PNGError.notAPyramid(path: late)) { try writer.finish() }
        #expect(names(late) == ["mine"])
        #expect(names(scratch) == ["late", "zoom"])
    }

    @Test("a pyramid that is not finished leaves the old one and nothing else")
    func unfinished() throws {
        let format = PixelFormat(grey: true, alpha: false, bitDepth: 8)
        let picture = Samples(width: 300, height: 280, format: format, seed: 3)
        let directory = "\(scratch)/zoom"
        try picture.writePyramid(to: directory)
        func writer() throws -> DeepZoomWriter {
            try DeepZoomWriter(directory: directory, width: 300, height: 280, format: format)
        }

        var dropped: DeepZoomWriter? = try writer()
        try dropped.map { try picture.writeRows(to: $0, count: 270) }
        #expect(names(scratch).count == 2)
        dropped = nil
        #expect(names(scratch) == ["zoom"])

        let cancelled = try writer()
        cancelled.cancel()
        #expect(throws: PNGError.self) { try picture.writeRows(to: cancelled) }
        #expect(throws: PNGError.self) { try cancelled.finish() }

        let short = try writer()
        try picture.writeRows(to: short, count: 279)
        #expect(throws: PNGError.wrongRowCount(path: directory, written: 279, height: 280)) { try short.finish() }
        let long = try writer()
        try picture.writeRows(to: long)
        #expect(throws: PNGError.wrongRowCount(path: directory, written: 281, height: 280)) {
            try picture.writeRows(to: long, count: 1)
        }
        long.cancel()
        #expect(names(scratch) == ["zoom"])
        #expect(try Samples(png: "\(directory)/picture_files/9/0_0.png") == picture.cropped(0..<255, 0..<255))
    }

    @Test("a place where no pyramid can be is named before the work")
    func refusals() throws {
        func check(_ directory: String, _ expected: PNGError) {
            #expect(throws: expected) { try DeepZoomWriter.probe(directory) }
        }
        check("\(scratch)/none/zoom", .directoryMissing(path: "\(scratch)/none/zoom", directory: "\(scratch)/none"))
        try Data().write(to: URL(filePath: "\(scratch)/file"))
        check("\(scratch)/file", .notAPyramid(path: "\(scratch)/file"))
        check(scratch, .notAPyramid(path: scratch))
        check("/proc/zoom", .notWritable(path: "/proc/zoom", reason: "No such file or directory"))
        symlink("\(scratch)/nowhere", "\(scratch)/link")
        check("\(scratch)/link", .notWritable(path: "\(scratch)/link", reason: "a link that leads nowhere"))
        try DeepZoomWriter.probe("\(scratch)/zoom")
        #expect(names(scratch) == ["file", "link"])
        let format = PixelFormat(grey: false, alpha: false, bitDepth: 8)
        #expect(throws: PNGError.invalidSize(path: "a", width: 0, height: 1)) {
            try DeepZoomWriter(directory: "a", width: 0, height: 1, format: format)
        }
        #expect(
            DeepZoomWriter.largestSize(
                width: 1 << 31, height: 1 << 31, format: PixelFormat(grey: false, alpha: true, bitDepth: 8)) == .max)
    }

    @Test("a full disk is waited for, or named with what is needed")
    func fullDisk() throws {
        let disk = "\(scratch)/disk"
        try FileManager.default.createDirectory(atPath: disk, withIntermediateDirectories: false)
        guard mount("tilefarm-test", disk, "tmpfs", 0, "size=1m") == 0 else { return }  // only root may
        defer { umount2(disk, Int32(MNT_DETACH)) }
        // The pyramid is made beside its place, and would not get there from another file system.
        #expect(
            throws: PNGError.notWritable(
                path: disk, reason: "a file system of its own, which cannot be replaced: name a folder in it")
        ) {
            try DeepZoomWriter.probe(disk)
        }
        let format = PixelFormat(grey: false, alpha: false, bitDepth: 8)
        let picture = Samples(width: 500, height: 400, format: format, seed: 5)
        let ballast = "\(disk)/ballast"
        #expect(FileManager.default.createFile(atPath: ballast, contents: Data(count: 900_000)))

        let writer = try DeepZoomWriter(directory: "\(disk)/zoom", width: 500, height: 400, format: format)
        let needed = DeepZoomWriter.largestSize(width: 500, height: 400, format: format)
        #expect(throws: PNGError.noSpace(path: "\(disk)/zoom", needed: needed)) { try picture.writeRows(to: writer) }
        #expect(names(disk) == ["ballast"])

        let patient = try DeepZoomWriter(directory: "\(disk)/zoom", width: 500, height: 400, format: format)
        final class Counter: Sendable { let value = Atomic<Int>(0) }
        let asked = Counter()
        patient.onFull = {
            if asked.value.add(1, ordering: .relaxed).newValue == 3 { unlink(ballast) }
            return true
        }
        try picture.writeRows(to: patient)
        try patient.finish()
        #expect(asked.value.load(ordering: .relaxed) >= 3)
        #expect(names(disk) == ["zoom"])
        #expect(try Samples(png: "\(disk)/zoom/picture_files/9/1_1.png") == picture.cropped(253..<500, 253..<400))
    }

    @Test("a gigapixel's pyramid takes less than 100 MB of memory")
    func memory() {
        #expect(
            DeepZoomWriter.bytes(width: 32768, format: PixelFormat(grey: false, alpha: false, bitDepth: 8)) < 60_000_000
        )
        #expect(
            DeepZoomWriter.bytes(width: 32768, format: PixelFormat(grey: false, alpha: true, bitDepth: 16)) < 80_000_000
        )
    }

    // MARK: In a browser

    private static let browser = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .first { FileManager.default.isExecutableFile(atPath: $0) }

    /// What a browser shows of a pyramid's page in a window of `width` x `height`, at `ratio` of the screen's pixels
    /// for one of the page's.
    private func screenshot(_ directory: String, _ hash: String, width: Int, height: Int, ratio: Int = 1) throws
        -> RGBImage
    {
        let picture = "\(scratch)/screen.png"
        try? FileManager.default.removeItem(atPath: picture)
        let process = Process()
        process.executableURL = URL(filePath: Self.browser ?? "")
        process.arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--user-data-dir=\(scratch)/profile",
            "--force-device-scale-factor=\(ratio)", "--window-size=\(width),\(height)", "--virtual-time-budget=60000",
            "--screenshot=\(picture)",
            "file://\(directory)/index.html\(hash)",
        ]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        return try RGBImage(png: picture)
    }

    /// The page at a place in the picture shows its pixels. On a busy machine the browser may take its picture before
    /// the tiles are there: that is tried again.
    private func expect(
        _ page: String, _ hash: String, width: Int, height: Int, ratio: Int = 1, shows picture: Samples,
        center: (x: Double, y: Double), zoom: Double
    ) throws {
        var largest = Int.max
        for _ in 0..<5 where largest > 1 {
            largest = difference(
                try screenshot(page, hash, width: width, height: height, ratio: ratio), picture, center: center,
                zoom: zoom)
        }
        #expect(largest <= 1, "\(hash)")
    }

    @Test(
        "a browser shows the picture from file://, whole and near",
        .enabled(if: browser != nil, "no Chromium or Chrome is installed"))
    func viewer() throws {
        let format = PixelFormat(grey: false, alpha: false, bitDepth: 8)
        let picture = Samples(width: 1200, height: 900, format: format, seed: 4)
        let directory = "\(scratch)/a picture #1"
        try picture.writePyramid(to: directory)
        let page = "\(scratch)/a%20picture%20%231"

        // At four of the screen's pixels for one of the picture's, squares with hard edges, also where four tiles meet.
        for (x, y) in [(600, 450), (508, 508)] {
            try expect(
                page, "#x=\(Double(x) / 1200)&y=\(Double(y) / 900)&zoom=4", width: 640, height: 640, shows: picture,
                center: (Double(x), Double(y)), zoom: 4)
        }
        // Pixel by pixel: four tiles and the seams between them.
        try expect(page, "#x=0.5&y=0.5&zoom=1", width: 640, height: 640, shows: picture, center: (600, 450), zoom: 1)
        // On a screen of twice the density.
        try expect(
            page, "#x=0.5&y=0.5&zoom=2", width: 320, height: 320, ratio: 2, shows: picture, center: (600, 450), zoom: 2)
        // Half the size: the level below.
        try expect(
            page, "#x=0.5&y=0.5&zoom=0.5", width: 500, height: 400, shows: picture.half, center: (300, 225), zoom: 1)
        // Without a place in the address, the whole: its means are those of the picture.
        let whole = try screenshot(page, "", width: 150, height: 150)
        let eighth = picture.half.half.half
        for c in 0..<3 {
            var (shown, expected) = (0.0, 0.0)
            for y in 20..<90 {  // above the buttons; the picture is in rows 19 to 131
                for x in 0..<150 {
                    shown += Double(whole.pixels[(y * 150 + x) * 3 + c])
                    expected += Double(eighth[x, y - 19, c]) / 255
                }
            }
            #expect(abs(shown / expected - 1) < 0.01)
        }
    }

    /// Compares the upper middle of a screen, where neither buttons nor map are, with the picture whose point `center`
    /// should be in its middle.
    /// - Returns: the largest difference of two samples.
    private func difference(_ screen: RGBImage, _ picture: Samples, center: (x: Double, y: Double), zoom: Double) -> Int
    {
        var largest = 0
        let height = screen.height
        for y in height / 8..<height / 2 {
            let atY = Int(center.y + (Double(y) + 0.5 - Double(height) / 2) / zoom)
            for x in screen.width / 8..<screen.width * 7 / 8 {
                let atX = Int(center.x + (Double(x) + 0.5 - Double(screen.width) / 2) / zoom)
                for c in 0..<3 {
                    let shown = Int((screen.pixels[(y * screen.width + x) * 3 + c] * 255).rounded())
                    largest = max(largest, abs(shown - picture[atX, atY, c]))
                }
            }
        }
        return largest
    }
}
