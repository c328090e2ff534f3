internal import CPNG
import Glibc

/// Reads a PNG of any kind row by row: depths 1 to 16, grey, colour and palette, with or without alpha or tRNS,
/// interlaced or not. Memory is one row, except for an interlaced image, which is held whole.
///
/// Values are the stored ones divided by their maximum. Gamma (gAMA, sRGB) and colour profiles (iCCP) are not applied
/// and not kept: an image in another colour space than sRGB should be converted first. The colour of fully transparent
/// pixels is delivered as stored.
public final class PNGReader {
    public let path: String
    public let width: Int
    public let height: Int
    /// As delivered: 8 bits per channel also for images of 1, 2 and 4 bits and palettes; grey when stored as grey, with
    /// alpha when there is a tRNS chunk that stands for it.
    public let format: PixelFormat
    public var bitDepth: Int { format.bitDepth }
    public var isGrey: Bool { format.isGrey }
    public var hasAlpha: Bool { format.hasAlpha }
    /// Rows read so far.
    public private(set) var row = 0

    private let stream: UnsafeMutablePointer<cpng_stream>
    private let isInterlaced: Bool
    private let rowBytes: Int
    private var pixels: [UInt8]  // one row, or the whole interlaced image
    private var failure: PNGError?

    /// Opens `path` and reads up to the pixels. Sizes are checked before anything is allocated for them.
    ///
    /// - Parameters:
    ///   - pixelLimit: the most pixels (width x height) that are accepted.
    ///   - memoryLimit: the most bytes that a row, or an interlaced image, which has to be held whole, may take.
    /// - Throws: `PNGError`.
    public init(path: String, pixelLimit: Int = 1 << 31, memoryLimit: Int = 1 << 30) throws {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw errno == ENOENT || errno == ENOTDIR
                ? PNGError.missing(path: path) : .unreadable(path: path, reason: reason(of: errno))
        }
        let fileSize: Int
        do {
            fileSize = try Self.checkFile(descriptor, path: path, pixelLimit: pixelLimit)
        } catch {
            close(descriptor)
            throw error
        }
        guard let stream = cpng_open(descriptor) else {
            throw PNGError.unreadable(path: path, reason: "out of memory")
        }
        self.stream = stream
        self.path = path

        do {
            var header = cpng_header()
            guard cpng_read_header(stream, &header) else { throw Self.failure(of: stream, path: path) }
            let (width, height) = (Int(header.width), Int(header.height))
            // Deflate makes at most 1032 bytes of one, so a header that promises more lies.
            let bitsPerPixel = header.bit_depth * Self.channels(colorType: header.color_type)
            guard (width * Int(bitsPerPixel) + 7) / 8 <= (fileSize / height + 1) * 1032 else {
                throw PNGError.implausibleSize(path: path, width: width, height: height, bytes: fileSize)
            }
            let largestRow = width * (header.bit_depth == 16 ? 8 : 4)  // libpng's buffers, whatever the colour type
            guard largestRow <= memoryLimit else {
                throw PNGError.rowTooLarge(path: path, width: width, bytes: largestRow, limit: memoryLimit)
            }
            var (channels, bitDepth, rowBytes): (Int32, Int32, Int) = (0, 0, 0)
            guard cpng_start_rows(stream, &channels, &bitDepth, &rowBytes) else {
                throw Self.failure(of: stream, path: path)
            }
            guard (1...4).contains(channels), bitDepth == 8 || bitDepth == 16,
                rowBytes == width * Int(channels) * Int(bitDepth) / 8
            else { throw PNGError.corrupt(path: path, reason: "unknown pixel format") }
            let (whole, overflow) = rowBytes.multipliedReportingOverflow(by: height)
            if header.interlaced, overflow || whole > memoryLimit {
                throw PNGError.interlacedTooLarge(path: path, bytes: overflow ? .max : whole, limit: memoryLimit)
            }
            self.width = width
            self.height = height
            self.format = PixelFormat(grey: channels <= 2, alpha: channels % 2 == 0, bitDepth: Int(bitDepth))
            self.isInterlaced = header.interlaced
            self.rowBytes = rowBytes
            self.pixels = [UInt8](repeating: 0, count: header.interlaced ? whole : rowBytes)
        } catch {
            cpng_close(stream)
            throw error
        }
    }

    deinit { cpng_close(stream) }

    /// Reads the next row as numbers: `PixelFormat.unpack` of its samples. The tail of the file is checked with the
    /// last one.
    ///
    /// - Parameters:
    ///   - rgb: receives `width` pixels of three interleaved channels in [0, 1]; a grey value stands in all three.
    ///   - alpha: receives `width` values in [0, 1], 1 where the image has no alpha. May be empty when it is not
    ///     wanted.
    /// - Throws: `PNGError`; after an error no more rows can be read.
    public func readRow(rgb: inout MutableSpan<Float>, alpha: inout MutableSpan<Float>) throws {
        precondition(rgb.count == width * 3 && (alpha.count == width || alpha.isEmpty), "row of \(width) pixels")
        let start = try nextRow()
        let pixels = pixels
        format.unpack(pixels.span.extracting(start..<start + rowBytes), rgb: &rgb, alpha: &alpha)
    }

    /// Reads the next row as it is stored, but for what `format` says. The tail of the file is checked with the last
    /// one.
    ///
    /// - Parameter samples: receives `format.rowBytes(width: width)` bytes.
    /// - Throws: `PNGError`; after an error no more rows can be read.
    public func readRow(samples: inout MutableSpan<UInt8>) throws {
        precondition(samples.count == rowBytes, "row of \(width) pixels")
        let start = try nextRow()
        let pixels = pixels
        RowCopy.copy(from: pixels.span, start: start, to: &samples, count: rowBytes)
    }

    /// Brings the next row into `pixels`, and tells where it begins there.
    private func nextRow() throws -> Int {
        if let failure { throw failure }
        guard row < height else { throw PNGError.noMoreRows(path: path) }
        do {
            if !isInterlaced {
                guard cpng_read_rows(stream, &pixels, pixels.count, 1, false) else {
                    throw Self.failure(of: stream, path: path)
                }
            } else if row == 0 {
                guard cpng_read_rows(stream, &pixels, pixels.count, height, true) else {
                    throw Self.failure(of: stream, path: path)
                }
            }
            if row == height - 1 {
                guard cpng_read_end(stream) else { throw Self.failure(of: stream, path: path) }
            }
        } catch let error as PNGError {
            failure = error
            throw error
        }
        defer { row += 1 }
        return isInterlaced ? row * rowBytes : 0
    }

    /// Checks what can be known before libpng looks at the file: kind, magic, size. Returns the file's size in bytes.
    private static func checkFile(_ descriptor: Int32, path: String, pixelLimit: Int) throws -> Int {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw PNGError.unreadable(path: path, reason: reason(of: errno)) }
        switch status.st_mode & S_IFMT {
        case S_IFREG: break
        case S_IFDIR: throw PNGError.isDirectory(path: path)
        default: throw PNGError.notAFile(path: path)
        }
        var start = [UInt8](repeating: 0, count: 24)  // signature, chunk length, "IHDR", width, height
        let got = pread(descriptor, &start, start.count, 0)
        guard got >= 0 else { throw PNGError.unreadable(path: path, reason: reason(of: errno)) }
        guard got > 0 else { throw PNGError.empty(path: path) }
        start.removeLast(start.count - got)
        let signature: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
        guard start.starts(with: signature) else {
            if signature.starts(with: start) { throw PNGError.truncated(path: path) }
            throw PNGError.notPNG(path: path, seems: format(of: start))
        }
        guard start.count == 24 else { throw PNGError.truncated(path: path) }
        guard start[12..<16].elementsEqual("IHDR".utf8) else {
            throw PNGError.corrupt(path: path, reason: "no header chunk")
        }
        let width = start[16..<20].reduce(0) { $0 << 8 | Int($1) }
        let height = start[20..<24].reduce(0) { $0 << 8 | Int($1) }
        guard width > 0, height > 0 else { throw PNGError.noPixels(path: path, width: width, height: height) }
        let (count, overflow) = width.multipliedReportingOverflow(by: height)
        guard !overflow, count <= pixelLimit else {
            throw PNGError.tooManyPixels(path: path, width: width, height: height, limit: pixelLimit)
        }
        return Int(status.st_size)
    }

    private static func format(of start: [UInt8]) -> String? {
        func has(_ text: String, at offset: Int = 0) -> Bool { start.dropFirst(offset).starts(with: text.utf8) }
        if start.starts(with: [0xFF, 0xD8, 0xFF]) { return "a JPEG" }
        if has("GIF8") { return "a GIF" }
        if has("RIFF"), has("WEBP", at: 8) { return "a WebP" }
        if has("BM") { return "a BMP" }
        if has("II*\0") || has("MM\0*") || has("II+\0") || has("MM\0+") { return "a TIFF" }
        if has("ftypavif", at: 4) { return "an AVIF" }
        if has("ftyphei", at: 4) || has("ftypmif1", at: 4) { return "a HEIC" }
        if has("%PDF") { return "a PDF" }
        if has("<svg") { return "an SVG" }
        return nil
    }

    private static func channels(colorType: Int32) -> Int32 {
        switch colorType {
        case PNG_COLOR_TYPE_GRAY_ALPHA: 2
        case PNG_COLOR_TYPE_RGB: 3
        case PNG_COLOR_TYPE_RGB_ALPHA: 4
        default: 1  // grey or palette index
        }
    }

    private static func failure(of stream: UnsafeMutablePointer<cpng_stream>, path: String) -> PNGError {
        if cpng_at_end(stream) { return .truncated(path: path) }
        let code = stream.pointee.error_number
        return ferror(stream.pointee.file) != 0
            ? .unreadable(path: path, reason: reason(of: code)) : .corrupt(path: path, reason: message(of: stream))
    }
}

/// libpng's own words for the last failure.
func message(of stream: UnsafeMutablePointer<cpng_stream>) -> String {
    withUnsafeBytes(of: stream.pointee.message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

extension RGBImage {
    /// Reads a whole PNG. For images that fit in memory at 12 bytes a pixel.
    ///
    /// - Throws: `PNGError`.
    public init(png path: String, pixelLimit: Int = 1 << 28) throws {
        try self.init(reading: PNGReader(path: path, pixelLimit: pixelLimit))
    }

    /// Reads all rows of an image just opened.
    ///
    /// - Throws: `PNGError`.
    public init(reading reader: PNGReader) throws {
        self.init(width: reader.width, height: reader.height)
        var rgbRow = [Float](repeating: 0, count: width * 3)
        var alphaRow = [Float](repeating: 1, count: reader.hasAlpha ? width : 0)
        for y in 0..<height {
            var rgbSpan = rgbRow.mutableSpan
            var alphaSpan = alphaRow.mutableSpan
            try reader.readRow(rgb: &rgbSpan, alpha: &alphaSpan)
            pixels.replaceSubrange(y * width * 3..<(y + 1) * width * 3, with: rgbRow)
            alpha += alphaRow
        }
    }
}
