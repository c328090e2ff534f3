/// Deflate (RFC 1951) for filtered rows of pictures, many times faster than zlib's fastest setting
/// (`docs/decisions.md`): each block has its own Huffman codes, and of the repetitions only runs of one byte are looked
/// for, in steps of eight.
///
/// The bytes depend on nothing but the input and how it is cut into blocks.
package struct Deflate {
    /// The bits that have not filled a byte yet, the oldest lowest; fewer than eight between blocks.
    private var bits: UInt64 = 0
    private var bitCount = 0
    private let kernels: KernelSet

    /// - Parameter kernels: all give the same.
    package init(kernels: KernelSet = .best) { self.kernels = kernels }

    /// Room to compress a block of `count` bytes in. What is written is no longer than `count`, five bytes for each
    /// 65535 of them that are begun, and one.
    package static func room(_ count: Int) -> Int { PNGKernels.encodedBound(count) + 256 }

    /// Compresses a block.
    ///
    /// - Parameters:
    ///   - bytes: at least one
    ///   - isLast: ends the stream, with zeros up to the next whole byte
    ///   - output: at least `room(bytes.count)` long from `start`
    /// - Returns: the end of what was written
    package mutating func compress(
        _ bytes: Span<UInt8>, isLast: Bool, into output: inout MutableSpan<UInt8>, at start: Int
    ) -> Int {
        precondition(bytes.count > 0 && start >= 0 && output.count - start >= Self.room(bytes.count))
        var writer = BitWriter(bits: bits, bitCount: bitCount, position: start)
        let codes = Codes(bytes)
        codes.writeHeader(isLast: isLast, &writer, &output)
        writer.position = PNGKernels.encode(
            bytes, literals: codes.literals, runs: codes.runs, bits: &writer.bits, count: &writer.bitCount,
            into: &output, at: writer.position,
            kernels: kernels)
        writer.add(codes.end)
        writer.flush(&output)
        if 8 * (writer.position - start) + writer.bitCount - bitCount > 8 * Self.storedBytes(bytes.count) {
            writer = BitWriter(bits: bits, bitCount: bitCount, position: start)
            Self.store(bytes, isLast: isLast, &writer, &output)
        }
        if isLast { writer.align(&output) }
        (self.bits, bitCount) = (writer.bits, writer.bitCount)
        return writer.position
    }

    /// The size of `count` bytes that are not compressed, but for up to two bits more to align the first block.
    private static func storedBytes(_ count: Int) -> Int { count + 5 * ((count + 65534) / 65535) }

    private static func store(
        _ bytes: Span<UInt8>, isLast: Bool, _ writer: inout BitWriter, _ output: inout MutableSpan<UInt8>
    ) {
        for first in stride(from: 0, to: bytes.count, by: 65535) {
            let end = min(first + 65535, bytes.count)
            writer.add(Code(bits: isLast && end == bytes.count ? 1 : 0, count: 3))
            writer.align(&output)
            let length = UInt32(end - first)
            writer.add(Code(bits: length | ~length << 16, count: 32))
            writer.flush(&output)
            for i in first..<end {
                output[writer.position] = bytes[i]
                writer.position += 1
            }
        }
    }
}

private typealias Code = PNGKernels.Code

private struct BitWriter {
    var bits: UInt64
    var bitCount: Int
    var position: Int

    /// Up to 63 bits between two calls of `flush`, the 7 that it may leave included.
    @inline(__always)
    mutating func add(_ code: Code) {
        bits |= UInt64(code.bits) &<< UInt64(truncatingIfNeeded: bitCount)
        bitCount &+= Int(code.count)
    }

    /// Writes the whole bytes. Touches up to eight bytes behind them.
    @inline(__always)
    mutating func flush(_ output: inout MutableSpan<UInt8>) {
        var bytes = output.mutableBytes
        bytes.storeBytes(of: bits.littleEndian, toByteOffset: position, as: UInt64.self)
        position &+= bitCount &>> 3
        bits = bits &>> UInt64(truncatingIfNeeded: bitCount & ~7)
        bitCount &= 7
    }

    mutating func align(_ output: inout MutableSpan<UInt8>) {
        bitCount = (bitCount + 7) & ~7
        flush(&output)
    }
}

/// The codes of a block: literals 0...255, the end, and the lengths of runs; of distances only 1.
private struct Codes {
    private static let longest = PNGKernels.longestLiteral
    private static let symbols = 286

    private var lengths: [UInt8]
    private(set) var literals: [Code]
    /// By length in eights: length, its extra bits and the distance.
    private(set) var runs = [Code](repeating: Code(), count: 33)
    let end: Code

    /// The codes for a block. Of a long one a quarter is looked at, and any symbol may occur in the rest: that makes it
    /// 1 % larger, and counting all of it would take longer than writing it.
    init(_ bytes: Span<UInt8>) {
        let isLong = bytes.count >= 1 << 15
        let (step, atLeast) = isLong ? (4, 1) : (1, 0)
        let found = PNGKernels.counts(bytes, step: step)
        var counts =
            found.literals.map { step * Int($0) + atLeast } + [1] + [Int](repeating: 0, count: Self.symbols - 257)
        for eights in 1...32 { counts[Self.symbol(ofRun: eights).symbol] += step * Int(found.runs[eights]) + atLeast }
        lengths = huffmanLengths(counts, longest: Self.longest)
        let codes = canonicalCodes(lengths)
        literals = Array(codes[..<256])
        end = codes[256]
        for eights in 1...32 {
            let (symbol, extra, extraCount) = Self.symbol(ofRun: eights)
            // The one code of a distance is the bit 0.
            runs[eights] = Code(
                bits: codes[symbol].bits | extra << codes[symbol].count, count: codes[symbol].count + extraCount + 1)
        }
    }

    /// RFC 1951, 3.2.5.
    private static func symbol(ofRun eights: Int) -> (symbol: Int, extra: UInt32, extraCount: UInt32) {
        let length = 8 * eights
        guard length > 10 else { return (254 + length, 0, 0) }
        // From 11 on, four symbols for each doubling of length - 3.
        let extraCount = (length - 3).bitWidth - 1 - (length - 3).leadingZeroBitCount - 2
        let group = (length - 3) >> extraCount  // 4...7
        return (257 + 4 * extraCount + group, UInt32((length - 3) & ((1 << extraCount) - 1)), UInt32(extraCount))
    }

    // The code lengths 0...14 are written with fixed codes of their own, one of 3 and fourteen of 4 bits.
    private static let lengthLengths: [UInt8] = (0...18).map { $0 > longest ? 0 : $0 == 0 ? 3 : 4 }
    private static let lengthCodes = canonicalCodes(lengthLengths)

    /// RFC 1951, 3.2.7.
    func writeHeader(isLast: Bool, _ writer: inout BitWriter, _ output: inout MutableSpan<UInt8>) {
        func write(_ bits: Int, _ count: Int) {
            writer.add(Code(bits: UInt32(bits), count: UInt32(count)))
            writer.flush(&output)
        }
        write(isLast ? 1 : 0, 1)
        write(2, 2)
        write(Self.symbols - 257, 5)
        write(0, 5)  // one distance
        write(15, 4)  // all 19 lengths of code lengths, in an order of their own
        for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15] {
            write(Int(Self.lengthLengths[symbol]), 3)
        }
        for length in lengths + [1] {
            writer.add(Self.lengthCodes[Int(length)])
            writer.flush(&output)
        }
    }
}

/// The lengths of a Huffman code of no more than `longest` bits; 0 for symbols that do not occur. At least two must.
///
/// Where Huffman's own tree is deeper, its deepest leaves are raised and others lowered until the code is complete
/// again, which is within a fraction of a per cent of the best.
func huffmanLengths(_ counts: [Int], longest: Int) -> [UInt8] {
    let order = counts.indices.filter { counts[$0] > 0 }.sorted { (counts[$0], $0) < (counts[$1], $1) }
    // Two queues: the leaves, by weight, and the nodes, which are made in the order of their weights.
    var weights = order.map { counts[$0] }
    var parents = [Int](repeating: 0, count: 2 * order.count - 1)
    var (leaf, node) = (0, order.count)
    func lightest() -> Int {
        if leaf < order.count, node >= weights.count || weights[leaf] <= weights[node] {
            leaf += 1
            return leaf - 1
        }
        node += 1
        return node - 1
    }
    for new in order.count..<2 * order.count - 1 {
        let (a, b) = (lightest(), lightest())
        parents[a] = new
        parents[b] = new
        weights.append(weights[a] + weights[b])
    }
    var depths = [Int](repeating: 0, count: parents.count)
    var leaves = [Int](repeating: 0, count: longest + 1)  // by depth
    for i in (0..<parents.count - 1).reversed() {
        depths[i] = depths[parents[i]] + 1
        if i < order.count { leaves[min(depths[i], longest)] += 1 }
    }
    var excess = (1...longest).reduce(0) { $0 + (leaves[$1] << (longest - $1)) } - (1 << longest)
    while excess > 0 {
        // A leaf above the lowest goes down and takes one of the lowest as its sibling.
        leaves[longest] -= 1
        let depth = (1..<longest).last { leaves[$0] > 0 } ?? 1
        leaves[depth] -= 1
        leaves[depth + 1] += 2
        excess -= 1
    }
    var lengths = [UInt8](repeating: 0, count: counts.count)
    var next = 0
    for depth in (1...longest).reversed() {
        for _ in 0..<leaves[depth] {
            lengths[order[next]] = UInt8(depth)
            next += 1
        }
    }
    return lengths
}

/// Deflate's codes of these lengths, first bit lowest (RFC 1951, 3.2.2).
private func canonicalCodes(_ lengths: [UInt8]) -> [Code] {
    var codes = [Code](repeating: Code(), count: lengths.count)
    var next: UInt32 = 0
    for length in 1...15 as ClosedRange<UInt32> {
        for i in lengths.indices where lengths[i] == length {
            var (value, reversed) = (next, UInt32(0))
            for _ in 0..<length {
                reversed = reversed << 1 | value & 1
                value >>= 1
            }
            codes[i] = Code(bits: reversed, count: length)
            next += 1
        }
        next <<= 1
    }
    return codes
}
