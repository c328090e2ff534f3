import Foundation
import Testing

/// Weights that their headers show to be of no use: seen before anything of a job is sent.
extension BadInputTests {
    /// Changes the header of a safetensors file, whose length must stay.
    static func editHeader(_ file: URL, _ old: String, _ new: String) throws {
        try #require(old.utf8.count == new.utf8.count)
        var data = try Data(contentsOf: file)
        let length = Int(data.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
        let header = String(decoding: data[8..<8 + length], as: UTF8.self)
        try #require(header.contains(old))
        data.replaceSubrange(8..<8 + length, with: Data(header.replacingOccurrences(of: old, with: new).utf8))
        try data.write(to: file)
    }

    static let weightMistakes: [Mistake] = [
        Mistake(
            testDescription: "a pipeline whose weights lack a tensor",
            arguments: {
                try pipeline($0) {
                    try editHeader(
                        $0.appending(path: "vae/diffusion_pytorch_model.safetensors"), "mid_block", "mad_block")
                }
            }, code: 1, says: ["vae/diffusion_pytorch_model.safetensors", "mid_block", "is missing", "config.json"]),
        Mistake(
            testDescription: "a pipeline whose weights have another shape than its configuration says",
            arguments: {
                try pipeline($0) {
                    try edit(
                        $0.appending(path: "unet/config.json"), "\"num_class_embeds\": ", "\"num_class_embeds\": 1")
                }
            }, code: 1, says: ["unet/diffusion_pytorch_model.safetensors", "class_embedding", "has shape"]),
        Mistake(
            testDescription: "a pipeline with weights of a type that is not read",
            arguments: {
                try pipeline($0) {
                    try editHeader($0.appending(path: "text_encoder/model.safetensors"), "\"F16\"", "\"I16\"")
                }
            }, code: 1, says: ["text_encoder/model.safetensors", "I16", "F32, F16 or BF16"]),
        Mistake(
            testDescription: "the same, to a plan",
            arguments: {
                let upscale = try pipeline($0) {
                    try editHeader($0.appending(path: "text_encoder/model.safetensors"), "\"F16\"", "\"I16\"")
                }
                return ["plan", upscale[1]] + upscale[4...]
            }, code: 1, says: ["text_encoder/model.safetensors", "I16"]),
        Mistake(
            testDescription: "the same, to a look at the model",
            arguments: {
                let upscale = try pipeline($0) {
                    try editHeader($0.appending(path: "text_encoder/model.safetensors"), "\"F16\"", "\"I16\"")
                }
                return ["model", upscale[5]]
            }, code: 1, says: ["text_encoder/model.safetensors", "I16"]),
    ]
}
