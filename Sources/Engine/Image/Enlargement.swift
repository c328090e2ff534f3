/// A part of a low-resolution image, and what it is a part of: enough to upsample any window that it reaches.
public struct Enlargement: Sendable, Hashable {
    /// The low-resolution image.
    public var inputHeight, inputWidth: Int
    /// The upsampled image, before it is padded to the canvas.
    public var outputHeight, outputWidth: Int
    /// The part that is sent: height x width x 3, in [0, 1].
    public var source: Rect

    public init(inputHeight: Int, inputWidth: Int, outputHeight: Int, outputWidth: Int, source: Rect) {
        self.inputHeight = inputHeight
        self.inputWidth = inputWidth
        self.outputHeight = outputHeight
        self.outputWidth = outputWidth
        self.source = source
    }
}
