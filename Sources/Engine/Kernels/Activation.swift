/// Values between the layers of a network for one tile: height x width x channels, channels innermost, single
/// precision.
///
/// A reference type, because a network's layers hand the same storage on; it belongs to one lane.
public final class Activation {
    public let height, width, channels: Int
    package let values: AlignedBuffer<Float>
    private let pointer: UnsafeMutablePointer<Float>  // that of `values`
    /// Per channel the sum, then (from `channels` rounded up to 16 on at most) the sum of squares, where the layer that
    /// made this activation left them for the group norm that reads it.
    package let momentBuffer: AlignedBuffer<Double>
    package var moments: Moments?

    /// Where in `momentBuffer` the sums of squares begin.
    package struct Moments {
        package var squaresAt: Int
    }

    /// All zeros.
    /// - Precondition: the sizes are not negative and their product is the size of something that fits in memory;
    ///   callers check what comes from outside.
    public convenience init(height: Int, width: Int, channels: Int) {
        self.init(
            height: height, width: width, channels: channels, values: AlignedBuffer(count: height * width * channels),
            moments: AlignedBuffer(count: Self.momentCount(channels)))
    }

    package init(height: Int, width: Int, channels: Int, values: AlignedBuffer<Float>, moments: AlignedBuffer<Double>) {
        precondition(values.count >= height * width * channels && moments.count >= Self.momentCount(channels))
        self.height = height
        self.width = width
        self.channels = channels
        self.values = values
        pointer = values.pointer
        momentBuffer = moments
    }

    package static func momentCount(_ channels: Int) -> Int { 2 * ((channels + 15) / 16 * 16) }

    /// The sum of a channel's values and that of their squares, if they are known.
    package func moments(of channel: Int) -> (sum: Double, squares: Double)? {
        guard let moments else { return nil }
        let buffer = momentBuffer
        let values = buffer.span
        return (values[channel], values[moments.squaresAt + channel])
    }

    /// height * width * channels
    public var count: Int { height * width * channels }

    /// The value of row y, column x, channel c stands at (y * width + x) * channels + c.
    public var span: Span<Float> {
        @_lifetime(borrow self) get {
            let span = unsafe Span(_unsafeStart: pointer, count: count)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    /// As `span`, to write.
    public var mutableSpan: MutableSpan<Float> {
        @_lifetime(borrow self) get {
            moments = nil
            let span = unsafe MutableSpan(_unsafeStart: pointer, count: count)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }
}
