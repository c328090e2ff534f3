import Engine
import Foundation
import Protocol

/// The engine as a worker's lanes use it.
package enum Denoiser {
    /// - Parameter folder: a diffusers folder.
    /// - Throws: what is wrong with the folder, `ModelFolderError` and others.
    @Sendable
    package static func load(_ folder: URL, precision: Precision) throws -> LoadedModel {
        let folder = try ModelFolder(url: folder)
        if let pipeline = folder.pipeline { return latent(try StableDiffusion(folder: pipeline, precision: precision)) }
        return superResolution(try TileDenoiser(folder: folder))
    }

    private static func superResolution(_ model: TileDenoiser) -> LoadedModel {
        LoadedModel {
            let workspace = Workspace()
            return { work, inputs in
                guard case .denoise(let request) = work, let conditioning = inputs.last else {
                    throw TileDenoiserError.conditioning
                }
                let sample: TileDenoiser.Sample? =
                    request.sampleIsNoise ? nil : { inputs[0].read(request.element, from: $0, into: &$1) }
                return LaneAnswer(
                    try Frame(count: work.answerByteCount / request.answerElement.size, of: request.answerElement) {
                        answer in
                        try conditioning.withValues(of: Float.self) {
                            try model.denoise(
                                request, sample: sample, conditioning: $0, workspace: workspace, answer: answer)
                        }
                    })
            }
        }
    }

    /// Inputs are copied: they are small beside the work.
    private static func latent(_ model: StableDiffusion) -> LoadedModel {
        LoadedModel {
            let workspace = Workspace()
            return { work, inputs in
                var inputs = inputs[...]
                switch work {
                case .denoise(let request):
                    let sample = request.sampleIsNoise ? nil : inputs.popFirst()?.values(of: request.element)
                    let pixels = request.conditioning == .none ? nil : inputs.popFirst()?.floats
                    let answer = try model.denoise(
                        request, sample: sample, pixels: pixels, text: inputs.popFirst()?.floats ?? [],
                        workspace: workspace)
                    return LaneAnswer(Frame(answer, as: request.answerElement))
                case .encodeText(let request):
                    let prompt = inputs.popFirst().map { $0.withBytes { String(decoding: $0, as: UTF8.self) } } ?? ""
                    let (embeddings, note) = try model.encodeText(request, text: prompt, workspace: workspace)
                    return LaneAnswer(Frame(floats: embeddings), note: note)
                case .autoencode(let request):
                    let values = inputs.popFirst()?.floats ?? []
                    switch try model.autoencode(
                        request, values: values, sums: inputs.popFirst()?.doubles, workspace: workspace)
                    {
                    case .values(let values): return LaneAnswer(Frame(floats: values))
                    case .statistics(let sums): return LaneAnswer(Frame(doubles: sums))
                    }
                }
            }
        }
    }
}
