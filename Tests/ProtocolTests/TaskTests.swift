import Engine
import Protocol
import Testing

/// Values that a task may have.
@Suite("Tasks") struct TaskTests {
    /// Why a task whose inputs are all frames may not be sent, nil if it may.
    private static func refusal(of operation: any TaskOperation, inputs: [Frame]) -> String? {
        let task = TileTask(operation, sources: operation.inputs.map { _ in .frame })
        do throws(WireError) {
            _ = try CoordinatorMessage.task(
                FarmTask(id: MessageTests.id, model: Samples.digest(1), task: task), inputs: inputs
            ).frames()
            return nil
        } catch {
            return error.description
        }
    }

    @Test("a tile of the sampler's loop is held against its own geometry")
    func geometry() throws {
        var random = SplitMix64(state: 5)
        var good = Samples.denoisePixels(using: &random)
        (good.tile.canvasHeight, good.tile.canvasWidth, good.tile.channels) = (300, 300, 3)
        good.tile.window = Rect(y: 8, x: 8, height: 64, width: 64)
        good.tile.cell = Rect(y: 16, x: 16, height: 48, width: 48)
        good.tile.element = .float32
        good.enlargement = Enlargement(
            inputHeight: 75, inputWidth: 75, outputHeight: 300, outputWidth: 300,
            source: Rect(y: 0, x: 0, height: 20, width: 20))
        let inputs = [Frame(zeros: 64 * 64 * 3), Frame(zeros: 1200)]
        #expect(Self.refusal(of: good, inputs: inputs) == nil)

        let faults: [(String, (inout DenoisePixels) -> Void)] = [
            ("denoise-pixels.canvas is 0", { $0.tile.canvasHeight = 0 }),
            ("denoise-pixels.canvas", { $0.tile.canvasWidth = .max }),
            ("denoise-pixels.channels", { $0.tile.channels = 65 }),
            ("denoise-pixels.channels", { $0.tile.channels = -1 }),
            ("denoise-pixels.window", { $0.tile.window.height = 4097 }),
            ("denoise-pixels.window", { $0.tile.window.y = -1 }),
            ("inside 300x300", { $0.tile.window.x = 237 }),
            ("denoise-pixels.window", { $0.tile.window.x = .max }),
            ("inside 64x64 at (8, 8)", { $0.tile.cell.y = 7 }),
            ("denoise-pixels.cell", { $0.tile.cell.width = 0 }),
            ("inside 75x75", { $0.enlargement.source.height = 76 }),
            ("denoise-pixels.input", { $0.enlargement.inputWidth = 0 }),
            ("denoise-pixels.output", { $0.enlargement.outputHeight = 1 << 21 }),
            ("denoise-pixels.step", { $0.tile.step = -1 }),
            ("denoise-pixels.stage", { $0.tile.stage = 256 }),
            ("denoise-pixels.timestep", { $0.tile.timestep = .nan }),
            ("denoise-pixels.noise", { $0.tile.coefficients.noise = .infinity }),
            ("denoise-pixels.clip_range", { $0.tile.coefficients.clipRange = -1 }),
            ("an input of the task", { $0.tile.element = .float16 }),
            ("an input of the task", { $0.enlargement.source.height = 19 }),
            (
                "denoise-pixels.sample is 4096x4096x64",
                {
                    ($0.tile.canvasHeight, $0.tile.canvasWidth, $0.tile.channels) = (4096, 4096, 64)
                    $0.tile.window = Rect(y: 0, x: 0, height: 4096, width: 4096)
                }
            ),
        ]
        for (words, change) in faults {
            var changed = good
            change(&changed)
            let refusal = try #require(Self.refusal(of: changed, inputs: inputs), "\(words) was accepted")
            #expect(refusal.contains(words))
        }
    }

    @Test("embeddings, noise levels and texts are held against their limits")
    func texts() throws {
        var random = SplitMix64(state: 6)
        let good = Samples.denoiseLatents(using: &random)
        let faults: [(String, (inout DenoiseLatents) -> Void)] = [
            ("denoise-latents.tokens", { $0.tokens = 0 }), ("denoise-latents.width", { $0.width = 1 << 20 }),
            ("denoise-latents.guidance_scale", { $0.guidanceScale = .nan }),
            ("denoise-latents.noise_level", { $0.noiseLevel = -1 }),
        ]
        for (words, change) in faults {
            var changed = good
            change(&changed)
            #expect(Self.refusal(of: changed, inputs: [])?.contains(words) == true)
        }
        let text = EncodeText(byteCount: TaskLimits.promptBytes + 1, tokens: 77, width: 8)
        #expect(Self.refusal(of: text, inputs: [])?.contains("encode-text.bytes") == true)
    }

    @Test("an autoencoder's task is held against its own geometry")
    func autoencoderGeometry() throws {
        let good = Autoencode(
            direction: .decode, canvasHeight: 100, canvasWidth: 100, window: Rect(y: 8, x: 8, height: 64, width: 64),
            cell: Rect(y: 16, x: 16, height: 48, width: 48), factor: 8, channels: 4, featureChannels: 512, groups: 10,
            givenNorms: 3)
        let inputs = [Frame(zeros: 64 * 64 * 4), Frame(doubles: Array(repeating: 1, count: 90))]
        #expect(Self.refusal(of: good, inputs: inputs) == nil)
        let faults: [(String, (inout Autoencode) -> Void)] = [
            ("autoencode.canvas", { $0.canvasWidth = 0 }),
            ("inside 100x100", { $0.window.x = 37 }),
            ("inside 64x64 at (8, 8)", { $0.cell.y = 7 }),
            ("autoencode.factor", { $0.factor = 0 }),
            ("autoencode.channels", { $0.channels = 65 }),
            ("autoencode.feature_channels", { $0.featureChannels = 1 << 20 }),
            ("autoencode.groups", { $0.groups = 0 }),
            ("autoencode.given_norms", { $0.givenNorms = 1 << 20 }),
            ("autoencode.wanted_from", { $0.wantedNorms = 1 << 20..<1 << 20 }),
            ("autoencode.wanted_norms", { $0.wantedNorms = 0..<1 << 20 }),
            (
                "autoencode.window is 2000x64",
                {
                    $0.factor = 64; $0.canvasHeight = 5000; $0.window.height = 2000
                }
            ),
            ("autoencode.stage", { $0.stage = -1 }),
            ("autoencode.signal", { $0.signal = .nan }),
            ("autoencode.noise", { $0.noise = .infinity }),
            ("autoencode.enlargement", { $0.direction = .encode }),
            (
                "autoencode.enlargement",
                {
                    $0.enlargement = Enlargement(
                        inputHeight: 1, inputWidth: 1, outputHeight: 1, outputWidth: 1,
                        source: .init(y: 0, x: 0, height: 1, width: 1))
                }
            ),
            ("parts", { $0.givenNorms = 0 }),
            ("an input of the task", { $0.givenNorms = 2 }),
        ]
        for (words, change) in faults {
            var changed = good
            change(&changed)
            let refusal = try #require(Self.refusal(of: changed, inputs: inputs), "\(words) was accepted")
            #expect(refusal.contains(words))
        }
    }

    @Test("an operation that nobody has registered is named, with those that are")
    func unknownOperation() throws {
        var random = SplitMix64(state: 7)
        let operation = Samples.encodeText(using: &random)
        let task = FarmTask(
            id: Samples.task(using: &random), model: Samples.digest(1),
            task: TileTask(operation, sources: [.blob(Samples.blob(1))]))
        let frames = try CoordinatorMessage.task(task, inputs: []).frames()
        let error = WireError.unknownOperation(name: "encode-text", known: ["autoencode"])
        #expect(throws: WireError.unreadableTask(task.id, error)) {
            try CoordinatorMessage(frames: frames, operations: OperationTable([Autoencode.self]))
        }
        #expect(error.description.contains("\"encode-text\"") && error.description.contains("autoencode"))
    }

    @Test("a task has one source for each input")
    func sources() throws {
        var random = SplitMix64(state: 8)
        let operation = Samples.denoisePixels(using: &random)
        for count in [0, 1, 3, 9] {
            let task = TileTask(operation, sources: Array(repeating: .blob(Samples.blob(1)), count: count))
            let message = CoordinatorMessage.task(
                FarmTask(id: MessageTests.id, model: Samples.digest(1), task: task), inputs: [])
            #expect { try message.frames() } throws: { "\($0)".contains("task.sources is \(count), allowed is 2") }
        }
    }

    @Test("blobs of a task are its inputs' names with the sizes of their slots")
    func blobs() {
        var random = SplitMix64(state: 9)
        var operation = Samples.denoiseLatents(using: &random)
        (operation.guidanceScale, operation.tokens, operation.width, operation.noiseLevel) = (7, 77, 8, nil)
        let task = TileTask(operation, sources: [.frame, .blob(Samples.blob(1)), .blob(Samples.blob(2))])
        #expect(task.blobs.map(\.id) == [Samples.blob(1), Samples.blob(2)])
        #expect(task.blobs.map(\.bytes) == [4 * 77 * 8, 4 * 77 * 8])
        #expect(task.frameByteCounts == [operation.tile.sampleSlot.byteCount])
    }
}
