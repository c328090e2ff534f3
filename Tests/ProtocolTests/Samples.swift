import Engine
import Protocol

enum Samples {
    static func digest(_ seed: UInt8) -> ContentDigest { ContentDigest(bytes: (0..<32).map { seed &+ $0 })! }

    static func task(using random: inout SplitMix64) -> TaskID {
        TaskID(
            job: random.next(), stage: .random(in: 0...9, using: &random), step: .random(in: 0...999, using: &random),
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

    static func autoencode(using random: inout SplitMix64) -> AutoencodeRequest {
        let canvas = Rect(
            y: 0, x: 0, height: .random(in: 1...60, using: &random), width: .random(in: 1...60, using: &random))
        let window = rect(inside: canvas, using: &random)
        let encodes = Bool.random(using: &random),
            layers = AutoencodeRequest.Layers.allCases[.random(in: 0...2, using: &random)]
        let wanted = Int.random(in: 0...9, using: &random)
        return AutoencodeRequest(
            direction: encodes ? .encode : .decode, layers: layers, canvasHeight: canvas.height,
            canvasWidth: canvas.width, window: window,
            cell: rect(inside: window, using: &random), factor: .random(in: 1...8, using: &random),
            channels: .random(in: 1...16, using: &random),
            featureChannels: .random(in: 1...40, using: &random), groups: .random(in: 1...8, using: &random),
            givenNorms: .random(in: 0...9, using: &random),
            wantedNorms: wanted..<wanted + .random(in: 0...9, using: &random),
            enlargement: encodes && layers != .trunk ? enlargement(using: &random) : nil,
            seed: random.next(), signal: .random(in: 0...1, using: &random), noise: .random(in: 0...1, using: &random))
    }

    static func request(using random: inout SplitMix64) -> DenoiseRequest {
        let (canvasHeight, canvasWidth) = (
            Int.random(in: 1...300, using: &random), Int.random(in: 1...300, using: &random)
        )
        let window = rect(inside: Rect(y: 0, x: 0, height: canvasHeight, width: canvasWidth), using: &random)
        let conditionings: [DenoiseRequest.Conditioning] = [
            .none, .enlarged(enlargement(using: &random)), .noised(level: .random(in: 0...999, using: &random)),
        ]
        return DenoiseRequest(
            canvasHeight: canvasHeight, canvasWidth: canvasWidth, channels: .random(in: 1...4, using: &random),
            window: window,
            cell: rect(inside: window, using: &random), timestep: .random(in: 0...999, using: &random),
            coefficients: StepCoefficients(
                originalFromSample: .random(in: -2...2, using: &random),
                originalFromPrediction: .random(in: -2...2, using: &random),
                clipRange: Bool.random(using: &random) ? 1 : nil, nextFromOriginal: .random(in: -2...2, using: &random),
                nextFromSample: .random(in: -2...2, using: &random),
                nextFromPrediction: .random(in: -2...2, using: &random),
                noise: .random(in: 0...1, using: &random)),
            step: .random(in: 0...99, using: &random), seed: random.next(), sampleIsNoise: .random(using: &random),
            answer: Bool.random(using: &random) ? .cell : .prediction,
            element: CanvasElement.allCases[.random(in: 0...1, using: &random)],
            conditioning: conditionings[.random(in: 0...2, using: &random)],
            text: Bool.random(using: &random)
                ? .init(
                    tokens: .random(in: 1...77, using: &random), width: 8, scale: Bool.random(using: &random) ? 1 : 7.5)
                : nil)
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
        Frame(copying: (0..<bytes).map { _ in UInt8.random(in: 0...255, using: &random) })
    }

    static func message(_ work: Work, using random: inout SplitMix64) -> CoordinatorMessage {
        .task(
            FarmTask(id: task(using: &random), model: digest(9), work: work),
            inputs: work.inputByteCounts.map { tensor(bytes: $0, using: &random) })
    }

    static func workerMessages(using random: inout SplitMix64) -> [WorkerMessage] {
        [
            .hello(
                Hello(
                    session: random.next(), name: "n3", host: "tower", lanes: 8, kernels: "avx512",
                    memoryBytes: 64 << 30)),
            .ready(credit: 16, model: digest(7)),
            .result(
                task(using: &random), seconds: 0.25,
                tensor(bytes: 4 * .random(in: 0...500, using: &random), using: &random), checksum: 0xdead_beef,
                note: nil),
            .result(task(using: &random), seconds: 0, Frame(zeros: 1), checksum: 7, note: "the prompt was cut"),
            .failure(task(using: &random), .returned),
            .failure(task(using: &random), .error("the model has no such layer")),
            .heartbeat(Heartbeat(progress: random.next(), running: [task(using: &random), task(using: &random)])),
            .heartbeat(Heartbeat(progress: 0, running: [])),
            .fetch(file: 3, offset: 5 << 20, length: 1 << 20),
            .leaving(reason: "SIGTERM"),
        ]
    }

    static func coordinatorMessages(using random: inout SplitMix64) throws -> [CoordinatorMessage] {
        [
            .welcome(
                Welcome(
                    session: random.next(), job: 7, manifest: try manifest(), requiredKernels: "avx512",
                    heartbeatMilliseconds: 500, silenceMilliseconds: 5000)),
            .welcome(
                Welcome(
                    session: 1, job: random.next(), manifest: try manifest(), requiredKernels: nil,
                    heartbeatMilliseconds: 60_000, silenceMilliseconds: 600_000, precision: .bfloat16)),
            .refused("this job takes kernels avx2 only"),
            message(.denoise(request(using: &random)), using: &random),
            message(.autoencode(autoencode(using: &random)), using: &random),
            message(
                .encodeText(TextRequest(byteCount: .random(in: 0...99, using: &random), tokens: 77, width: 1024)),
                using: &random),
            .chunk(file: 1, offset: 1 << 20, Frame(copying: [1, 2, 3] as [UInt8])),
            .heartbeat,
            .introduceYourself,
            .stop(reason: "finished"),
        ]
    }
}
