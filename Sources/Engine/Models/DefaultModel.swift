import Foundation

/// The model that comes with the engine: a small 4x super-resolution network in the diffusers layout, made by
/// `training/`.
public enum DefaultModel {
    /// Beside the program, where the build puts it and whoever copies the program should; else, for tests, where the
    /// package manager knows it to be.
    public static var url: URL {
        let beside = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
            .appending(path: "tilefarm_Engine.resources/DefaultModel")
        // Bundle.module ends a program whose resources are missing; a folder that is not there is an error in words.
        if FileManager.default.fileExists(atPath: beside.path) || !isTest { return beside }
        return Bundle.module.bundleURL.appending(path: "DefaultModel")
    }

    private static var isTest: Bool {
        CommandLine.arguments.contains { $0.contains("xctest") || $0 == "--testing-library" }
    }
}
