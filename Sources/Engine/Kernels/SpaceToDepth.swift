/// Folds `factor` x `factor` pixels into channels and back, in the order of PyTorch's `pixel_unshuffle` and `pixel_shuffle`:
/// channel c, row dy, column dx of a block becomes channel (c * factor + dy) * factor + dx.
package enum SpaceToDepth {
    /// Folds two images into one activation, the first one's channels before those of `scale * second + offset`. In one pass, because the
    /// activation is larger than a cache.
    ///
    /// - Parameters:
    ///   - first, second: (height * factor) x (width * factor) x channels.
    ///   - folded: height x width x (2 * channels * factor * factor).
    package static func fold(
        _ first: Span<Float>, _ second: Span<Float>, scale: Float, offset: Float, channels: Int, factor: Int, into folded: Activation
    ) {
        precondition(channels > 0 && factor > 0 && folded.channels == 2 * channels * factor * factor)
        precondition(first.count == folded.count / 2 && second.count == first.count)
        var target = folded.mutableSpan
        first.withUnsafeBufferPointer { first in
            second.withUnsafeBufferPointer { second in
                target.withUnsafeMutableBufferPointer { target in
                    forEachBlock(height: folded.height, width: folded.width, channels: channels, factor: factor) { block, count, place, pixel in
                        target[2 * block * count + place] = first[pixel]
                        target[2 * block * count + count + place] = scale * second[pixel] + offset
                    }
                }
            }
        }
    }

    /// The way back; `folded` has exactly the channels of `image` times factor * factor.
    package static func unfold(_ folded: Activation, factor: Int, into image: Activation) {
        precondition(factor > 0 && image.channels * factor * factor == folded.channels && image.count == folded.count)
        precondition(image.height == folded.height * factor && image.width == folded.width * factor)
        var target = image.mutableSpan
        folded.span.withUnsafeBufferPointer { source in
            target.withUnsafeMutableBufferPointer { target in
                forEachBlock(height: folded.height, width: folded.width, channels: image.channels, factor: factor) { block, count, place, pixel in
                    target[pixel] = source[block * count + place]
                }
            }
        }
    }

    /// Every block's number and count of values, and for each value its place in the block and its index in the image.
    @inline(__always)
    private static func forEachBlock(
        height: Int, width: Int, channels: Int, factor: Int, _ body: (_ block: Int, _ count: Int, _ place: Int, _ pixel: Int) -> Void
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
        height: Int, width: Int, channels: Int, factor: Int, _ body: (_ block: Int, _ count: Int, _ place: Int, _ pixel: Int) -> Void
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
