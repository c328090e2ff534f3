import Engine
import Foundation
import Protocol

/// The engine as a worker's lanes use it.
enum Denoiser {
    /// - Parameter folder: a diffusers folder.
    /// - Throws: what is wrong with the folder, `ModelFolderError` and others.
    @Sendable
    static func load(_ folder: URL, precision: Precision) throws -> LoadedModel {
        let model = try TileDenoiser(folder: folder)
        return LoadedModel {
            let workspace = Workspace()
            return { work, inputs in
                guard case .denoise(let request) = work, let conditioning = inputs.last else { throw TileDenoiserError.conditioning }
                return LaneAnswer(
                    try Frame(floatCount: work.answerByteCount / 4) { answer in
                        try conditioning.withFloats { conditioning in
                            if inputs.count == 2 {
                                try inputs[0].withFloats { sample in
                                    try model.denoise(
                                        request, sample: sample, conditioning: conditioning, into: &answer, workspace: workspace)
                                }
                            } else {
                                try model.denoise(request, sample: nil, conditioning: conditioning, into: &answer, workspace: workspace)
                            }
                        }
                    })
            }
        }
    }
}
