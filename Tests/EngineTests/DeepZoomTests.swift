import Engine
import Foundation
import Synchronization
import Testing

@Suite("Deep Zoom pyramids")
final class DeepZoomTests {
    let scratch = FileManager.default.temporaryDirectory.appending(path: "tilefarm-zoom-\(UUID().uuidString)")
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
            let picture = PyramidSamples(width: width, height: height, format: format, seed: index)
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
                            try PyramidSamples(png: tile) == expected,
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
            PyramidSamples(width: 300, height: 20, format: format, seed: 1),
            PyramidSamples(width: 20, height: 30, format: format, seed: 2)
        )
        let directory = "\(scratch)/zoom"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
        try first.writePyramid(to: directory)
        try second.writePyramid(to: directory + "/")
        #expect(try PyramidSamples(png: "\(directory)/picture_files/5/0_0.png") == second)
        #expect(names("\(directory)/picture_files").count == 6)
        #expect(names(scratch) == ["zoom"])

        // Something of the user's in any place keeps all of it.
        for place in ["notes.txt", "picture_files/notes.txt", "picture_files/3/notes.png", "index.html"] {
            let note = "\(directory)/\(place)"
            let before = FileManager.default.contents(atPath: note)
            try Data("mine".utf8).write(to: URL(filePath: note))
            #expect(throws: (any Error).self) { try first.writePyramid(to: directory) }
            #expect(FileManager.default.contents(atPath: note) == Data("mine".utf8))
            #expect(try PyramidSamples(png: "\(directory)/picture_files/5/0_0.png") == second)
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
        let picture = PyramidSamples(width: 300, height: 280, format: format, seed: 3)
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
        #expect(try PyramidSamples(png: "\(directory)/picture_files/9/0_0.png") == picture.cropped(0..<255, 0..<255))
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
        let picture = PyramidSamples(width: 500, height: 400, format: format, seed: 5)
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
        let tile = try PyramidSamples(png: "\(disk)/zoom/picture_files/9/1_1.png")
        #expect(tile == picture.cropped(253..<500, 253..<400))
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
}
