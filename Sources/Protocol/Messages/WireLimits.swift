/// Every bound on what a peer may say. Nothing is allocated, and no arithmetic done, by a number that was not held
/// against these.
public enum WireLimits {
    /// The version of the messages; peers of another one are refused.
    public static let protocolVersion: UInt32 = 4
    /// Parts of a message: the header and up to three tensors.
    public static let parts = 4
    /// Bytes of a header.
    public static let headerBytes = 64 << 10
    /// Bytes of one tensor: a window of 4096x4096x4 float32.
    public static let tensorBytes = 256 << 20
    /// Bytes of a piece of a model file: larger messages would hold up heartbeats.
    public static let chunkBytes = 1 << 20

    /// Pixels along a side of a canvas or an image.
    public static let imageSide = 1 << 20
    /// Pixels along a side of a window, and of the low-resolution part sent with it.
    public static let windowSide = 4096
    public static let channels = 64
    /// Pixels per latent and axis.
    public static let autoencoderFactor = 64
    /// Channels within an autoencoder, and groups of its group norms.
    public static let featureChannels = 8192
    /// Group norms of one half of an autoencoder.
    public static let norms = 1024
    /// UTF-8 bytes of a prompt, positions of a text encoder, and its hidden size.
    public static let promptBytes = 16 << 10
    public static let tokens = 1024
    public static let embeddingWidth = 8192
    public static let noiseLevel = 999_999
    /// Stages, steps, attempts: noise tells steps apart by 16 bits.
    public static let count = 65_535
    /// Tiles of a step.
    public static let tiles = 1 << 30
    public static let lanes = 1024
    public static let credit = 4 * lanes
    /// Milliseconds between heartbeats.
    public static let heartbeatMilliseconds = 10...60_000
    public static let silenceMilliseconds = 50...600_000

    /// UTF-8 bytes of a name: worker, host, kernels.
    public static let nameBytes = 128
    /// UTF-8 bytes of a reason or an error.
    public static let textBytes = 1024

    public static let modelFiles = 256
    public static let modelBytes = 256 << 30
    public static let fileNameBytes = 128
}
