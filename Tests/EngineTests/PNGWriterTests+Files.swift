import Engine
import Glibc
import Testing

/// The file of a writer: where it can be, what it replaces, and what is left of one that fails.
extension PNGWriterTests {
    @Test("a file that is not finished leaves the old one and nothing else")
    func unfinished() throws {
        let path = scratch.file("a.png", [1, 2, 3])
        let image = image(5, 4, alpha: false, grey: false, steps: 255, seed: 14)
        func writer() throws -> PNGWriter {
            try PNGWriter(path: path, width: 5, height: 4, bitDepth: 8, grey: false, alpha: false)
        }

        var dropped: PNGWriter? = try writer()
        try dropped.map { try write(image, to: $0) }
        #expect(scratch.names.count == 2)
        dropped = nil
        #expect(scratch.names == ["a.png"])

        let cancelled = try writer()
        cancelled.cancel()
        #expect(scratch.names == ["a.png"])
        #expect(throws: PNGError.self) { try write(image, to: cancelled) }
        #expect(throws: PNGError.self) { try cancelled.finish() }

        let short = try writer()
        try write(image, to: short, rows: 3)
        #expect(throws: PNGError.wrongRowCount(path: path, written: 3, height: 4)) { try short.finish() }
        let long = try writer()
        try write(image, to: long)
        #expect(throws: PNGError.wrongRowCount(path: path, written: 5, height: 4)) {
            try write(image, to: long, rows: 1)
        }
        withExtendedLifetime(long) { #expect(contents(of: path) == [1, 2, 3]) }

        // Two at once do not meet.
        let (first, second) = (try writer(), try writer())
        try write(image, to: first)
        try first.finish()
        second.cancel()
        #expect(try RGBImage(png: path) == image)
    }

    @Test("an output that cannot be is named before the work and at it")
    func refusals() throws {
        let directory = scratch.path
        func check(_ path: String, _ expected: PNGError) {
            #expect(throws: expected) { try PNGWriter.probe(path) }
            #expect(throws: expected) {
                try PNGWriter(path: path, width: 1, height: 1, bitDepth: 8, grey: false, alpha: false)
            }
        }
        check(directory, .outputIsDirectory(path: directory))
        check("\(directory)/", .outputIsDirectory(path: "\(directory)/"))
        check(
            "\(directory)/none/a.png",
            .directoryMissing(path: "\(directory)/none/a.png", directory: "\(directory)/none"))
        check("/dev/null", .outputNotAFile(path: "/dev/null"))
        let file = scratch.file("file", [])
        check("\(file)/a.png", .directoryMissing(path: "\(file)/a.png", directory: file))
        if geteuid() != 0 {
            chmod(file, 0o444)
            check(file, .notWritable(path: file, reason: "Permission denied"))
        }
        check("/proc/a.png", .notWritable(path: "/proc/a.png", reason: "No such file or directory"))
        let path = "\(directory)/a.png"
        for (width, height) in [(0, 1), (1, 0), (-1, 1), (1 << 31, 1)] {
            #expect(throws: PNGError.invalidSize(path: path, width: width, height: height)) {
                try PNGWriter(path: path, width: width, height: height, bitDepth: 8, grey: false, alpha: false)
            }
        }
        #expect(PNGWriter.largestSize(width: 1 << 31, height: 1 << 31, bitDepth: 16, grey: false, alpha: true) == .max)
        try PNGWriter.probe(path)
        #expect(scratch.names == ["file"])
        #expect((PNGWriter.freeBytes(for: path) ?? 0) > 0)
    }

    @Test("a full disk says how much is needed")
    func fullDisk() throws {
        let image = image(300, 400, alpha: false, grey: false, steps: 255, seed: 15)
        let needed = PNGWriter.largestSize(width: 300, height: 400, bitDepth: 8, grey: false, alpha: false)
        let writer = try PNGWriter(
            path: "out.png", target: "\(scratch.path)/out.png", temporary: "\(scratch.path)/none",
            descriptor: open("/dev/full", O_WRONLY), width: 300, height: 400, bitDepth: 8, grey: false, alpha: false)
        #expect(throws: PNGError.noSpace(path: "out.png", needed: needed)) {
            try write(image, to: writer)
            try writer.finish()
        }
        #expect(throws: PNGError.noSpace(path: "out.png", needed: needed)) { try writer.finish() }
        #expect(scratch.names.isEmpty)
    }

    @Test("a full disk is tried again as long as the caller wants")
    func patience() throws {
        var asked = 0
        let writer = try PNGWriter(
            path: "out.png", target: "\(scratch.path)/out.png", temporary: "\(scratch.path)/none",
            descriptor: open("/dev/full", O_WRONLY), width: 3, height: 1, bitDepth: 8, grey: true, alpha: false)
        writer.onFull = {
            asked += 1
            return asked < 5
        }
        try writer.writeRow([1, 2, 3].span)
        #expect(throws: PNGError.self) { try writer.finish() }
        #expect(asked == 5)
    }

    @Test("writers of one output leave each other's hidden files alone, and files of a like name")
    func rivals() throws {
        let path = scratch.file("out.png", [1]), stranger = scratch.file(".out.png.part-mine", [2])
        let images = (0..<2).map { image(30, 30, alpha: false, grey: false, steps: 255, seed: UInt64(20 + $0)) }
        let writers = try images.map { _ in
            try PNGWriter(path: path, width: 30, height: 30, bitDepth: 8, grey: false, alpha: false)
        }
        #expect(scratch.names.count == 4)
        for (image, writer) in zip(images, writers) {
            try write(image, to: writer)
            try writer.finish()
            #expect(try RGBImage(png: path) == image)
        }
        #expect(scratch.names == [".out.png.part-mine", "out.png"] && contents(of: stranger) == [2])
    }

    @Test("an output that is a link goes to the file it points at")
    func link() throws {
        let file = scratch.file("file.png", [1])
        let link = "\(scratch.path)/link.png"
        symlink(file, link)
        let image = image(3, 3, alpha: false, grey: false, steps: 255, seed: 16)
        let writer = try PNGWriter(path: link, width: 3, height: 3, bitDepth: 8, grey: false, alpha: false)
        try write(image, to: writer)
        try writer.finish()
        #expect(try RGBImage(png: file) == image)
        #expect(scratch.names == ["file.png", "link.png"])
    }

    /// Writes a small picture to a path, through whatever links.
    private func write(to path: String) throws -> RGBImage {
        let image = image(3, 3, alpha: false, grey: false, steps: 255, seed: 17)
        let writer = try PNGWriter(path: path, width: 3, height: 3, bitDepth: 8, grey: false, alpha: false)
        try write(image, to: writer)
        try writer.finish()
        return image
    }

    @Test("an output that is a link to nothing yet makes the file that it points at, in that file's folder")
    func danglingLink() throws {
        let folder = "\(scratch.path)/there", link = "\(scratch.path)/link.png"
        mkdir(folder, 0o777)
        symlink("there/second.png", link)
        symlink("third.png", "\(folder)/second.png")
        #expect(PNGWriter.freeBytes(for: link) != nil)
        try PNGWriter.probe(link)
        #expect(ScratchDirectory.names(in: folder) == ["second.png"])
        let writer = try PNGWriter(path: link, width: 3, height: 3, bitDepth: 8, grey: false, alpha: false)
        // Beside the target, so that the rename stays on one disk.
        #expect(scratch.names == ["link.png", "there"] && ScratchDirectory.names(in: folder).count == 2)
        writer.cancel()
        let image = try write(to: link)
        #expect(try RGBImage(png: "\(folder)/third.png") == image)
        #expect(ScratchDirectory.names(in: folder) == ["second.png", "third.png"])
        for path in [link, "\(folder)/second.png"] {
            var status = stat()
            #expect(lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
        }
        for name in ScratchDirectory.names(in: folder) { unlink("\(folder)/\(name)") }
        rmdir(folder)
    }

    @Test("links that go round, and those to a folder that is not there, are named in one line and stay")
    func badLinks() throws {
        symlink("b.png", "\(scratch.path)/a.png")
        symlink("a.png", "\(scratch.path)/b.png")
        symlink("no/such.png", "\(scratch.path)/c.png")
        symlink("nowhere/", "\(scratch.path)/d.png")
        for (name, words) in [
            ("a.png", "too many"), ("c.png", "\(scratch.path)/no"), ("d.png", "is a directory"),
        ] {
            let path = "\(scratch.path)/\(name)"
            #expect {
                try PNGWriter.probe(path)
            } throws: {
                let line = "\($0)"
                return line.lowercased().contains(words.lowercased()) && line.contains(path) && !line.contains("\n")
            }
        }
        #expect(scratch.names == ["a.png", "b.png", "c.png", "d.png"])
    }

    @Test("an output whose name is as long as the system allows is written, and its hidden files are swept")
    func longName() throws {
        for name in [
            String(repeating: "n", count: 246) + ".png", String(repeating: "n", count: 251) + ".png",
            String(repeating: "ü", count: 125) + ".png",
        ] {
            let path = "\(scratch.path)/\(name)"
            let abandoned = try PNGWriter(path: path, width: 3, height: 3, bitDepth: 8, grey: false, alpha: false)
            let hidden = try #require(scratch.names.first)
            #expect(scratch.names.count == 1 && hidden.utf8.count <= 255)
            abandoned.cancel()
            // As a process that was killed leaves it.
            let leftover = scratch.file(hidden, [1])
            // One of a name that differs at its end is somebody else's.
            let stranger = scratch.file(String(repeating: "n", count: 245) + "m.png", [2])
            let other = try PNGWriter(path: stranger, width: 3, height: 3, bitDepth: 8, grey: false, alpha: false)
            #expect(access(leftover, F_OK) == 0)
            let image = try write(to: path)
            #expect(try RGBImage(png: path) == image)
            #expect(access(leftover, F_OK) != 0)
            #expect(scratch.names.count == 3)
            other.cancel()
            for file in [path, stranger] { unlink(file) }
        }
    }
}
