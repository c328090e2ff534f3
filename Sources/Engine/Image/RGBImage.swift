/// A whole image in memory, rows from the top.
public struct RGBImage: Sendable, Equatable {
    public let width: Int
    public let height: Int
    /// `height` x `width` x 3, in [0, 1].
    public var pixels: [Float]
    /// `height` x `width`, in [0, 1]; empty when the image has no alpha.
    public var alpha: [Float] = []

    /// A black image.
    public init(width: Int, height: Int) {
        self.width = width
        self.height = height
        self.pixels = [Float](repeating: 0, count: width * height * 3)
    }

    /// `pixels` holds `height` x `width` x 3 values.
    public init(width: Int, height: Int, pixels: [Float]) {
        precondition(pixels.count == width * height * 3, "three values a pixel")
        self.width = width
        self.height = height
        self.pixels = pixels
    }
}
