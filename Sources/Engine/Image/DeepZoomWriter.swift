import Dispatch
import Foundation
import Synchronization

/// Writes a Deep Zoom pyramid (the format of Microsoft's Deep Zoom and OpenSeadragon) in one pass over the picture's
/// rows:
///
///     DIR/picture.dzi                      sizes, as XML
///     DIR/picture_files/LEVEL/X_Y.png      tiles of 254 pixels and one of overlap on each side; level 0 is one pixel,
///     the last the whole picture DIR/index.html                       a viewer, which needs nothing else
///
/// Each level is half the one above it, rounded up: means of 2x2 pixels, halves upwards, colours weighted with their
/// alpha. Tiles have 8 bits.
///
/// All is made in a hidden folder beside DIR and renamed when it is complete. An older DIR is replaced only if it is
/// empty or holds a pyramid of this kind and nothing else. One thread at a time may use it.
public final class DeepZoomWriter {
    public let directory: String
    public let width: Int
    public let height: Int
    /// Format of the rows that are given.
    public let format: PixelFormat
    /// Rows written so far.
    public private(set) var row = 0
    /// Asked when the disk is full, by several threads perhaps: whether to try again. Without it that is an error.
    public var onFull: (@Sendable () -> Bool)? {
        get { folder.onFull }
        set { folder.onFull = newValue }
    }

    static let tile = 254
    static let overlap = 1
    static let name = "picture"

    private let target: String
    private let folder: DeepZoomFolder
    private let full: DeepZoomLevel
    private var reduced: [UInt8]  // the row in 8 bits, of pictures that have 16
    private var failure: PNGError?
    private var isOpen = true

    /// Starts a pyramid of `height` rows of `width` pixels.
    ///
    /// - Throws: `PNGError`.
    public init(directory: String, width: Int, height: Int, format: PixelFormat) throws {
        let side = 1...Int(Int32.max)
        guard side.contains(width), side.contains(height) else {
            throw PNGError.invalidSize(path: directory, width: width, height: height)
        }
        self.directory = directory
        self.width = width
        self.height = height
        self.format = format
        target = try Self.checkedTarget(directory)
        reduced = [UInt8](repeating: 0, count: format.bitDepth == 16 ? format.with8Bits.rowBytes(width: width) : 0)
        folder = try DeepZoomFolder(
            for: target, shown: directory, needed: Self.largestSize(width: width, height: height, format: format))
        let tiles = DeepZoomTiles(folder: folder, format: format.with8Bits)
        do {
            try folder.makeDirectory("/\(Self.name)_files")
            full = try DeepZoomLevel(
                number: Self.levels(width: width, height: height) - 1, width: width, height: height, tiles: tiles)
        } catch {
            DeepZoomFolder.remove(folder.path)
            throw error
        }
    }

    deinit { cancel() }

    /// Writes the next row of samples, as `format` describes them.
    ///
    /// - Throws: `PNGError`; after an error the hidden folder is gone and no more rows are taken.
    public func writeRow(_ samples: Span<UInt8>) throws {
        precondition(samples.count == format.rowBytes(width: width), "row of \(width) pixels")
        guard row < height else { throw PNGError.wrongRowCount(path: directory, written: row + 1, height: height) }
        guard isOpen else { throw failure ?? PNGError.writeFailed(path: directory, reason: "cancelled") }
        do {
            if format.bitDepth == 8 {
                try full.add(samples)
            } else {
                var span = reduced.mutableSpan
                PixelFormat.reduceTo8Bits(samples, into: &span)
                let reduced = reduced
                try full.add(reduced.span)
            }
        } catch let error as PNGError {
            fail(error)
            throw error
        }
        row += 1
    }

    /// Ends the pyramid, brings it to the disk and puts it in place.
    ///
    /// - Throws: `PNGError`; the target is then as it was.
    public func finish() throws {
        guard isOpen else {
            throw failure ?? PNGError.writeFailed(path: directory, reason: "finished or cancelled before")
        }
        do {
            guard row == height else { throw PNGError.wrongRowCount(path: directory, written: row, height: height) }
            let description = """
                <?xml version="1.0" encoding="UTF-8"?>
                <Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="png" \
                Overlap="\(Self.overlap)" TileSize="\(Self.tile)">
                  <Size Width="\(width)" Height="\(height)"/>
                </Image>

                """
            try folder.write("/\(Self.name).dzi", Array(description.utf8))
            try folder.write(
                "/index.html", Array(deepZoomPage(width: width, height: height, hasAlpha: format.hasAlpha).utf8))
            try folder.sync()
            try folder.replace(target)
        } catch let error as PNGError {
            fail(error)
            throw error
        }
        isOpen = false
        syncDirectory(split(target).directory)
    }

    /// Gives up: removes the hidden folder and leaves the target as it was. Does nothing after `finish`.
    public func cancel() {
        guard isOpen else { return }
        isOpen = false
        DeepZoomFolder.remove(folder.path)
    }

    private func fail(_ error: PNGError) {
        failure = error
        cancel()
    }

    /// Checks that a pyramid can be made at `directory`, by making and removing the hidden folder.
    ///
    /// - Throws: `PNGError`.
    public static func probe(_ directory: String) throws {
        try DeepZoomWriter(
            directory: directory, width: 1, height: 1, format: PixelFormat(grey: true, alpha: false, bitDepth: 8)
        ).cancel()
    }

    /// `path` with its links followed, when a pyramid can be put there.
    private static func checkedTarget(_ path: String) throws -> String {
        var target = path
        while target.count > 1, target.hasSuffix("/") { target.removeLast() }
        guard !target.isEmpty else { throw PNGError.directoryMissing(path: path, directory: "of that name") }
        var status = stat(), parentStatus = stat()
        let parent = split(target).directory
        guard stat(parent, &parentStatus) == 0, parentStatus.st_mode & S_IFMT == S_IFDIR else {
            throw PNGError.directoryMissing(path: path, directory: parent)
        }
        guard stat(target, &status) == 0 else {
            // A rename would replace the link, and cannot where the new one is a directory.
            guard lstat(target, &status) != 0 else {
                throw PNGError.notWritable(path: path, reason: "a link that leads nowhere")
            }
            return target
        }
        guard status.st_mode & S_IFMT == S_IFDIR, try DeepZoomFolder.isPyramid(target) else {
            throw PNGError.notAPyramid(path: path)
        }
        guard let resolved = realpath(target, nil) else {
            throw PNGError.notWritable(path: path, reason: reason(of: errno))
        }
        defer { free(resolved) }
        target = String(cString: resolved)
        guard stat(split(target).directory, &parentStatus) == 0, parentStatus.st_dev == status.st_dev else {
            throw PNGError.notWritable(
                path: path, reason: "a file system of its own, which cannot be replaced: name a folder in it")
        }
        return target
    }

    // MARK: Sizes

    /// Levels down to a single pixel.
    static func levels(width: Int, height: Int) -> Int {
        Int.bitWidth - (max(width, height) - 1).leadingZeroBitCount + 1
    }

    /// The most bytes of memory it takes: of each level as many rows as a tile has.
    public static func bytes(width: Int, format: PixelFormat) -> Int {
        let rows = tile + 2 * overlap
        // The levels are at most twice the first together, and each keeps half a row for the next.
        return 2 * (rows + 1) * format.with8Bits.rowBytes(width: width + 32)
            + (format.bitDepth == 16 ? format.with8Bits.rowBytes(width: width) : 0)
            + DeepZoomTiles.threads * (PNGEncoder.bytes(rowBytes: rows * 4) + rows * rows * 5)
    }

    /// The most bytes of disk it takes, that is, when its pixels do not compress. Photographs take about half of it.
    public static func largestSize(width: Int, height: Int, format: PixelFormat) -> Int {
        var bytes = 1e5  // the page and the directories
        var (width, height) = (width, height)
        while true {
            let (columns, rows) = ((width + tile - 1) / tile, (height + tile - 1) / tile)
            // In Double, so that no size overflows. A tile has a row's filter number, deflate's blocks, the chunks'
            // frames, and its file ends with a half-filled block of the disk.
            let pixels = Double(width + 2 * columns) * Double(height + 2 * rows) * Double(format.with8Bits.pixelBytes)
            bytes += pixels * 1.006 + Double(columns) * Double(rows) * 4500
            if width == 1, height == 1 { break }
            (width, height) = ((width + 1) / 2, (height + 1) / 2)
        }
        return Int(exactly: bytes.rounded(.up)) ?? .max
    }
}

/// One level: its latest rows, as many as a row of tiles needs, from which it makes tiles and the next smaller level.
private final class DeepZoomLevel {
    private let width: Int
    private let height: Int
    private let number: Int
    private let rowBytes: Int
    private let tiles: DeepZoomTiles
    private let next: DeepZoomLevel?
    private var received = 0
    private var tileRow = 0
    // Rows of the picture from `first` on.
    private let strip: AlignedBuffer<UInt8>
    private var first = 0
    private var half: [UInt8]

    init(number: Int, width: Int, height: Int, tiles: DeepZoomTiles) throws {
        self.number = number
        self.width = width
        self.height = height
        self.tiles = tiles
        rowBytes = tiles.format.rowBytes(width: width)
        strip = AlignedBuffer(count: min(DeepZoomWriter.tile + 2 * DeepZoomWriter.overlap, height) * rowBytes)
        half = [UInt8](repeating: 0, count: number > 0 ? tiles.format.rowBytes(width: (width + 1) / 2) : 0)
        try tiles.folder.makeDirectory("/\(DeepZoomWriter.name)_files/\(number)")
        next =
            number > 0
            ? try DeepZoomLevel(number: number - 1, width: (width + 1) / 2, height: (height + 1) / 2, tiles: tiles)
            : nil
    }

    func add(_ samples: Span<UInt8>) throws {
        let strip = strip
        var span = strip.mutableSpan
        let at = received - first
        RowCopy.copy(from: samples, to: &span, at: at * rowBytes, count: rowBytes)
        received += 1
        if let next, received % 2 == 0 || received == height {
            // The last row of an odd number counts twice, as the last pixel of a row does.
            let above = received % 2 == 0 ? at - 1 : at
            var span = half.mutableSpan
            halve(
                strip.span.extracting(above * rowBytes..<(above + 1) * rowBytes),
                strip.span.extracting(at * rowBytes..<(at + 1) * rowBytes),
                tiles.format, width: width, into: &span)
            let half = half
            try next.add(half.span)
        }
        let (tile, overlap) = (DeepZoomWriter.tile, DeepZoomWriter.overlap)
        while tileRow * tile < height, received == min((tileRow + 1) * tile + overlap, height) {
            // The height may end within the overlap of the last but one row of tiles, so that two rows of them end
            // here.
            let rows = max(tileRow * tile - overlap, 0) - first..<received - first
            try tiles.write(of: strip, rowBytes: rowBytes, rows: rows, count: (width + tile - 1) / tile) {
                [number, tileRow, width] column in
                (
                    "/\(DeepZoomWriter.name)_files/\(number)/\(column)_\(tileRow).png",
                    max(column * tile - overlap, 0)..<min((column + 1) * tile + overlap, width)
                )
            }
            tileRow += 1
            let kept = tileRow * tile - overlap
            guard kept < received else { continue }
            var span = strip.mutableSpan
            for row in kept..<received {
                // Not onto itself: tiles are more than twice as high as what they share.
                RowCopy.copy(
                    from: strip.span, start: (row - first) * rowBytes, to: &span, at: (row - kept) * rowBytes,
                    count: rowBytes)
            }
            first = kept
        }
    }
}

/// Makes tiles and writes them, those of a row at the same time; the levels share it.
private final class DeepZoomTiles: @unchecked Sendable {  // each encoder is used by one thread at a time
    let folder: DeepZoomFolder
    let format: PixelFormat
    private let encoders: [TileEncoder]

    static let threads = min(8, ProcessInfo.processInfo.activeProcessorCount)

    init(folder: DeepZoomFolder, format: PixelFormat) {
        self.folder = folder
        self.format = format
        encoders = (0..<Self.threads).map { _ in TileEncoder(format: format) }
    }

    /// Writes a row of tiles.
    /// - Parameter tile: a tile's file and the columns of its pixels, by its number.
    func write(
        of strip: AlignedBuffer<UInt8>, rowBytes: Int, rows: Range<Int>, count: Int,
        _ tile: @Sendable (Int) -> (name: String, columns: Range<Int>)
    ) throws {
        nonisolated(unsafe) let strip = strip  // written between calls
        let next = Atomic<Int>(0)
        let failure = Mutex<(any Error)?>(nil)
        DispatchQueue.concurrentPerform(iterations: min(encoders.count, count)) { thread in
            while failure.withLock({ $0 == nil }) {
                let number = next.add(1, ordering: .relaxed).oldValue
                guard number < count else { return }
                let (name, columns) = tile(number)
                let png = encoders[thread].encode(strip.span, rowBytes: rowBytes, rows: rows, columns: columns)
                do { try folder.write(name, png) } catch { failure.withLock { $0 = $0 ?? error } }
            }
        }
        if let failure = failure.withLock({ $0 }) { throw failure }
    }
}

private final class TileEncoder {
    private let format: PixelFormat
    private var encoder: PNGEncoder

    init(format: PixelFormat) {
        self.format = format
        encoder = PNGEncoder(format: format)
    }

    /// A tile's PNG.
    func encode(_ strip: Span<UInt8>, rowBytes: Int, rows: Range<Int>, columns: Range<Int>) -> [UInt8] {
        encoder.output.removeAll(keepingCapacity: true)
        encoder.begin(width: columns.count, height: rows.count)
        for row in rows {
            let start = row * rowBytes + columns.lowerBound * format.pixelBytes
            encoder.add(strip.extracting(start..<start + columns.count * format.pixelBytes))
        }
        encoder.end()
        return encoder.output
    }
}

/// Means of 2x2 pixels of two rows, halves upwards; the last pixel of an odd width counts twice. Colours are weighted
/// with their alpha, so that what is hidden under transparent pixels does not come to light.
///
/// - Parameters:
///   - above: a row of `width` pixels of 8 bits
///   - below: the next
///   - half: receives `(width + 1) / 2` pixels
func halve(
    _ above: Span<UInt8>, _ below: Span<UInt8>, _ format: PixelFormat, width: Int, into half: inout MutableSpan<UInt8>
) {
    let channels = format.channels
    precondition(
        format.bitDepth == 8 && above.count == width * channels && below.count == above.count
            && half.count == (width + 1) / 2 * channels)
    guard format.hasAlpha else { return PNGKernels.halve(above, below, width: width, channels: channels, into: &half) }
    for x in 0..<(width + 1) / 2 {
        let (left, right, to) = (2 * x * channels, min(2 * x + 1, width - 1) * channels, x * channels)
        func mean(_ c: Int) -> UInt8 {
            let sum =
                UInt32(above[left + c]) + UInt32(above[right + c]) + UInt32(below[left + c]) + UInt32(below[right + c])
            return UInt8(truncatingIfNeeded: (sum + 2) >> 2)
        }
        let a = channels - 1
        let weights = (
            UInt32(above[left + a]), UInt32(above[right + a]), UInt32(below[left + a]), UInt32(below[right + a])
        )
        let total = weights.0 + weights.1 + weights.2 + weights.3
        for c in 0..<a {
            guard total > 0 else {
                half[to + c] = mean(c)
                continue
            }
            let sum =
                UInt32(above[left + c]) * weights.0 + UInt32(above[right + c]) * weights.1 + UInt32(below[left + c])
                * weights.2
                + UInt32(below[right + c]) * weights.3
            half[to + c] = UInt8(truncatingIfNeeded: (2 * sum + total) / (2 * total))
        }
        half[to + a] = UInt8(truncatingIfNeeded: (total + 2) >> 2)
    }
}
