import Engine
import Foundation
import Protocol

/// The engine as the worker uses it.
enum Denoiser {
    /// Sets the process up for the processor; before anything else in `main`.
    static func prepareProcess() {}

    /// What this process computes with.
    static func kernels() throws -> String { "baseline" }

    @Sendable
    static func load(_ folder: URL) throws -> LoadedModel { .echo }
}
