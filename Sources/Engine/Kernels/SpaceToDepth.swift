/// Folds `factor` x `factor` pixels into channels and back, in the order of PyTorch's `pixel_unshuffle` and
/// `pixel_shuffle`: channel c, row dy, column dx of a block becomes channel (c * factor + dy) * factor + dx.
package enum SpaceToDepth {
    /// Folds rows of two images into rows of one activation, the first one's channels before those of `scale * second +
    /// offset`.
    ///
    /// - Parameters:
    ///   - first, second: whole rows of blocks, each factor x (width * factor) x channels.
    ///   - folded: any height x width x (2 * channels * factor * factor).
    ///   - row: of `folded`, where the first row of blocks goes
    package static func fold(
        _ first: Span<Float>, _ second: Span<Float>, scale: Float, offset: Float, channels: Int, factor: Int,
        into folded: Activation, at row: Int
    ) {
        precondition(channels > 0 && factor > 0 && folded.channels == 2 * channels * factor * factor)
        let half = folded.width * folded.channels / 2
        let height = first.count / max(half, 1), width = folded.width
        precondition(
            first.count == height * half && second.count == first.count && row >= 0 && row + height <= folded.height)
        let start = 2 * row * half
        var target = folded.mutableSpan
        first.withUnsafeBufferPointer { first in
            second.withUnsafeBufferPointer { second in
                target.withUnsafeMutableBufferPointer { target in
                    forEachBlock(height: height, width: width, channels: channels, factor: factor) {
                        block, count, place, pixel in
                        target[start &+ 2 * block * count + place] = first[pixel]
                        target[start &+ 2 * block * count + count + place] = scale * second[pixel] + offset
                    }
                }
            }
        }
    }

    /// The way back: `image.height / factor` rows of `folded`, from `row` on, become `image`, whose channels times
    /// factor * factor are those of `folded`.
    package static func unfold(_ folded: Activation, from row: Int, factor: Int, into image: Activation) {
        precondition(
            factor > 0 && image.channels * factor * factor == folded.channels && image.width == folded.width * factor)
        let height = image.height / factor, width = folded.width
        precondition(image.height == height * factor && row >= 0 && row + height <= folded.height)
        let start = row * folded.width * folded.channels
        var target = image.mutableSpan
        folded.span.withUnsafeBufferPointer { source in
            target.withUnsafeMutableBufferPointer { target in
                forEachBlock(height: height, width: width, channels: image.channels, factor: factor) {
                    block, count, place, pixel in
                    target[pixel] = source[start &+ block * count + place]
                }
            }
        }
    }

    /// Every block's number and count of values, and for each value its place in the block and its index in the image.
    @inline(__always)
    private static func forEachBlock(
        height: Int, width: Int, channels: Int, factor: Int,
        _ body: (_ block: Int, _ count: Int, _ place: Int, _ pixel: Int) -> Void
    ) {
        // Constants let the compiler unroll the common case.
        if channels == 3, factor == 2 {
            walk(height: height, width: width, channels: 3, factor: 2, body)
        } else {
            walk(height: height, width: width, channels: channels, factor: factor, body)
        }
    }

    @inline(__always)
    private static func walk(
        height: Int, width: Int, channels: Int, factor: Int,
        _ body: (_ block: Int, _ count: Int, _ place: Int, _ pixel: Int) -> Void
    ) {
        let row = width &* factor &* channels
        for y in 0..<height {
            for x in 0..<width {
                let corner = y &* factor &* row &+ x &* factor &* channels
                for c in 0..<channels {
                    for dy in 0..<factor {
                        for dx in 0..<factor {
                            body(
                                y &* width &+ x, channels &* factor &* factor, (c &* factor &+ dy) &* factor &+ dx,
                                corner &+ dy &* row &+ dx &* channels &+ c)
                        }
                    }
                }
            }
        }
    }
}
