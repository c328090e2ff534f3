import Engine
import Foundation
import Testing

/// Faults that the headers of a model's weights tell before any weight is read.
@Suite("Checking weights by their headers") struct WeightCheckTests {
    private static let whole = ["unet2d-sr/model", "unet2d-ddpm-cifar/model"]
    private static let pipelines = ["pipeline-upscale/model", "pipeline-img2img/model"]

    private func folder(_ name: String) throws -> URL { try caseFolder(name) }

    /// Rewrites the header of a safetensors file; the data stays.
    private func edit(_ file: URL, _ change: (inout [String: Any]) throws -> Void) throws {
        let data = try Data(contentsOf: file)
        let length = Int(data.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
        var header = try #require(try JSONSerialization.jsonObject(with: data[8..<8 + length]) as? [String: Any])
        try change(&header)
        let json = try JSONSerialization.data(withJSONObject: header)
        try (withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json + data[(8 + length)...])
            .write(to: file)
    }

    private func words(_ body: () throws -> Void) -> String? {
        do {
            try body()
            return nil
        } catch { return "\(error)" }
    }

    @Test("models that can be loaded pass, whole pipelines and bare networks", arguments: whole + pipelines)
    func passes(name: String) throws { try ModelFolder(url: folder(name)).checkWeights() }

    /// So that what is checked is what is read: there is one description of a network's tensors.
    @Test(
        "a tensor that is missing, of another shape or of a type that is not read is found as loading finds it",
        arguments: [
            ("pipeline-img2img/model", "unet", "diffusion_pytorch_model.fp16.safetensors"),
            ("pipeline-img2img/model", "vae", "diffusion_pytorch_model.fp16.safetensors"),
            ("pipeline-img2img/model", "text_encoder", "model.fp16.safetensors"),
            ("unet2d-sr/model", "", "diffusion_pytorch_model.safetensors"),
        ])
    func sameAsLoading(model: String, part: String, file: String) throws {
        try withTemporaryFolder { scratch in
            let copy = scratch.appending(path: "model")
            try FileManager.default.copyItem(at: folder(model), to: copy)
            let network = part.isEmpty ? copy : copy.appending(path: part)
            let weights = network.appending(path: file), original = try Data(contentsOf: weights)
            func load() throws {
                let folder = try NetworkFolder(url: network)
                switch part {
                case "unet": _ = try UNet2DCondition(folder: folder)
                case "vae": _ = try AutoencoderKL(folder: folder)
                case "text_encoder": _ = try CLIPText(folder: folder)
                default: _ = try UNet2D(folder: folder)
                }
            }
            /// The line that both say.
            func line(_ change: (inout [String: Any]) throws -> Void) throws -> String {
                try original.write(to: weights)
                try edit(weights, change)
                let checked = words { try ModelFolder(url: copy).checkWeights() }
                #expect(checked == words(load))
                let line = try #require(checked)
                #expect(line.contains(file) && line.contains(": tensor ") && !line.contains("\n"), "\(line)")
                return line
            }
            let names = try Safetensors(url: weights).names
            #expect(names.count > 30)
            // Each where that is quick, and some of many.
            for name in names.enumerated().filter({ $0.offset % max(1, names.count / 60) == 0 }).map(\.element) {
                let said = try [
                    line { $0["gone." + name] = $0.removeValue(forKey: name) },
                    line { header in
                        var entry = try #require(header[name] as? [String: Any])
                        entry["shape"] = [1] + (try #require(entry["shape"] as? [Int]))
                        header[name] = entry
                    },
                    line { header in
                        var entry = try #require(header[name] as? [String: Any])
                        entry["dtype"] = entry["dtype"] as? String == "F32" ? "I32" : "I16"
                        header[name] = entry
                    },
                ]
                for (said, words) in zip(said, ["is missing", "has shape", "F32, F16 or BF16"]) {
                    // Without this one a text encoder's names have no prefix, and another is missing first.
                    #expect(said.contains(words) || name.hasSuffix("final_layer_norm.weight"), "\(said)")
                }
            }
        }
    }

    @Test("gigabytes of weights are checked at once, and none is read")
    func large() throws {
        try withTemporaryFolder { scratch in
            let copy = scratch.appending(path: "model")
            try FileManager.default.copyItem(at: folder("unet2d-sr/model"), to: copy)
            let weights = copy.appending(path: "diffusion_pytorch_model.safetensors")
            let data = try Data(contentsOf: weights)
            let length = Int(data.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
            var header = try #require(try JSONSerialization.jsonObject(with: data[8..<8 + length]) as? [String: Any])
            // Another tensor of 8 GiB, in a hole of the file.
            let (begin, size) = (data.count - 8 - length, 8 << 30)
            header["other"] = ["dtype": "F32", "shape": [size / 4], "data_offsets": [begin, begin + size]]
            let json = try JSONSerialization.data(withJSONObject: header)
            try (withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json).write(to: weights)
            #expect(truncate(weights.path, off_t(8 + json.count + begin + size)) == 0)
            let before = try reads()
            try ModelFolder(url: copy).checkWeights()
            #expect(try reads() - before < 1 << 20)
        }
    }

    /// Bytes that this thread has asked the system for.
    private func reads() throws -> Int {
        let text = try String(contentsOfFile: "/proc/thread-self/io", encoding: .utf8)
        let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("rchar:") })
        return try #require(line.split(separator: " ").last.flatMap { Int($0) })
    }
}
