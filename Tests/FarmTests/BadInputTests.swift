import Engine
import Foundation
import Protocol
import Testing

/// Whatever a user gets wrong is said in one line that names it, with exit code 2 for what was typed and 1 for what
/// failed, and leaves nothing behind.
@Suite("Bad input", .serialized)
struct BadInputTests {
    struct Mistake: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var arguments: @Sendable (Scratch) throws -> [String]
        var code: Int32
        var says: [String]
    }

    static func text(_ scratch: Scratch, _ name: String, _ bytes: [UInt8]) throws -> String {
        try Data(bytes).write(to: scratch.url.appending(path: name))
        return scratch.path(name)
    }

    static func upscale(_ input: String, _ scratch: Scratch, _ more: [String] = []) -> [String] {
        ["upscale", input, "-o", scratch.path("out.png")] + more
    }

    /// An upscale with a copy of the small pipeline, changed.
    static func pipeline(_ scratch: Scratch, width: Int = 20, height: Int = 20, change: (URL) throws -> Void = { _ in })
        throws -> [String]
    {
        let model = scratch.url.appending(path: "model")
        try FileManager.default.copyItem(at: PipelineCase("upscale").model, to: model)
        try change(model)
        return upscale(
            try scratch.picture("in.png", width: width, height: height), scratch,
            ["--model", model.path, "--steps", "1"])
    }

    static func edit(_ file: URL, _ old: String, _ new: String) throws {
        let text = try String(contentsOf: file, encoding: .utf8)
        try #require(text.contains(old))
        try text.replacingOccurrences(of: old, with: new).write(to: file, atomically: true, encoding: .utf8)
    }

    static let mistakes: [Mistake] = [
        Mistake(
            testDescription: "a missing file", arguments: { upscale($0.path("no.png"), $0) }, code: 1,
            says: ["no.png"]),
        Mistake(testDescription: "a folder", arguments: { upscale($0.url.path, $0) }, code: 1, says: ["directory"]),
        Mistake(
            testDescription: "a JPEG",
            arguments: { upscale(try text($0, "a.png", [0xFF, 0xD8, 0xFF, 0xE0, 0, 16, 0x4A, 0x46]), $0) }, code: 1,
            says: ["a.png", "JPEG"]),
        Mistake(
            testDescription: "an empty file", arguments: { upscale(try text($0, "e.png", []), $0) }, code: 1,
            says: ["e.png", "empty"]),
        Mistake(
            testDescription: "a truncated PNG",
            arguments: { scratch in
                let whole = try scratch.bytes(try scratch.picture("whole.png", width: 30, height: 30))
                return upscale(try text(scratch, "cut.png", Array(whole.prefix(whole.count / 2))), scratch)
            }, code: 1, says: ["cut.png", "too early"]),
        Mistake(
            testDescription: "a PNG that claims absurd sizes",
            arguments: { scratch in
                var bytes = Array(try scratch.bytes(try scratch.picture("whole.png", width: 30, height: 30)))
                bytes.replaceSubrange(16..<24, with: [0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF])
                return upscale(try text(scratch, "huge.png", bytes), scratch)
            }, code: 1, says: ["huge.png"]),
        Mistake(
            testDescription: "an output in a folder that does not exist",
            arguments: {
                ["upscale", try $0.picture("in.png", width: 9, height: 9), "-o", $0.path("no/such/out.png")]
            }, code: 1,
            says: ["no/such", "director"]),
        Mistake(
            testDescription: "the input as output",
            arguments: { ["upscale", try $0.picture("in.png", width: 9, height: 9), "-o", $0.path("in.png")] },
            code: 2, says: ["in.png", "input"]),
        Mistake(
            testDescription: "a link to the input as output",
            arguments: { scratch in
                let input = try scratch.picture("in.png", width: 9, height: 9)
                symlink("in.png", scratch.path("link.png"))
                return ["upscale", input, "-o", scratch.path("link.png")]
            }, code: 2, says: ["link.png", "input"]),
        Mistake(
            testDescription: "an output that a link leads into the pyramid",
            arguments: { scratch in
                mkdir(scratch.path("pyramid"), 0o777)
                symlink("pyramid/out.png", scratch.path("link.png"))
                return upscale(try scratch.picture("in.png", width: 9, height: 9), scratch)
                    + ["--deepzoom", scratch.path("pyramid"), "-o", scratch.path("link.png")]
            }, code: 2, says: ["link.png", "--deepzoom"]),
        Mistake(
            testDescription: "an output that a link leads to a file of the job's own",
            arguments: { scratch in
                mkdir(scratch.path("job"), 0o777)
                symlink("job/input.png", scratch.path("link.png"))
                return upscale(try scratch.picture("in.png", width: 9, height: 9), scratch)
                    + ["--job", scratch.path("job"), "-o", scratch.path("link.png")]
            }, code: 1, says: ["link.png", "the job folder has a file of this name for itself"]),
        Mistake(
            testDescription: "a model folder that is none",
            arguments: { upscale(try $0.picture("in.png", width: 9, height: 9), $0, ["--model", $0.url.path]) },
            code: 1,
            says: ["config.json"]),
        Mistake(
            testDescription: "a model folder that is missing",
            arguments: { upscale(try $0.picture("in.png", width: 9, height: 9), $0, ["--model", $0.path("nowhere")]) },
            code: 1, says: ["nowhere"]),
        Mistake(
            testDescription: "a pipeline without one of its parts",
            arguments: { try pipeline($0) { try FileManager.default.removeItem(at: $0.appending(path: "vae")) } },
            code: 1, says: ["model", "no vae"]),
        Mistake(
            testDescription: "a pipeline with pickled weights",
            arguments: {
                try pipeline($0) {
                    let unet = $0.appending(path: "unet/diffusion_pytorch_model")
                    try FileManager.default.moveItem(
                        at: unet.appendingPathExtension("safetensors"), to: unet.appendingPathExtension("bin"))
                }
            }, code: 1, says: ["unet/diffusion_pytorch_model.bin", "save_pretrained"]),
        Mistake(
            testDescription: "a pipeline of another architecture",
            arguments: {
                try pipeline($0) {
                    try edit(
                        $0.appending(path: "model_index.json"), "StableDiffusionUpscalePipeline",
                        "StableDiffusionXLPipeline")
                }
            },
            code: 1, says: ["model_index.json", "StableDiffusionXLPipeline"]),
        Mistake(
            testDescription: "a pipeline whose U-Net has an option that the engine does not know",
            arguments: {
                try pipeline($0) {
                    try edit($0.appending(path: "unet/config.json"), "\"act_fn\"", "\"warp_factor\": 9, \"act_fn\"")
                }
            }, code: 1,
            says: ["unet/config.json", "warp_factor"]),
        Mistake(
            testDescription: "a pipeline with truncated weights",
            arguments: {
                try pipeline($0) {
                    let weights = $0.appending(path: "unet/diffusion_pytorch_model.safetensors")
                    try Data(contentsOf: weights).dropLast(1000).write(to: weights)
                }
            }, code: 1, says: ["unet/diffusion_pytorch_model.safetensors"]),
        Mistake(
            testDescription: "a picture too small for the model", arguments: { try pipeline($0, width: 3, height: 2) },
            code: 2,
            says: ["12x8", "at least"]),
        Mistake(
            testDescription: "a scale that an upscale pipeline does not have",
            arguments: { try pipeline($0) + ["--scale", "3"] }, code: 2,
            says: ["--scale 3", "enlarges by 4"]),
        Mistake(
            testDescription: "a noise level beyond the model's training",
            arguments: { try pipeline($0) + ["--noise-level", "999"] }, code: 2,
            says: ["--noise-level 999"]),
        Mistake(
            testDescription: "image to image's strength for an upscale pipeline",
            arguments: { try pipeline($0) + ["--strength", "0.5"] }, code: 2,
            says: ["--strength"]),
        Mistake(
            testDescription: "a prompt for a model of pixels",
            arguments: { upscale(try $0.picture("in.png", width: 9, height: 9), $0, ["--prompt", "a cat"]) }, code: 2,
            says: ["--prompt", "UNet2DModel"]),
        Mistake(
            testDescription: "a strength of nothing", arguments: { upscale("x.png", $0, ["--strength", "0"]) }, code: 2,
            says: ["--strength 0"]),
        Mistake(
            testDescription: "an endless prompt",
            arguments: { upscale("x.png", $0, ["--prompt", String(repeating: "x", count: 20_000)]) }, code: 2,
            says: ["--prompt", "20000"]),
        Mistake(
            testDescription: "no steps", arguments: { upscale("x.png", $0, ["--steps", "0"]) }, code: 2,
            says: ["--steps 0"]),
        Mistake(
            testDescription: "an absurd scale", arguments: { upscale("x.png", $0, ["--scale", "1e9"]) }, code: 2,
            says: ["--scale"]),
        Mistake(
            testDescription: "a scale that is no number", arguments: { upscale("x.png", $0, ["--scale", "nan"]) },
            code: 2, says: ["--scale"]),
        Mistake(
            testDescription: "an output larger than memory and disk",
            arguments: { upscale(try $0.picture("in.png", width: 1500, height: 1500), $0, ["--scale", "64"]) }, code: 2,
            says: ["disk", "--storage"]),
        Mistake(
            testDescription: "an overlap beyond all numbers",
            arguments: {
                upscale(
                    try $0.picture("in.png", width: 9, height: 9), $0,
                    ["--overlap", "explicit", "--overlap-width", "9223372036854775807"])
            }, code: 2, says: ["--overlap-width"]),
        Mistake(
            testDescription: "kernels that nobody has", arguments: { upscale("x.png", $0, ["--kernels", "AVX512"]) },
            code: 2, says: ["--kernels AVX512"]),
        Mistake(
            testDescription: "an unknown option", arguments: { upscale("x.png", $0, ["--speed", "11"]) }, code: 2,
            says: ["--speed"]),
        Mistake(
            testDescription: "an unknown sampler", arguments: { upscale("x.png", $0, ["--sampler", "euler"]) }, code: 2,
            says: ["euler"]),
        Mistake(testDescription: "no output", arguments: { _ in ["upscale", "x.png"] }, code: 2, says: ["--output"]),
        Mistake(
            testDescription: "a tile that is not a multiple of the alignment",
            arguments: { upscale(try $0.picture("in.png", width: 9, height: 9), $0, ["--tile", "100"]) }, code: 2,
            says: ["--tile 100", "8"]),
        Mistake(
            testDescription: "a halo wider than the tile",
            arguments: {
                upscale(try $0.picture("in.png", width: 9, height: 9), $0, ["--tile", "64", "--halo", "32"])
            }, code: 2,
            says: ["--halo 32"]),
        Mistake(
            testDescription: "a bad endpoint", arguments: { upscale("x.png", $0, ["--bind", "tcp://127.0.0.1"]) },
            code: 2, says: ["tcp://127.0.0.1"]),
        Mistake(
            testDescription: "an endpoint open to everybody",
            arguments: { upscale("x.png", $0, ["--bind", "tcp://*:5555"]) }, code: 2,
            says: ["--insecure"]),
        Mistake(
            testDescription: "keys that are not there",
            arguments: {
                [
                    "upscale", try $0.picture("in.png", width: 9, height: 9), "-o", $0.path("out.png"), "--bind",
                    "tcp://127.0.0.1:5555", "--keys", $0.path("no.keys"),
                ]
            },
            code: 1, says: ["no.keys", "keygen"]),
        Mistake(
            testDescription: "keys that everybody can read",
            arguments: { scratch in
                let keys = try text(scratch, "open.keys", [])
                try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: keys)
                return [
                    "upscale", try scratch.picture("in.png", width: 9, height: 9), "-o", scratch.path("out.png"),
                    "--bind", "tcp://127.0.0.1:5555", "--keys", keys,
                ]
            }, code: 1, says: ["open.keys", "chmod 600"]),
        Mistake(
            testDescription: "keys for local workers", arguments: { upscale("x.png", $0, ["--keys", "a"]) }, code: 2,
            says: ["--keys", "--bind"]),
        Mistake(
            testDescription: "a name for a coordinator", arguments: { ["keygen", $0.path("a.keys"), "--name", "n1"] },
            code: 2, says: ["--name", "--for"]),
        Mistake(
            testDescription: "keys over a file that is there", arguments: { ["keygen", try text($0, "a.keys", [1])] },
            code: 2, says: ["a.keys", "not overwritten"]),
        Mistake(
            testDescription: "local workers and others at once",
            arguments: { upscale("x.png", $0, ["--bind", "tcp://127.0.0.1:5555", "--workers", "2"]) }, code: 2,
            says: ["--workers", "--bind"]),
        Mistake(testDescription: "no case to verify", arguments: { _ in ["verify"] }, code: 2, says: ["case"]),
        Mistake(
            testDescription: "files in place of cases",
            arguments: { ["verify", try $0.picture("in.png", width: 9, height: 9)] }, code: 2,
            says: ["case folder"]),
        Mistake(
            testDescription: "a case that is none", arguments: { ["verify", $0.url.path] }, code: 1, says: ["case"]),
    ]

    @Test("is one line, an exit code, and nothing left behind", arguments: mistakes + weightMistakes)
    func mistake(_ mistake: Mistake) throws {
        let scratch = try Scratch()
        let arguments = try mistake.arguments(scratch)
        let before = try FileManager.default.contentsOfDirectory(atPath: scratch.url.path).sorted()
        let farm = try RunningProgram("tilefarm", arguments)
        #expect(farm.waitForExit(seconds: 30) == mistake.code, "\(farm.standardError)")
        let lines = farm.standardError.split(separator: "\n")
        #expect(lines.count == 1, "\(farm.standardError)")
        for word in mistake.says { #expect(farm.standardError.contains(word), "\(farm.standardError)") }
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.url.path).sorted() == before)
    }

    @Test("weights of another shape than the configuration end the job in words")
    func wrongShape() throws {
        let scratch = try Scratch()
        let arguments = try Self.pipeline(scratch) {
            try Self.edit($0.appending(path: "unet/config.json"), "\"num_class_embeds\": ", "\"num_class_embeds\": 1")
        }
        let farm = try RunningProgram("tilefarm", arguments)
        #expect(farm.waitForExit(seconds: 60) == 1, "\(farm.standardError)")
        let last = farm.standardError.split(separator: "\n").last ?? ""
        #expect(
            last.hasPrefix("tilefarm: ") && last.contains("class_embedding") && last.contains("shape"),
            "\(farm.standardError)")
        #expect(!FileManager.default.fileExists(atPath: scratch.path("out.png")))
    }

    @Test("a disk that takes no more ends the job in words and leaves neither half a picture nor a hidden file")
    func fullDisk() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 64, height: 64)
        try Data("before".utf8).write(to: scratch.url.appending(path: "out.png"))
        let farm = try RunningProgram(
            "tilefarm", ["upscale", input, "-o", scratch.path("out.png"), "--steps", "1"], fileKiB: 16)
        #expect(farm.waitForExit(seconds: 60) == 1, "\(farm.standardError)")
        #expect(farm.standardError.contains("out.png"), "\(farm.standardError)")
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: scratch.url.path).sorted() == ["in.png", "out.png"])
        #expect(try scratch.bytes(scratch.path("out.png")) == Data("before".utf8))
    }

    @Test("a port in use is named")
    func portInUse() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 20, height: 20)
        let first = try BoundFarm(scratch, input, [])
        let second = try RunningProgram(
            "tilefarm", ["upscale", input, "-o", scratch.path("b.png"), "--bind", first.endpoint])
        #expect(second.waitForExit(seconds: 30) == 1)
        #expect(
            second.standardError.contains(first.endpoint) && second.standardError.contains("in use"),
            "\(second.standardError)")
        first.program.signal(SIGINT)
        #expect(first.program.waitForExit(seconds: 30) == 130)
    }

    @Test("a worker with another model is refused in words, and the job goes on without it")
    func otherModel() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 20, height: 20)
        let other = scratch.url.appending(path: "model")
        try FileManager.default.copyItem(at: DefaultModel.url, to: other)
        try Data("{}\n".utf8).write(to: other.appending(path: "other.json"))
        let config = other.appending(path: "config.json")
        try (Data(contentsOf: config) + Data("\n".utf8)).write(to: config)
        let farm = try BoundFarm(scratch, input, ["--steps", "1"])
        let stranger = try RunningProgram("tilefarm-worker", ["--connect", farm.endpoint, "--model", other.path])
        #expect(stranger.waitForExit(seconds: 60) == 1, "\(stranger.standardError)")
        #expect(stranger.standardError.contains("model"), "\(stranger.standardError)")
        let worker = try farm.worker("good", lanes: 2)
        #expect(farm.program.waitForExit() == 0, "\(farm.program.standardError)")
        farm.dismiss(worker)
    }

    @Test("a stranger's garbage and another version's hello are refused, and change nothing")
    func strangers() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 60, height: 60)
        let farm = try BoundFarm(scratch, input, RenderingTests.tiling())

        // Messages that are framed as ours but mean nothing, and one of a version to come.
        let socket = try DealerSocket(SocketContext(), connect: Endpoint(farm.endpoint))
        var random = SystemRandomNumberGenerator()
        for count in [0, 1, 7, 100, 5000] {
            let bytes: [UInt8] = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            try socket.deliver([Frame(copying: bytes)])
        }
        try socket.deliver((0..<9).map { _ in Frame(copying: [1, 2, 3] as [UInt8]) })
        // A header whose protocol_version, field 1, says 99.
        try socket.deliver([Frame(copying: [0x08, 99] as [UInt8])])
        let refusal = try socket.next {
            if case .refused(let reason) = $0, reason.contains("99") { reason } else { nil }
        }
        #expect(refusal.contains("version"), "\(refusal)")

        let worker = try farm.worker("good", lanes: 2)
        try farm.expectSameBytes()
        #expect(farm.program.standardError.contains("stranger refused"), "\(farm.program.standardError)")
        farm.dismiss(worker)
    }
}
