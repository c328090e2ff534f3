import Engine
import Foundation
import Testing

@Suite("CLIP text encoder") struct CLIPTextTests {
    /// A copy of a small text encoder with some options of its configuration changed.
    @discardableResult
    private func withEncoder<Result>(_ options: [String: Any] = [:], _ body: (URL) throws -> Result) throws -> Result {
        try withTemporaryFolder { folder in
            let copy = folder.appending(path: "text_encoder")
            try FileManager.default.copyItem(at: try caseFolder("pipeline-upscale/model/text_encoder"), to: copy)
            let file = copy.appending(path: "config.json")
            var config = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
            config.merge(options) { $1 }
            try JSONSerialization.data(withJSONObject: config).write(to: file)
            return try body(copy)
        }
    }

    private func values(_ activation: Activation) -> [Float] { activation.span.indices.map { activation.span[$0] } }

    private static let ids = [1200, 5, 77, 600, 1213]

    @Test("names with and without the prefix text_model mean the same")
    func prefix() throws {
        try withEncoder { folder in
            let plain = try CLIPText(folder: NetworkFolder(url: folder)).encode(ids: Self.ids, workspace: Workspace())
            let file = try Safetensors(url: folder.appending(path: "model.safetensors"))
            var renamed = Dictionary(
                uniqueKeysWithValues: try file.names.map { ("text_model." + $0, try file.tensor($0)) })
            renamed["text_model.embeddings.position_ids"] = Tensor(shape: [1, 77], values: (0..<77).map { Float($0) })
            try Safetensors.write(renamed, to: folder.appending(path: "model.safetensors"))
            let prefixed = try CLIPText(folder: NetworkFolder(url: folder)).encode(
                ids: Self.ids, workspace: Workspace())
            #expect(values(plain) == values(prefixed))
        }
    }

    @Test("a token knows nothing of those after it")
    func causal() throws {
        try withEncoder { folder in
            let encoder = try CLIPText(folder: NetworkFolder(url: folder)), workspace = Workspace()
            let whole = try encoder.encode(ids: Self.ids, workspace: workspace)
            let part = try encoder.encode(ids: Array(Self.ids.prefix(3)), workspace: workspace)
            let width = encoder.configuration.hiddenSize
            for i in 0..<3 * width { #expect(abs(whole.span[i] - part.span[i]) < 1e-5) }
        }
    }

    @Test("in bfloat16 the answer is close, and not the same")
    func bfloat16() throws {
        try withEncoder { folder in
            let exact = values(
                try CLIPText(folder: NetworkFolder(url: folder)).encode(ids: Self.ids, workspace: Workspace()))
            let rounded = values(
                try CLIPText(folder: NetworkFolder(url: folder), precision: .bfloat16).encode(
                    ids: Self.ids, workspace: Workspace()))
            let difference = zip(exact, rounded).reduce(0) { max($0, abs($1.0 - $1.1)) }
            #expect(difference > 0 && difference < 0.03 * exact.reduce(0) { max($0, abs($1)) })
        }
    }

    @Test("the token that stands for the text is the first end token, or of old configurations the highest")
    func pooled() throws {
        for (end, expected) in [(7, 2), (2, 4), (99, 0)] {
            try withEncoder(["eos_token_id": end]) { folder in
                let configuration = try CLIPTextConfiguration(file: folder.appending(path: "config.json"))
                #expect(configuration.pooledPosition([3, 1, 7, 7, 9, 9]) == expected)
            }
        }
    }

    @Test(
        "a configuration that the engine cannot run is an error of one line that names the option",
        arguments: [
            ("architectures", ["CLIPTextModelWithProjection"]), ("architectures", ["T5EncoderModel"]),
            ("hidden_act", "gelu_new"),
            ("num_attention_heads", 5), ("hidden_size", 0), ("hidden_size", "24"), ("layer_norm_eps", 0),
            ("surprise", 1), ("model_type", "t5"),
        ] as [(String, any Sendable)])
    func refused(option: String, value: any Sendable) throws {
        try withEncoder([option: value]) { folder in
            let error = try #require(throws: ModelError.self) {
                try CLIPTextConfiguration(file: folder.appending(path: "config.json"))
            }
            #expect(error.description.contains(option) && !error.description.contains("\n"))
            if let names = value as? [String] { #expect(error.description.contains(names[0])) }
        }
    }

    @Test("options without meaning for the answer are accepted, whichever version wrote them")
    func harmless() throws {
        try withEncoder([
            "torch_dtype": "float16", "dropout": 0.1, "attention_dropout": 0.0, "projection_dim": 768,
            "transformers_version": "4.2",
            "_name_or_path": "x", "pad_token_id": 1,
        ]) { folder in
            _ = try CLIPText(folder: NetworkFolder(url: folder))
        }
    }

    @Test("weights of another shape, and tokens that the model does not know, are errors")
    func wrong() throws {
        try withEncoder(["intermediate_size": 47]) { folder in
            #expect(throws: SafetensorsError.self) { try CLIPText(folder: NetworkFolder(url: folder)) }
        }
        try withEncoder(["vocab_size": 3]) { folder in
            #expect(throws: SafetensorsError.self) { try CLIPText(folder: NetworkFolder(url: folder)) }
        }
        try withEncoder { folder in
            let encoder = try CLIPText(folder: NetworkFolder(url: folder))
            let count = encoder.configuration.vocabularySize
            for id in [-1, count, Int.max] {
                #expect(throws: CLIPTextError.unknownToken(id, count: count)) {
                    try encoder.encode(ids: [0, id], workspace: Workspace())
                }
            }
            for length in [0, 78] {
                #expect(throws: CLIPTextError.tokenCount(length, limit: 77)) {
                    try encoder.encode(ids: Array(repeating: 0, count: length), workspace: Workspace())
                }
            }
        }
    }
}
