import Foundation

/// The model that comes with the engine: a small 4x super-resolution network in the diffusers layout, made by `training/`.
public enum DefaultModel {
    public static var url: URL { Bundle.module.bundleURL.appending(path: "DefaultModel") }
}
