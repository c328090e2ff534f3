/// A rectangle of pixels: rows `y ..< maxY`, columns `x ..< maxX`.
///
/// The origin may be negative: a window of a canvas padded by reflection starts outside the image.
public struct Rect: Hashable, Sendable {
    public var y, x, height, width: Int

    public init(y: Int, x: Int, height: Int, width: Int) {
        self.y = y
        self.x = x
        self.height = height
        self.width = width
    }

    /// The first row below the rectangle.
    public var maxY: Int { y + height }

    /// The first column right of the rectangle.
    public var maxX: Int { x + width }

    /// Pixels covered.
    public var area: Int { height * width }

    public func contains(_ other: Rect) -> Bool {
        other.y >= y && other.x >= x && other.maxY <= maxY && other.maxX <= maxX
    }

    /// The pixels both rectangles cover, nil when there are none.
    public func intersection(_ other: Rect) -> Rect? {
        let top = max(y, other.y)
        let left = max(x, other.x)
        let bottom = min(maxY, other.maxY)
        let right = min(maxX, other.maxX)
        guard top < bottom, left < right else { return nil }
        return Rect(y: top, x: left, height: bottom - top, width: right - left)
    }

    /// The same part of a canvas that has `factor` pixels for each of this one's, along either axis.
    public func scaled(by factor: Int) -> Rect {
        Rect(y: y * factor, x: x * factor, height: height * factor, width: width * factor)
    }
}
