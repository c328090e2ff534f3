/// Folds `factor` x `factor` pixels into channels and back, in the order of PyTorch's `pixel_unshuffle` and `pixel_shuffle`:
/// channel c, row dy, column dx of a block becomes channel (c * factor + dy) * factor + dx.
package enum SpaceToDepth {
    /// Writes `scale * image + offset`.
    ///
    /// - Parameters:
    ///   - image: (height * factor) x (width * factor) x channels.
    ///   - folded: height x width x at least `firstChannel` + channels * factor * factor.
    package static func fold(
        _ image: Activation, factor: Int, into folded: Activation, firstChannel: Int, scale: Float = 1, offset: Float = 0
    ) {
        precondition(firstChannel >= 0 && firstChannel + image.channels * factor * factor <= folded.channels)
        var target = folded.mutableSpan
        image.span.withUnsafeBufferPointer { source in
            target.withUnsafeMutableBufferPointer { target in
                forEachValue(image: image, folded: folded, factor: factor, firstChannel: firstChannel) { pixel, place in
                    target[place] = scale * source[pixel] + offset
                }
            }
        }
    }

    /// The way back; `folded` has exactly the channels of `image` times factor * factor.
    package static func unfold(_ folded: Activation, factor: Int, into image: Activation) {
        precondition(image.channels * factor * factor == folded.channels)
        var target = image.mutableSpan
        folded.span.withUnsafeBufferPointer { source in
            target.withUnsafeMutableBufferPointer { target in
                forEachValue(image: image, folded: folded, factor: factor, firstChannel: 0) { pixel, place in
                    target[pixel] = source[place]
                }
            }
        }
    }

    /// The index of every value of `image`, and of its place in `folded`. The callers have checked the channels.
    @inline(__always)
    private static func forEachValue(
        image: Activation, folded: Activation, factor: Int, firstChannel: Int, _ body: (_ pixel: Int, _ place: Int) -> Void
    ) {
        precondition(factor > 0 && image.height == folded.height * factor && image.width == folded.width * factor)
        let (channels, depth, block) = (image.channels, folded.channels, factor * factor)
        for y in 0..<image.height {
            var pixel = y * image.width * channels
            var place = y / factor * folded.width * depth + firstChannel + y % factor * factor
            for _ in 0..<folded.width {
                for dx in 0..<factor {
                    for c in 0..<channels {
                        body(pixel, place &+ dx &+ c &* block)
                        pixel &+= 1
                    }
                }
                place &+= depth
            }
        }
    }
}
