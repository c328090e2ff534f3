/// Folds `factor` x `factor` pixels into channels and back, in the order of PyTorch's `pixel_unshuffle` and `pixel_shuffle`:
/// channel c, row dy, column dx of a block becomes channel (c * factor + dy) * factor + dx.
package enum SpaceToDepth {
    /// Writes `scale * image + offset`.
    ///
    /// - Parameters:
    ///   - image: (height * factor) x (width * factor) x channels.
    ///   - folded: height x width x at least `firstChannel` + channels * factor * factor.
    package static func fold(
        _ image: Span<Float>, channels: Int, factor: Int, into folded: Activation, firstChannel: Int, scale: Float = 1, offset: Float = 0
    ) {
        let layout = Layout(folded: folded, channels: channels, factor: factor, firstChannel: firstChannel)
        precondition(image.count == layout.imageCount)
        var target = folded.mutableSpan
        image.withUnsafeBufferPointer { source in
            target.withUnsafeMutableBufferPointer { target in
                layout.forEachValue { pixel, place in target[place] = scale * source[pixel] + offset }
            }
        }
    }

    /// The way back; `folded` has exactly the channels of `image` times factor * factor.
    package static func unfold(_ folded: Activation, factor: Int, into image: Activation) {
        precondition(image.channels * factor * factor == folded.channels)
        let layout = Layout(folded: folded, channels: image.channels, factor: factor, firstChannel: 0)
        precondition(image.count == layout.imageCount)
        var target = image.mutableSpan
        folded.span.withUnsafeBufferPointer { source in
            target.withUnsafeMutableBufferPointer { target in
                layout.forEachValue { pixel, place in target[pixel] = source[place] }
            }
        }
    }

    private struct Layout {
        let height, width, depth, channels, factor, firstChannel: Int

        init(folded: Activation, channels: Int, factor: Int, firstChannel: Int) {
            precondition(factor > 0 && channels > 0 && firstChannel >= 0)
            precondition(firstChannel + channels * factor * factor <= folded.channels)
            (height, width, depth) = (folded.height, folded.width, folded.channels)
            (self.channels, self.factor, self.firstChannel) = (channels, factor, firstChannel)
        }

        var imageCount: Int { height * factor * width * factor * channels }

        /// The index of every value of the image, and of its place in the folded one.
        @inline(__always)
        func forEachValue(_ body: (_ pixel: Int, _ place: Int) -> Void) {
            // Constants let the compiler unroll the common case.
            if channels == 3, factor == 2 { walk(channels: 3, factor: 2, body) } else { walk(channels: channels, factor: factor, body) }
        }

        @inline(__always)
        private func walk(channels: Int, factor: Int, _ body: (_ pixel: Int, _ place: Int) -> Void) {
            var pixel = 0
            for y in 0..<height * factor {
                var place = y / factor * width * depth + firstChannel + y % factor * factor
                for _ in 0..<width {
                    for dx in 0..<factor {
                        for c in 0..<channels { body(pixel &+ dx &* channels &+ c, place &+ dx &+ c &* factor &* factor) }
                    }
                    pixel &+= factor &* channels
                    place &+= depth
                }
            }
        }
    }
}
