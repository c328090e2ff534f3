import Engine
import Foundation
import Testing

@Suite struct NetworkFolderTests {
    private func withCopy<Result>(of name: String, _ body: (URL) throws -> Result) throws -> Result {
        try withTemporaryFolder { folder in
            let copy = folder.appending(path: "model")
            try FileManager.default.copyItem(at: try Case.folder(name).appending(path: "model"), to: copy)
            return try body(copy)
        }
    }

    @Test("single files, variants and shards are found, and told by type")
    func kinds() throws {
        for (name, files, type) in [
            ("unet-one-level", ["diffusion_pytorch_model.safetensors"], ElementType.float32),
            ("unet-inpainting-float16", ["diffusion_pytorch_model.fp16.safetensors"], .float16),
            (
                "unet-sharded-bfloat16", (1...3).map { "diffusion_pytorch_model-0000\($0)-of-00003.safetensors" },
                .bfloat16
            ),
        ] {
            let folder = try NetworkFolder(url: Case.folder(name).appending(path: "model"))
            #expect(folder.className == "UNet2DConditionModel")
            #expect(folder.weights.map(\.lastPathComponent) == files)
            let parameters = try folder.parameters()
            #expect(parameters.type == type)
            // All but the headers.
            #expect(
                parameters.count * type.size < folder.weightsSize
                    && parameters.count * type.size > folder.weightsSize * 2 / 3)
        }
    }

    @Test("the plain weights are taken where there are variants too, and an index under either of its names")
    func preference() throws {
        try withCopy(of: "unet-one-level") { folder in
            let plain = folder.appending(path: "diffusion_pytorch_model.safetensors")
            try FileManager.default.copyItem(
                at: plain, to: folder.appending(path: "diffusion_pytorch_model.fp16.safetensors"))
            #expect(try NetworkFolder(url: folder).weights.map(\.lastPathComponent) == [plain.lastPathComponent])
            try FileManager.default.moveItem(at: plain, to: folder.appending(path: "model.safetensors"))
            #expect(
                try NetworkFolder(url: folder).weights.map(\.lastPathComponent) == [
                    "diffusion_pytorch_model.fp16.safetensors"
                ])
            try FileManager.default.removeItem(at: folder.appending(path: "diffusion_pytorch_model.fp16.safetensors"))
            #expect(try NetworkFolder(url: folder).weights.map(\.lastPathComponent) == ["model.safetensors"])
        }
        for name in [
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "diffusion_pytorch_model.fp16.safetensors.index.json",
        ] {
            try withCopy(of: "unet-sharded-bfloat16") { folder in
                let index = folder.appending(path: "diffusion_pytorch_model.safetensors.index.json")
                try FileManager.default.moveItem(at: index, to: folder.appending(path: name))
                #expect(try NetworkFolder(url: folder).weights.count == 3)
            }
        }
    }

    @Test("a shard that is missing, cut short, or lacks what the index promises is a named error of one line")
    func shards() throws {
        func name(_ spoil: (URL, URL) throws -> Void) throws -> String {
            try withCopy(of: "unet-sharded-bfloat16") { folder in
                try spoil(folder, folder.appending(path: "diffusion_pytorch_model.safetensors.index.json"))
                let error = try #require(throws: (any Error).self) {
                    try UNet2DCondition(folder: NetworkFolder(url: folder))
                }
                #expect(!"\(error)".contains("\n"))
                return caseName(error)
            }
        }
        let shard = "diffusion_pytorch_model-00003-of-00003.safetensors"
        #expect(
            try name { folder, _ in try FileManager.default.removeItem(at: folder.appending(path: shard)) }
                == "missingShard")
        #expect(
            try name { folder, _ in
                let file = folder.appending(path: shard)
                try Data(contentsOf: file).dropLast(10).write(to: file)
            } == "outsideFile")
        #expect(
            try name { _, index in
                let text = try String(contentsOf: index, encoding: .utf8)
                try text.replacing("00001-of", with: "00002-of").write(to: index, atomically: true, encoding: .utf8)
            } == "missingTensor")
        for map in [
            "{}", "[]", #"{"weight_map": {}}"#, #"{"weight_map": {"a": 1}}"#,
            #"{"weight_map": {"a": "../x.safetensors"}}"#,
            #"{"weight_map": {"a": "config.json"}}"#,
        ] {
            #expect(try name { _, index in try Data(map.utf8).write(to: index) } == "malformed")
        }
    }

    @Test("weights that are only pickled, or not there, are named errors that say what to do")
    func missing() throws {
        for (file, expected) in [
            ("diffusion_pytorch_model.bin", "pickledWeights"), ("pytorch_model.bin", "pickledWeights"),
            ("diffusion_pytorch_model.fp16.bin", "pickledWeights"),
            ("diffusion_pytorch_model.bin.index.json", "pickledWeights"),
            ("other.safetensors", "missingWeights"),
        ] {
            try withTemporaryFolder { folder in
                try Data(#"{"_class_name": "X"}"#.utf8).write(to: folder.appending(path: "config.json"))
                try Data("x".utf8).write(to: folder.appending(path: file))
                let error = try #require(throws: ModelFolderError.self) { try NetworkFolder(url: folder) }
                #expect(caseName(error) == expected)
                #expect(error.description.contains("safe_serialization"))
            }
        }
    }
}
