import Engine
import Foundation
import Testing

/// A copy of a case that a test may spoil.
private func withCopy<Result>(of name: String, _ body: (URL) throws -> Result) throws -> Result {
    try withTemporaryFolder { folder in
        let copy = folder.appending(path: name)
        try FileManager.default.copyItem(at: try caseFolder(name), to: copy)
        return try body(copy)
    }
}

/// Where a tensor's bytes stand in a safetensors file, read anew so that the engine's reader is not its own judge.
private func byteRange(of tensor: String, in data: Data) throws -> Range<Int> {
    let length = Int(data.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
    let header = try #require(try JSONSerialization.jsonObject(with: data[8..<8 + length]) as? [String: Any])
    let entry = try #require(header[tensor] as? [String: Any])
    let offsets = try #require(entry["data_offsets"] as? [Int])
    return 8 + length + offsets[0]..<8 + length + offsets[1]
}

/// Overwrites the first value of a tensor.
private func spoil(_ file: URL, _ tensor: String, with value: Float) throws {
    var data = try Data(contentsOf: file)
    let range = try byteRange(of: tensor, in: data)
    data.replaceSubrange(range.prefix(4), with: withUnsafeBytes(of: value) { Data($0) })
    try data.write(to: file)
}

@Suite struct VerificationTests {
    static let cases = [
        "schedules", "guidance-rescale", "upsample-guidance", "unet2d-sr", "unet2d-ddpm-cifar", "unet-four-levels",
        "unet-inpainting-float16",
        "unet-sharded-bfloat16", "unet-one-level", "vae-old-names", "vae-bare",
    ]

    @Test("the answers agree with those of diffusers", arguments: cases)
    func agrees(name: String) throws {
        let reports = try Verification.run(caseDirectory: try caseFolder(name))
        #expect(!reports.isEmpty)
        for report in reports {
            #expect(report.passed, "\(report.name): \(report.relativeError)")
            #expect(report.tolerance == 1e-4)
        }
    }

    @Test(
        "a changed expectation fails, and only that one",
        arguments: [
            ("guidance-rescale", "out.rescaled_0.7"), ("schedules", "out.ddim.v_prediction.ztsnr.eta0.7.t999"),
            ("schedules", "out.alphas_cumprod.linear.plain"), ("unet2d-sr", "out.1.sample"),
            ("unet2d-ddpm-cifar", "out.0.sample"),
            ("unet-four-levels", "out.2.sample"), ("vae-bare", "out.logvar"), ("vae-old-names", "out.image"),
            ("upsample-guidance", "out.low_input"),
        ])
    func changedExpectation(name: String, tensor: String) throws {
        try withCopy(of: name) { folder in
            for value in [Float(3.5), .nan, .infinity] {
                try spoil(folder.appending(path: "case.safetensors"), tensor, with: value)
                #expect(try Verification.run(caseDirectory: folder).filter { !$0.passed }.map(\.name) == [tensor])
            }
        }
    }

    @Test(
        "a changed input fails",
        arguments: [
            ("guidance-rescale", "in.pos"), ("schedules", "in.sample"), ("unet2d-sr", "in.0.sample"),
            ("unet-one-level", "in.0.encoder_hidden_states"), ("vae-bare", "in.image"),
            ("upsample-guidance", "in.eps_low"),
        ])
    func changedInput(name: String, tensor: String) throws {
        try withCopy(of: name) { folder in
            for value in [Float(50), .nan] {
                try spoil(folder.appending(path: "case.safetensors"), tensor, with: value)
                #expect(try Verification.run(caseDirectory: folder).contains { !$0.passed })
            }
        }
    }

    @Test("changed weights fail", arguments: [Float(2), .nan])
    func changedWeights(value: Float) throws {
        try withCopy(of: "unet2d-sr") { folder in
            try spoil(
                folder.appending(path: "model/diffusion_pytorch_model.safetensors"),
                "down_blocks.1.resnets.0.conv1.weight", with: value)
            #expect(try Verification.run(caseDirectory: folder).allSatisfy { !$0.passed })
        }
    }

    @Test("a truncated case is a named error", arguments: cases)
    func truncated(name: String) throws {
        try withCopy(of: name) { folder in
            let file = folder.appending(path: "case.safetensors")
            try Data(contentsOf: file).dropLast(4).write(to: file)
            let error = try #require(throws: SafetensorsError.self) { try Verification.run(caseDirectory: folder) }
            #expect(caseName(error) == "outsideFile")
        }
    }

    @Test("a case whose model is broken, or of a class that is not known, is a named error")
    func models() throws {
        try withCopy(of: "unet2d-sr") { folder in
            let config = folder.appending(path: "model/config.json")
            let text = try String(contentsOf: config, encoding: .utf8)
            try text.replacing("UNet2DModel", with: "UNet3DConditionModel").write(
                to: config, atomically: true, encoding: .utf8)
            let error = try #require(throws: VerificationError.self) { try Verification.run(caseDirectory: folder) }
            #expect(caseName(error) == "unknownKind")
            #expect(error.description.contains("UNet3DConditionModel"))
            try text.write(to: config, atomically: true, encoding: .utf8)
            let weights = folder.appending(path: "model/diffusion_pytorch_model.safetensors")
            try Data(contentsOf: weights).dropLast(1000).write(to: weights)
            #expect(throws: SafetensorsError.self) { try Verification.run(caseDirectory: folder) }
            try FileManager.default.removeItem(at: weights)
            #expect(throws: ModelFolderError.self) { try Verification.run(caseDirectory: folder) }
        }
    }

    @Test("a folder that is no case is a named error that says why")
    func noCase() throws {
        func name(_ spoil: (URL) throws -> Void) throws -> String {
            try withCopy(of: "schedules") { folder in
                try spoil(folder)
                let error = try #require(throws: (any Error).self) { try Verification.run(caseDirectory: folder) }
                #expect(!"\(error)".contains("\n"))
                return caseName(error)
            }
        }
        let tensors = ["in.x": Tensor(shape: [1], values: [1])]
        #expect(
            try name { try FileManager.default.removeItem(at: $0.appending(path: "case.safetensors")) } == "unreadable")
        #expect(try name { try FileManager.default.removeItem(at: $0.appending(path: "case.json")) } == "unreadable")
        #expect(try name { try Data("{".utf8).write(to: $0.appending(path: "case.json")) } == "malformed")
        #expect(
            try name { try Data("{\"tolerance\":\"low\"}".utf8).write(to: $0.appending(path: "case.json")) }
                == "malformed")
        #expect(
            try name { try Safetensors.write(tensors, to: $0.appending(path: "case.safetensors")) } == "nothingExpected"
        )
        #expect(
            try name { folder in
                try Safetensors.write(["out.x": tensors["in.x"]!], to: folder.appending(path: "case.safetensors"))
            } == "unknownKind")
        #expect(
            try name { folder in
                let one = Tensor(shape: [1], values: [1])
                try Safetensors.write(
                    ["in.pos": one, "in.neg": one, "out.x": one], to: folder.appending(path: "case.safetensors"))
            } == "unknownTensor")
    }
}
