import Engine
import Foundation
import Protocol

/// The engine as a worker's lanes use it.
enum Denoiser {
    /// - Parameter folder: a diffusers folder.
    /// - Throws: what is wrong with the folder, `ModelFolderError` and others.
    @Sendable
    static func load(_ folder: URL) throws -> LoadedModel {
        let model = try TileDenoiser(folder: folder)
        return LoadedModel {
            let workspace = Workspace()
            return { request, sample, conditioning in
                try Frame(floatCount: request.answerFloatCount) { answer in
                    try conditioning.withFloats { conditioning in
                        if let sample {
                            try sample.withFloats { sample in
                                try model.denoise(
                                    request, sample: sample, conditioning: conditioning, into: &answer, workspace: workspace)
                            }
                        } else {
                            try model.denoise(request, sample: nil, conditioning: conditioning, into: &answer, workspace: workspace)
                        }
                    }
                }
            }
        }
    }
}
