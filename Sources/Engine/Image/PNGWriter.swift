import Glibc

/// Writes a PNG row by row into a hidden file beside its target, `.NAME.part-PID-N`, and renames it into place when it
/// is complete: the target is the old file or the whole new one, never half of it.
///
/// The same rows give the same bytes: no time, no text, one fixed filter and compression. Memory is three rows and a
/// megabyte.
public final class PNGWriter {
    public let path: String
    public let width: Int
    public let height: Int
    public let format: PixelFormat
    /// Rows written so far.
    public private(set) var row = 0
    /// Asked when the disk is full: whether to try again. Without it that is an error.
    public var onFull: (() -> Bool)?

    private let target: String
    private let temporary: String
    private var descriptor: Int32?  // nil when finished, cancelled or failed
    private var failure: PNGError?
    private var encoder: PNGEncoder
    private var samples: [UInt8] = []
    private var unsynced = 0  // bytes of the file

    /// Starts a file of `height` rows of `width` pixels.
    ///
    /// - Throws: `PNGError`.
    public convenience init(path: String, width: Int, height: Int, bitDepth: Int, grey: Bool, alpha: Bool) throws {
        let side = 1...Int(Int32.max)
        guard side.contains(width), side.contains(height) else {
            throw PNGError.invalidSize(path: path, width: width, height: height)
        }
        let target = try Self.checkedTarget(path)
        let (descriptor, temporary) = try Self.makeTemporary(for: target, path: path)
        try self.init(
            path: path, target: target, temporary: temporary, descriptor: descriptor,
            width: width, height: height, bitDepth: bitDepth, grey: grey, alpha: alpha)
    }

    /// Writes to an open descriptor, which is taken over, and renames `temporary` to `target` at the end.
    package init(
        path: String, target: String, temporary: String, descriptor: Int32,
        width: Int, height: Int, bitDepth: Int, grey: Bool, alpha: Bool
    ) throws {
        self.path = path
        self.target = target
        self.temporary = temporary
        self.width = width
        self.height = height
        self.descriptor = descriptor
        format = PixelFormat(grey: grey, alpha: alpha, bitDepth: bitDepth)
        encoder = PNGEncoder(format: format)
        encoder.begin(width: width, height: height)
    }

    deinit { cancel() }

    /// Writes the next row of numbers, which `PixelFormat.pack` turns into samples.
    ///
    /// - Parameters:
    ///   - rgb: `width` pixels of three interleaved channels. A grey file takes their mean.
    ///   - alpha: `width` values; ignored, and may be empty, when the file has no alpha.
    /// - Throws: `PNGError`; after an error the hidden file is gone and no more rows are taken.
    public func writeRow(rgb: Span<Float>, alpha: Span<Float>) throws {
        precondition(rgb.count == width * 3 && (!format.hasAlpha || alpha.count == width), "row of \(width) pixels")
        if samples.isEmpty { samples = [UInt8](repeating: 0, count: format.rowBytes(width: width)) }
        var span = samples.mutableSpan
        format.pack(rgb: rgb, alpha: alpha, into: &span)
        let samples = samples
        try writeRow(samples.span)
    }

    /// Writes the next row of samples, as `format` describes them.
    ///
    /// - Throws: `PNGError`; after an error the hidden file is gone and no more rows are taken.
    public func writeRow(_ samples: Span<UInt8>) throws {
        precondition(samples.count == format.rowBytes(width: width), "row of \(width) pixels")
        guard row < height else { throw PNGError.wrongRowCount(path: path, written: row + 1, height: height) }
        guard descriptor != nil else { throw failure ?? PNGError.writeFailed(path: path, reason: "cancelled") }
        encoder.add(samples)
        if encoder.output.count >= 1 << 18 { try writeOutput() }
        row += 1
    }

    private func writeOutput() throws {
        guard let descriptor else { return }
        let code = writeAll(encoder.output, to: descriptor, onFull: onFull)
        unsynced += encoder.output.count
        if unsynced >= 1 << 25 {
            beginSync(descriptor)
            unsynced = 0
        }
        encoder.output.removeAll(keepingCapacity: true)
        if code != 0 { throw fail(code) }
    }

    /// Ends the file, brings it to the disk and puts it in place.
    ///
    /// - Throws: `PNGError`; the target is then as it was.
    public func finish() throws {
        guard let descriptor else {
            throw failure ?? PNGError.writeFailed(path: path, reason: "finished or cancelled before")
        }
        guard row == height else {
            cancel()
            throw PNGError.wrongRowCount(path: path, written: row, height: height)
        }
        encoder.end()
        try writeOutput()
        guard fsync(descriptor) == 0, rename(temporary, target) == 0 else { throw fail(errno) }
        close(descriptor)
        self.descriptor = nil
        syncDirectory(split(target).directory)
    }

    /// Gives up: removes the hidden file and leaves the target as it was. Does nothing after `finish`.
    public func cancel() {
        guard let descriptor else { return }
        close(descriptor)
        self.descriptor = nil
        unlink(temporary)
    }

    /// Checks that `path` can be written, by making and removing the hidden file, so that hours of rendering do not end
    /// at a missing directory.
    ///
    /// - Throws: `PNGError`.
    public static func probe(_ path: String) throws {
        let (descriptor, temporary) = try makeTemporary(for: checkedTarget(path), path: path)
        close(descriptor)
        unlink(temporary)
    }

    /// The bytes free for this user on the disk that `path` would be written to, nil when unknown.
    public static func freeBytes(for path: String) -> Int? {
        var status = statvfs()
        guard let target = followingLinks(path), statvfs(split(target).directory, &status) == 0 else { return nil }
        let blocks = Int(clamping: status.f_bavail)
        let (bytes, overflow) = blocks.multipliedReportingOverflow(by: Int(clamping: status.f_frsize))
        return overflow ? .max : bytes
    }

    /// The most bytes a file of this kind can take, that is, when its pixels do not compress. Photographs take about
    /// half of it.
    public static func largestSize(width: Int, height: Int, bitDepth: Int, grey: Bool, alpha: Bool) -> Int {
        let pixelBytes = ((grey ? 1 : 3) + (alpha ? 1 : 0)) * bitDepth / 8
        // In Double, so that no size overflows; a thousandth for deflate's blocks and the chunks' frames.
        let bytes = (Double(width) * Double(pixelBytes) + 1) * Double(height) * 1.001 + 1024
        return Int(exactly: bytes.rounded(.up)) ?? .max
    }

    /// `path` with its links followed, when a file can be put there: a link shall go on pointing at the file that is
    /// replaced, or made.
    private static func checkedTarget(_ path: String) throws -> String {
        if path.isEmpty || path.hasSuffix("/") { throw PNGError.outputIsDirectory(path: path) }
        guard let target = followingLinks(path) else {
            throw PNGError.notWritable(path: path, reason: reason(of: errno))
        }
        if target.hasSuffix("/") { throw PNGError.outputIsDirectory(path: path) }
        var status = stat()
        if stat(target, &status) == 0 {
            switch status.st_mode & S_IFMT {
            case S_IFREG: break
            case S_IFDIR: throw PNGError.outputIsDirectory(path: path)
            default: throw PNGError.outputNotAFile(path: path)  // the rename would replace a device or a pipe
            }
            guard access(target, W_OK) == 0 else { throw PNGError.notWritable(path: path, reason: reason(of: errno)) }
            return target
        }
        let directory = split(target).directory
        guard stat(directory, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            throw PNGError.directoryMissing(path: path, directory: directory)
        }
        return target
    }

    private static func makeTemporary(for target: String, path: String) throws -> (descriptor: Int32, name: String) {
        sweepHidden(for: target) { unlink($0) }
        guard
            let (descriptor, name) = makeHidden(
                for: target, make: { open($0, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666) })
        else {
            throw isFull(errno)
                ? PNGError.noSpace(path: path, needed: nil) : .notWritable(path: path, reason: reason(of: errno))
        }
        return (descriptor, name)
    }

    /// The failure, after which the hidden file is gone.
    private func fail(_ code: Int32) -> PNGError {
        let needed = Self.largestSize(
            width: width, height: height, bitDepth: format.bitDepth, grey: format.isGrey, alpha: format.hasAlpha)
        let error = PNGError(writing: path, errno: code, needed: needed)
        failure = error
        cancel()
        return error
    }
}
