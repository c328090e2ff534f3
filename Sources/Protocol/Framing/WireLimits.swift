internal import Engine

/// Every bound on what a peer may say. Nothing is allocated, and no arithmetic done, by a number that was not held
/// against these, or against `TaskLimits`.
public enum WireLimits {
    /// The version of the messages; peers of another one are refused.
    public static let protocolVersion: UInt32 = 5
    /// Parts of a message: the header and a task's inputs, or its outputs.
    public static let parts = 1 + TaskLimits.slots
    /// Bytes of a header.
    public static let headerBytes = 64 << 10
    /// Bytes of a piece of a model file: larger messages would hold up heartbeats.
    public static let chunkBytes = 1 << 20
    /// Bytes that a blob counts beyond its own where blobs are kept, so that their number is bounded too.
    public static let blobOverhead = 256

    /// Passes of a job's pipeline.
    public static let passes = 1 << 20
    public static let attempts = 65_535
    /// Tiles of a pass.
    public static let tiles = 1 << 30
    public static let lanes = 1024
    public static let credit = 4 * lanes
    /// Models of a session that are ready or wait to be.
    public static let preparedModels = 64
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
