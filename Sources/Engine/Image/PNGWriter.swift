internal import CPNG
import Glibc
import Synchronization

/// Writes a PNG row by row into a hidden file beside its target, `.NAME.part-PID-N`, and renames it into place when it is
/// complete: the target is the old file or the whole new one, never half of it.
///
/// The same rows give the same bytes: no time, no text, one fixed filter and compression.
public final class PNGWriter {
    public let path: String
    public let width: Int
    public let height: Int
    /// Bits per channel, 8 or 16.
    public let bitDepth: Int
    public let isGrey: Bool
    public let hasAlpha: Bool
    /// Rows written so far.
    public private(set) var row = 0

    private let target: String
    private let temporary: String
    private var stream: UnsafeMutablePointer<cpng_stream>?   // nil when finished, cancelled or failed
    private var failure: PNGError?
    private var bytes: [UInt8]

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
        precondition(bitDepth == 8 || bitDepth == 16, "8 or 16 bits")
        self.path = path
        self.target = target
        self.temporary = temporary
        self.width = width
        self.height = height
        self.bitDepth = bitDepth
        self.isGrey = grey
        self.hasAlpha = alpha
        let channels = (grey ? 1 : 3) + (alpha ? 1 : 0)
        self.bytes = [UInt8](repeating: 0, count: width * channels * bitDepth / 8)
        self.stream = cpng_open(descriptor, true)
        guard let stream else {
            unlink(temporary)
            throw PNGError.writeFailed(path: path, reason: "out of memory")
        }
        let header = cpng_header(
            width: UInt32(width), height: UInt32(height), bit_depth: Int32(bitDepth),
            color_type: (grey ? 0 : PNG_COLOR_MASK_COLOR) | (alpha ? PNG_COLOR_MASK_ALPHA : 0), interlaced: false)
        guard cpng_write_header(stream, header, Self.level, Self.strategy, Self.filter) else { throw fail() }
    }

    deinit { cancel() }

    // Deflate is the coordinator's largest cost for a big picture and runs on one core. Photographs have few repeats longer
    // than a run, so searching for them buys nothing once rows are filtered. Measured with zlib 1.2.13 on a photograph
    // enlarged to 2048x2048, MB/s and size against raw: average filter + RLE 73, 0.41; level 1 67, 0.47; level 6 7, 0.43;
    // libpng's choice of filter per row + level 6 6, 0.44; Paeth + RLE 44, 0.40. Huffman alone is 94, 0.41, but spends a
    // bit on each byte of flat areas.
    private static let level: Int32 = 1
    private static let strategy = Z_RLE
    private static let filter = PNG_FILTER_AVG

    /// Writes the next row. Values are clamped to [0, 1] and rounded to the nearest step, halves upwards; NaN becomes 0.
    ///
    /// - Parameters:
    ///   - rgb: `width` pixels of three interleaved channels. A grey file takes their mean.
    ///   - alpha: `width` values; ignored, and may be empty, when the file has no alpha.
    /// - Throws: `PNGError`; after an error the hidden file is gone and no more rows are taken.
    public func writeRow(rgb: Span<Float>, alpha: Span<Float>) throws {
        precondition(rgb.count == width * 3 && (!hasAlpha || alpha.count == width), "row of \(width) pixels")
        guard row < height else { throw PNGError.wrongRowCount(path: path, written: row + 1, height: height) }
        guard let stream else { throw failure ?? PNGError.writeFailed(path: path, reason: "cancelled") }
        var bytes = bytes.mutableSpan
        if bitDepth == 8 {
            pack(&bytes, width: width, isGrey: isGrey, hasAlpha: hasAlpha, rgb: rgb, alpha: alpha) {
                $0[$1] = UInt8(truncatingIfNeeded: quantized($2, steps: 255))
            }
        } else {
            pack(&bytes, width: width, isGrey: isGrey, hasAlpha: hasAlpha, rgb: rgb, alpha: alpha) {
                let value = quantized($2, steps: 65535)
                $0[2 * $1] = UInt8(truncatingIfNeeded: value >> 8)
                $0[2 * $1 + 1] = UInt8(truncatingIfNeeded: value)
            }
        }
        guard cpng_write_row(stream, self.bytes, self.bytes.count) else { throw fail() }
        row += 1
    }

    /// Ends the file, brings it to the disk and puts it in place.
    ///
    /// - Throws: `PNGError`; the target is then as it was.
    public func finish() throws {
        guard let stream else { throw failure ?? PNGError.writeFailed(path: path, reason: "finished or cancelled before") }
        guard row == height else {
            cancel()
            throw PNGError.wrongRowCount(path: path, written: row, height: height)
        }
        guard cpng_write_end(stream) else { throw fail() }
        guard rename(temporary, target) == 0 else {
            let error = error(errno: errno, otherwise: "rename")
            cancel()
            throw error
        }
        cpng_close(stream)
        self.stream = nil
        // The rename lasts through a power cut only when the directory has reached the disk. A file system that cannot
        // do this still has the file.
        let directory = open(Self.directory(of: target), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if directory >= 0 {
            fsync(directory)
            close(directory)
        }
    }

    /// Gives up: removes the hidden file and leaves the target as it was. Does nothing after `finish`.
    public func cancel() {
        guard let stream else { return }
        cpng_close(stream)
        self.stream = nil
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
        guard statvfs(directory(of: path), &status) == 0 else { return nil }
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

    /// `path` with its links followed, when a file can be put there.
    private static func checkedTarget(_ path: String) throws -> String {
        if path.isEmpty || path.hasSuffix("/") { throw PNGError.outputIsDirectory(path: path) }
        var status = stat()
        if stat(path, &status) == 0 {
            switch status.st_mode & S_IFMT {
            case S_IFREG: break
            case S_IFDIR: throw PNGError.outputIsDirectory(path: path)
            default: throw PNGError.outputNotAFile(path: path)   // the rename would replace a device or a pipe
            }
            guard access(path, W_OK) == 0 else { throw PNGError.notWritable(path: path, reason: reason(of: errno)) }
            // A link shall go on pointing at the file that is replaced.
            guard let resolved = realpath(path, nil) else {
                throw PNGError.notWritable(path: path, reason: reason(of: errno))
            }
            defer { free(resolved) }
            return String(cString: resolved)
        }
        let directory = directory(of: path)
        guard stat(directory, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            throw PNGError.directoryMissing(path: path, directory: directory)
        }
        return path
    }

    private static let serial = Atomic<Int>(0)

    private static func makeTemporary(for target: String, path: String) throws -> (descriptor: Int32, name: String) {
        let number = serial.add(1, ordering: .relaxed).newValue
        let slash = target.utf8.lastIndex(of: UInt8(ascii: "/")).map { target.utf8.index(after: $0) } ?? target.startIndex
        let name = "\(target[..<slash]).\(target[slash...]).part-\(getpid())-\(number)"
        unlink(name)   // left by a process of this id that was killed
        let descriptor = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else {
            throw errno == ENOSPC || errno == EDQUOT
                ? PNGError.noSpace(path: path, needed: nil) : .notWritable(path: path, reason: reason(of: errno))
        }
        return (descriptor, name)
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// The stream's failure, after which the hidden file is gone.
    private func fail() -> PNGError {
        guard let stream else { return failure ?? .writeFailed(path: path, reason: "no stream") }
        let error = error(errno: stream.pointee.error_number, otherwise: message(of: stream))
        failure = error
        cancel()
        return error
    }

    private func error(errno code: Int32, otherwise words: String) -> PNGError {
        switch code {
        case 0: .writeFailed(path: path, reason: words)
        case ENOSPC, EDQUOT:
            .noSpace(
                path: path,
                needed: Self.largestSize(width: width, height: height, bitDepth: bitDepth, grey: isGrey, alpha: hasAlpha))
        default: .writeFailed(path: path, reason: reason(of: code))
        }
    }
}

/// A value in [0, 1] as an integer of 0...steps: clamped, rounded to nearest with halves up, NaN to 0.
@inline(__always)
package func quantized(_ value: Float, steps: Float) -> Int32 {
    // The comparison is false for NaN.
    let clamped = value > 0 ? (value < 1 ? value : 1) : 0
    return Int32(clamped * steps + 0.5)
}

@inline(__always)
private func pack(
    _ bytes: inout MutableSpan<UInt8>, width: Int, isGrey: Bool, hasAlpha: Bool, rgb: Span<Float>, alpha: Span<Float>,
    store: (inout MutableSpan<UInt8>, Int, Float) -> Void
) {
    let channels = (isGrey ? 1 : 3) + (hasAlpha ? 1 : 0)
    if isGrey {
        for x in 0..<width { store(&bytes, x * channels, (rgb[3 * x] + rgb[3 * x + 1] + rgb[3 * x + 2]) / 3) }
    } else {
        for x in 0..<width {
            for c in 0..<3 { store(&bytes, x * channels + c, rgb[3 * x + c]) }
        }
    }
    if hasAlpha {
        for x in 0..<width { store(&bytes, x * channels + channels - 1, alpha[x]) }
    }
}
