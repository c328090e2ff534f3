import Engine
import Foundation
import Logging
import Protocol
import Synchronization

/// The picture to enlarge, as its file has it.
package final class InputImage: Sendable {
    package let height, width: Int
    package let format: PixelFormat
    private let samples: StoredValues

    /// Bytes that a picture takes.
    static func bytes(of reader: PNGReader) -> Int { reader.height * reader.format.rowBytes(width: reader.width) }

    /// Opens a picture of any number of pixels: the reader compares them with the size of the file.
    static func reader(_ path: String) throws -> PNGReader { try PNGReader(path: path, pixelLimit: .max) }

    /// - Parameter samples: where its `bytes(of: reader)` bytes are kept.
    /// - Throws: `PNGError`.
    init(reading reader: PNGReader, into samples: StoredValues) throws {
        (height, width, format) = (reader.height, reader.width, reader.format)
        self.samples = samples
        var row = [UInt8](repeating: 0, count: format.rowBytes(width: width))
        for y in 0..<height {
            var span = row.mutableSpan
            try reader.readRow(samples: &span)
            samples.storeAsIs(row.span, start: y * row.count, length: row.count)
        }
    }

    /// A picture in memory, rounded to what the format has.
    package init(_ image: RGBImage, format: PixelFormat = PixelFormat(grey: false, alpha: false, bitDepth: 16)) throws {
        (height, width, self.format) = (image.height, image.width, format)
        var packed = [UInt8](repeating: 0, count: image.height * format.rowBytes(width: width))
        var span = packed.mutableSpan
        format.pack(rgb: image.pixels.span, alpha: image.alpha.span, into: &span)
        samples = try StoredValues(.uint8, count: packed.count)
        samples.storeAsIs(packed.span, start: 0, length: packed.count)
    }

    /// A part of the picture, height x width x 3 in [0, 1]; where it reaches beyond (a canvas is padded), the nearest
    /// pixels.
    func cut(_ rect: Rect) -> Frame {
        Frame(of: Float.self, count: rect.area * 3) { rgb in
            var alpha = MutableSpan<Float>()
            read(rect, rgb: &rgb, alpha: &alpha)
        }
    }

    /// The same, and alpha; neither where it is empty.
    func read(_ rect: Rect, rgb: inout MutableSpan<Float>, alpha: inout MutableSpan<Float>) {
        let size = format.pixelBytes, rowBytes = format.rowBytes(width: rect.width)
        let columns = min(max(rect.x, 0), width - 1)..<min(max(rect.maxX, 1), width)
        let before = max(columns.lowerBound - rect.x, 0) * size, after = before + columns.count * size
        var bytes = [UInt8](repeating: 0, count: rect.height * rowBytes)
        for y in 0..<rect.height {
            let source = min(max(rect.y + y, 0), height - 1), row = y * rowBytes
            do {
                var span = bytes.mutableSpan
                samples.loadStored(
                    start: (source * width + columns.lowerBound) * size, length: columns.count * size, into: &span,
                    at: row + before)
            }
            for i in stride(from: row + before - 1, through: row, by: -1) { bytes[i] = bytes[i + size] }
            for i in row + after..<row + rowBytes { bytes[i] = bytes[i - size] }
        }
        format.unpack(bytes.span, rgb: &rgb, alpha: &alpha)
    }
}

/// Why an output was not written.
enum OutputError: Error { case cancelled }

/// The finished picture, of the input's kind: depth, grey and alpha.
enum OutputImage {
    /// Rows made and handed on at a time.
    private static func band(rowBytes: Int) -> Int { max(1, min(FinishedPicture.piece.rows, (8 << 20) / rowBytes)) }
    /// Bands that wait for each writer.
    fileprivate static let waiting = 3
    /// Those, the one that is made and the one that is written.
    private static let bands = waiting + 2

    /// Memory that writing takes.
    static func bytes(_ places: RenderRequest.Output, width: Int, format: PixelFormat) -> Int {
        let rowBytes = format.rowBytes(width: width)
        let made = band(rowBytes: rowBytes) * rowBytes * bands + FinishedPicture.bytes
        return made + 4 * rowBytes + (places.deepZoom == nil ? 0 : DeepZoomWriter.bytes(width: width, format: format))
    }

    /// Looks, before hours of rendering, whether the output can be written, and warns where the disk may be too small
    /// for it.
    /// - Parameter kept: what is about to be taken for the canvas, and where.
    static func check(
        _ places: RenderRequest.Output, plan: JobPlan, format: PixelFormat, kept: (folder: String, bytes: Int)?,
        logger: Logger
    ) throws {
        try PNGWriter.probe(places.png)
        var needs = [
            (
                places.png,
                PNGWriter.largestSize(
                    width: plan.picture.outputWidth, height: plan.picture.outputHeight, bitDepth: format.bitDepth,
                    grey: format.isGrey,
                    alpha: format.hasAlpha)
            )
        ]
        if let deepZoom = places.deepZoom {
            try DeepZoomWriter.probe(deepZoom)
            needs.append(
                (
                    deepZoom,
                    DeepZoomWriter.largestSize(
                        width: plan.picture.outputWidth, height: plan.picture.outputHeight, format: format)
                ))
        }
        if let kept { needs.append((kept.folder + "/canvas", kept.bytes)) }
        // What lies on one disk is needed together.
        func disk(_ path: String) -> UInt? {
            var status = stat()
            let folder = URL(filePath: followingLinks(path) ?? path).deletingLastPathComponent().path
            return stat(folder, &status) == 0 ? UInt(status.st_dev) : nil
        }
        for (_, group) in Dictionary(grouping: needs, by: { disk($0.0) }) {
            let bytes = group.reduce(0) { $0 + $1.1 }
            if let free = PNGWriter.freeBytes(for: group[0].0), free < bytes {
                logger.warning(
                    "the job may not fit on its disk: it would wait for room",
                    metadata: [
                        "output": "\(group[0].0)", "free": "\(ByteCount(free))",
                        "needed": "up to \(ByteCount(bytes))",
                    ])
            }
        }
    }

    /// Rows are made on this thread and written on others, a PNG and a pyramid at the same time. A full disk makes it
    /// wait.
    /// - Throws: `PNGError`, or `OutputError.cancelled`; then each output is whole or not there.
    static func write(_ picture: FinishedPicture, to places: RenderRequest.Output, stop: StopRequest, logger: Logger)
        throws
    {
        var picture = picture
        let (height, width, format) = (picture.height, picture.width, picture.format)
        let writing = Writing(stop: stop, logger: logger)
        let rowBytes = format.rowBytes(width: width)
        var writers: [RowThread] = []
        defer {
            writing.fail(OutputError.cancelled)
            for writer in writers { writer.end() }
        }
        writers.append(
            try RowThread(name: "png", rowBytes: rowBytes, writing) {
                let png = try writing.open(places.png) {
                    try PNGWriter(
                        path: places.png, width: width, height: height, bitDepth: format.bitDepth, grey: format.isGrey,
                        alpha: format.hasAlpha)
                }
                png.onFull = { writing.waitForRoom(places.png) }
                return (png.writeRow, png.finish, png.cancel)
            })
        if let deepZoom = places.deepZoom {
            writers.append(
                try RowThread(name: "deepzoom", rowBytes: rowBytes, writing) {
                    let pyramid = try writing.open(deepZoom) {
                        try DeepZoomWriter(directory: deepZoom, width: width, height: height, format: format)
                    }
                    pyramid.onFull = { writing.waitForRoom(deepZoom) }
                    return (pyramid.writeRow, pyramid.finish, pyramid.cancel)
                })
        }
        let count = band(rowBytes: rowBytes)
        // In turns: when one comes round, the writers are done with it.
        var bands = [[UInt8]](repeating: [], count: Self.bands)
        for first in stride(from: 0, to: height, by: count) {
            try writing.check()
            let turn = first / count % bands.count
            try picture.samples(first..<min(first + count, height), into: &bands[turn])
            for writer in writers { writer.add(bands[turn]) }
        }
        for writer in writers { writer.finish() }
        for writer in writers { writer.end() }
        if let failure = writing.failure { throw stop.reason == nil ? failure : OutputError.cancelled }
    }
}

/// The state that those who write one output share: the first failure ends them all, and a full disk makes them wait.
private final class Writing: Sendable {
    private let stop: StopRequest
    private let logger: Logger
    private let lastLine = Mutex(-Double.infinity)
    private let firstFailure = Mutex<(any Error)?>(nil)

    init(stop: StopRequest, logger: Logger) { (self.stop, self.logger) = (stop, logger) }

    var failure: (any Error)? { firstFailure.withLock { $0 } }

    /// The first failure stays.
    func fail(_ error: any Error) { firstFailure.withLock { if $0 == nil { $0 = error } } }

    /// - Throws: the failure, or `OutputError.cancelled` where the job is to stop.
    func check() throws {
        if stop.reason != nil { throw OutputError.cancelled }
        if let failure { throw failure }
    }

    /// Makes a writer, which takes some room too.
    func open<Writer>(_ path: String, _ make: () throws -> Writer) throws -> Writer {
        while true {
            do { return try make() } catch let error as PNGError {
                guard case .noSpace = error, waitForRoom(path) else { throw error }
            }
        }
    }

    /// Waits where a disk is full until there may be room.
    /// - Returns: false once the writing is over.
    func waitForRoom(_ path: String) -> Bool {
        let isNew = lastLine.withLock { last in
            defer { last = Clock.now }
            return Clock.now - last > 60
        }
        if isNew {
            logger.warning("no room for the output: it waits until there is some", metadata: ["output": "\(path)"])
        }
        Thread.sleep(forTimeInterval: 0.5)
        return stop.reason == nil && failure == nil
    }
}

/// Writes rows on a thread of its own.
private final class RowThread {
    typealias Writer = (row: (Span<UInt8>) throws -> Void, finish: () throws -> Void, cancel: () -> Void)

    /// Bands of rows; an empty one says that they were all of them.
    private let queue = BoundedQueue<[UInt8]>(capacity: OutputImage.waiting)
    private let thread: OSThread

    init(name: String, rowBytes: Int, _ writing: Writing, _ open: @escaping @Sendable () throws -> Writer) throws {
        let queue = queue
        thread = try OSThread(name: name) {
            defer { queue.close() }
            do {
                let writer = try open()
                defer { writer.cancel() }
                while let band = queue.pop() {
                    try writing.check()
                    if band.isEmpty { return try writer.finish() }
                    for start in stride(from: 0, to: band.count, by: rowBytes) {
                        try writer.row(band.span.extracting(start..<start + rowBytes))
                    }
                }
            } catch {
                writing.fail(error)
            }
        }
    }

    /// A writer that has failed takes nothing more.
    func add(_ band: [UInt8]) { _ = queue.push(band) }
    /// Every row was added: the file is put in place.
    func finish() { _ = queue.push([]) }

    func end() {
        queue.close()
        thread.join()
    }
}
