import Engine
import Protocol

enum Samples {
    static func digest(_ seed: UInt8) -> ContentDigest { ContentDigest(bytes: (0..<32).map { seed &+ $0 })! }

    static func task(using random: inout SplitMix64) -> TaskID {
        TaskID(
            job: random.next(), pass: .random(in: 0...999, using: &random),
            tile: .random(in: 0...100_000, using: &random), attempt: .random(in: 0...3, using: &random))
    }

    static func manifest() throws -> ModelManifest {
        try ModelManifest(files: [
            .init(name: "unet/diffusion_pytorch_model.safetensors", size: 3_000_000, sha256: digest(1)),
            .init(name: "config.json", size: 300, sha256: digest(2)),
        ])
    }

    static func enlargement(using random: inout SplitMix64) -> Enlargement {
        let (height, width) = (Int.random(in: 1...80, using: &random), Int.random(in: 1...80, using: &random))
        return Enlargement(
            inputHeight: height, inputWidth: width, outputHeight: 4 * height, outputWidth: 4 * width,
            source: rect(inside: Rect(y: 0, x: 0, height: height, width: width), using: &random))
    }

    static func autoencode(using random: inout SplitMix64) -> Autoencode {
        let canvas = Rect(
            y: 0, x: 0, height: .random(in: 1...60, using: &random), width: .random(in: 1...60, using: &random))
        let window = rect(inside: canvas, using: &random)
        let encodes = Bool.random(using: &random)
        let layers = Autoencode.Layers.allCases[.random(in: 0...2, using: &random)]
        let wanted = Int.random(in: 0...9, using: &random)
        return Autoencode(
            direction: encodes ? .encode : .decode, layers: layers, canvasHeight: canvas.height,
            canvasWidth: canvas.width, window: window, cell: rect(inside: window, using: &random),
            factor: .random(in: 1...8, using: &random), channels: .random(in: 1...16, using: &random),
            featureChannels: .random(in: 1...40, using: &random), groups: .random(in: 1...8, using: &random),
            givenNorms: .random(in: 0...9, using: &random),
            wantedNorms: wanted..<wanted + .random(in: 0...9, using: &random),
            enlargement: encodes && layers != .trunk ? enlargement(using: &random) : nil, seed: random.next(),
            stage: .random(in: 0...255, using: &random), signal: .random(in: 0...1, using: &random),
            noise: .random(in: 0...1, using: &random))
    }

    static func tileStep(using random: inout SplitMix64) -> TileStep {
        let (height, width) = (Int.random(in: 1...300, using: &random), Int.random(in: 1...300, using: &random))
        let window = rect(inside: Rect(y: 0, x: 0, height: height, width: width), using: &random)
        return TileStep(
            canvasHeight: height, canvasWidth: width, channels: .random(in: 1...4, using: &random), window: window,
            cell: rect(inside: window, using: &random), timestep: .random(in: 0...999, using: &random),
            coefficients: StepCoefficients(
                originalFromSample: .random(in: -2...2, using: &random),
                originalFromPrediction: .random(in: -2...2, using: &random),
                clipRange: Bool.random(using: &random) ? 1 : nil, nextFromOriginal: .random(in: -2...2, using: &random),
                nextFromSample: .random(in: -2...2, using: &random),
                nextFromPrediction: .random(in: -2...2, using: &random), noise: .random(in: 0...1, using: &random)),
            step: .random(in: 0...99, using: &random), stage: .random(in: 0...255, using: &random),
            seed: random.next(), answer: Bool.random(using: &random) ? .cell : .prediction,
            element: CanvasElement.allCases[.random(in: 0...1, using: &random)])
    }

    static func denoisePixels(using random: inout SplitMix64) -> DenoisePixels {
        DenoisePixels(tile: tileStep(using: &random), enlargement: enlargement(using: &random))
    }

    static func denoiseLatents(using random: inout SplitMix64) -> DenoiseLatents {
        DenoiseLatents(
            tile: tileStep(using: &random), tokens: .random(in: 1...77, using: &random), width: 8,
            guidanceScale: Bool.random(using: &random) ? 1 : 7.5,
            noiseLevel: Bool.random(using: &random) ? .random(in: 0...999, using: &random) : nil)
    }

    static func encodeText(using random: inout SplitMix64) -> EncodeText {
        EncodeText(
            byteCount: .random(in: 0...99, using: &random), tokens: 77, width: 1024,
            isNegative: .random(using: &random))
    }

    /// One of every operation.
    static func operations(using random: inout SplitMix64) -> [any TaskOperation] {
        [
            denoisePixels(using: &random), denoiseLatents(using: &random), encodeText(using: &random),
            autoencode(using: &random),
        ]
    }

    static func rect(inside outer: Rect, using random: inout SplitMix64) -> Rect {
        let (height, width) = (
            Int.random(in: 1...outer.height, using: &random), Int.random(in: 1...outer.width, using: &random)
        )
        return Rect(
            y: outer.y + .random(in: 0...outer.height - height, using: &random),
            x: outer.x + .random(in: 0...outer.width - width, using: &random), height: height, width: width)
    }

    static func tensor(bytes: Int, using random: inout SplitMix64) -> Frame {
        Frame(byteCount: bytes) { memory in
            for place in stride(from: 0, to: bytes, by: 8) {
                let word = random.next()
                for byte in place..<min(place + 8, bytes) {
                    memory[byte] = UInt8(truncatingIfNeeded: word >> (8 * (byte - place)))
                }
            }
        }
    }

    /// A task that has its inputs from wherever chance wants.
    static func message(_ operation: any TaskOperation, using random: inout SplitMix64) -> CoordinatorMessage {
        var sources: [SlotSource] = [], frames: [Frame] = []
        for slot in operation.inputs {
            switch Int.random(in: 0...3, using: &random) {
            case 0:
                sources.append(.blob(blob(.random(in: 0...255, using: &random))))
            case 1:
                let (stage, step) = (UInt8.random(in: 0...9, using: &random), UInt16.random(in: 0...9, using: &random))
                sources.append(.noise(NoiseField(.initial, stage: stage, step: step)))
            default:
                sources.append(.frame)
                frames.append(tensor(bytes: slot.byteCount, using: &random))
            }
        }
        return .task(
            FarmTask(id: task(using: &random), model: digest(9), task: TileTask(operation, sources: sources)),
            inputs: frames)
    }

    static func blob(_ seed: UInt8) -> BlobID { BlobID(sha256: digest(seed).bytes) }

    static func workerMessages(using random: inout SplitMix64) -> [WorkerMessage] {
        [
            .hello(
                Hello(
                    session: random.next(), name: "n3", host: "tower", lanes: 8, kernels: "avx512",
                    memoryBytes: 64 << 30, credit: 16, blobBytes: 1 << 30)),
            .ready(model: digest(7), .bfloat16),
            .unfit(model: digest(8), reason: "the model in /models/own is another"),
            .result(
                TaskResult(
                    task: task(using: &random), seconds: 0.25,
                    outputs: [tensor(bytes: 4 * .random(in: 0...500, using: &random), using: &random)],
                    checksums: [0xdead_beef])),
            .result(
                TaskResult(
                    task: task(using: &random), seconds: 0, outputs: (0..<8).map { Frame(zeroBytes: $0) },
                    checksums: (0..<8).map { $0 }, note: "the prompt was cut")),
            .failure(task(using: &random), .returned),
            .failure(task(using: &random), .error("the model has no such layer")),
            .missing(task(using: &random), blobs: [blob(1)]),
            .missing(task(using: &random), blobs: (0..<8).map { blob($0) }),
            .heartbeat(Heartbeat(progress: random.next(), running: [task(using: &random), task(using: &random)])),
            .heartbeat(Heartbeat(progress: 0, running: [])),
            .fetch(digest(7), file: 3, offset: 5 << 20, length: 1 << 20),
            .leaving(reason: "SIGTERM"),
        ]
    }

    static func coordinatorMessages(using random: inout SplitMix64) throws -> [CoordinatorMessage] {
        let tasks = operations(using: &random).map { message($0, using: &random) }
        return tasks + [
            .welcome(
                Welcome(
                    session: random.next(), requiredKernels: "avx512", heartbeatMilliseconds: 500,
                    silenceMilliseconds: 5000)),
            .welcome(
                Welcome(
                    session: 1, requiredKernels: nil, heartbeatMilliseconds: 60_000, silenceMilliseconds: 600_000)),
            .refused("this farm takes kernels avx2 only"),
            .prepare(Preparation(manifest: try manifest(), precision: .float32)),
            .prepare(Preparation(manifest: try manifest(), precision: .bfloat16)),
            .release(digest(7)),
            .blob(blob(3), tensor(bytes: .random(in: 0...500, using: &random), using: &random)),
            .chunk(digest(7), file: 1, offset: 1 << 20, Frame(copying: [1, 2, 3] as [UInt8])),
            .heartbeat,
            .introduceYourself,
            .stop(reason: "finished"),
        ]
    }
}
