internal import CPNG

/// Makes the bytes of a PNG from rows of samples. Whoever uses it takes `output` away when it likes, and has a whole
/// file after `end`.
///
/// The same rows give the same bytes: no time, no text, one fixed filter and compression.
struct PNGEncoder {
    /// Bytes that are ready, in order.
    var output: [UInt8] = []

    private let format: PixelFormat
    private var rowBytes = 0
    // Each with `lead` zeros before it, which stand for the pixel left of the first.
    private var row: [UInt8] = []
    private var rowAbove: [UInt8] = []
    private static let lead = 8

    // Filtered bytes of a block, compressed when more are to come.
    private var block = [UInt8](repeating: 0, count: blockBytes)
    private var blockCount = 0
    private static let blockBytes = 1 << 17

    private var deflate = Deflate()
    private var adler: UInt32 = 1
    private var chunk = [UInt8](repeating: 0, count: 8 + 2 + Deflate.room(blockBytes) + 4)
    private var isFirstChunk = true

    init(format: PixelFormat) { self.format = format }

    /// Bytes of memory at rows of that width, without the output.
    static func bytes(rowBytes: Int) -> Int { 2 * (rowBytes + lead) + blockBytes + Deflate.room(blockBytes) }

    /// Begins a file; sides of 1 to 2^31 - 1 pixels.
    mutating func begin(width: Int, height: Int) {
        rowBytes = format.rowBytes(width: width)
        row = [UInt8](repeating: 0, count: Self.lead + rowBytes)
        rowAbove = row
        (blockCount, deflate, adler, isFirstChunk) = (0, Deflate(), 1, true)
        output += [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
        let colorType: UInt8 = (format.isGrey ? 0 : 2) | (format.hasAlpha ? 4 : 0)
        appendChunk(
            "IHDR",
            Self.bigEndian(UInt32(width)) + Self.bigEndian(UInt32(height)) + [
                UInt8(format.bitDepth), colorType, 0, 0, 0,
            ])
    }

    /// Adds a row of samples as `PixelFormat` describes them.
    mutating func add(_ samples: Span<UInt8>) {
        precondition(samples.count == rowBytes)
        swap(&row, &rowAbove)
        let count = rowBytes
        var to = row.mutableSpan
        RowCopy.copy(from: samples, to: &to, at: Self.lead, count: count)
        reserve()
        block[blockCount] = 3  // the filter's number: average
        blockCount += 1
        var done = 0
        while done < rowBytes {
            reserve()
            let count = min(rowBytes - done, Self.blockBytes - blockCount)
            let (row, rowAbove, pixelBytes, target) = (row, rowAbove, format.pixelBytes, blockCount)
            var span = block.mutableSpan
            PNGKernels.filter(
                row.span, above: rowAbove.span, start: Self.lead + done, count: count, pixelBytes: pixelBytes,
                into: &span, at: target)
            done += count
            blockCount += count
        }
    }

    /// Ends the file.
    mutating func end() {
        writeBlock(isLast: true)
        appendChunk("IEND", [])
    }

    private mutating func reserve() {
        if blockCount == Self.blockBytes { writeBlock(isLast: false) }
    }

    /// One IDAT chunk for each block.
    private mutating func writeBlock(isLast: Bool) {
        let block = block
        var end = 8
        if isFirstChunk {
            (chunk[8], chunk[9]) = (0x78, 0x01)  // zlib, window of 32 KiB, fastest
            end = 10
            isFirstChunk = false
        }
        var deflate = deflate
        let filtered = block.span.extracting(0..<blockCount)
        adler = PNGKernels.adler32(adler, filtered)
        var span = chunk.mutableSpan
        end = deflate.compress(filtered, isLast: isLast, into: &span, at: end)
        self.deflate = deflate
        if isLast {
            chunk.replaceSubrange(end..<end + 4, with: Self.bigEndian(adler))
            end += 4
        }
        chunk.replaceSubrange(0..<8, with: Self.bigEndian(UInt32(end - 8)) + Array("IDAT".utf8))
        output += chunk[..<end]
        output += Self.bigEndian(checksum(chunk[4..<end]))
        blockCount = 0
    }

    private mutating func appendChunk(_ name: String, _ data: [UInt8]) {
        let named = name.utf8 + data
        output += Self.bigEndian(UInt32(data.count)) + named + Self.bigEndian(checksum(named[...]))
    }

    private func checksum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        bytes.withUnsafeBufferPointer { UInt32(truncatingIfNeeded: crc32(0, $0.baseAddress, UInt32($0.count))) }
    }

    private static func bigEndian(_ value: UInt32) -> [UInt8] {
        [UInt8(value >> 24), UInt8(value >> 16 & 255), UInt8(value >> 8 & 255), UInt8(value & 255)]
    }
}
