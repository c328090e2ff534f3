import Engine

/// Who computes a job: what has no influence on the output. A job folder keeps it, so that `resume` means the same.
package struct FarmSettings: Codable, Sendable, Hashable {
    /// Local worker processes, which share the cores; nil for one that uses every core.
    package var workers: Int?
    /// The endpoint where other workers are waited for; nil for local ones.
    package var bind: String?
    /// The coordinator's key file; an absolute path.
    package var keys: String?
    /// Whether it may listen beyond this machine without keys.
    package var isInsecure = false
    /// The only kernels that are admitted.
    package var kernels: String?
    /// Seconds between checkpoints.
    package var checkpointSeconds: Double?
    /// Bytes of memory that planes may take before they lie in files.
    package var memoryBytes: Int?
    /// Workers answer with zeros at once, to measure the coordinator.
    package var echoes = false
    /// Every step waits for the whole step before, to be compared with.
    package var hasBarrier = false
    /// Whether a late tile may be at two workers.
    package var sendsCopies = true

    package init() {}
}
