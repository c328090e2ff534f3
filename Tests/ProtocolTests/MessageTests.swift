import Engine
import Testing

import Protocol

@Suite struct MessageTests {
    @Test("every worker message comes back as it was sent", arguments: 0..<50 as Range<UInt64>)
    func workerRoundTrip(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        for message in Samples.workerMessages(using: &random) {
            #expect(try WorkerMessage(frames: message.frames()) == message)
        }
    }

    @Test("every coordinator message comes back as it was sent", arguments: 0..<50 as Range<UInt64>)
    func coordinatorRoundTrip(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        for message in try Samples.coordinatorMessages(using: &random) {
            #expect(try CoordinatorMessage(frames: message.frames()) == message)
        }
    }

    @Test("tensors travel beside the header, not in it: the frame sent is the frame given")
    func tensorsAreNotCopied() throws {
        let answer = Frame(zeros: 1000)
        let frames = try WorkerMessage.result(
            TaskID(job: 1, stage: 0, step: 0, tile: 0, attempt: 0), seconds: 1, answer, checksum: 0, note: nil
        ).frames()
        #expect(frames.count == 2 && frames[1] === answer && frames[0].byteCount < 64)
    }

    @Test("a message of another version is named before anything else of it is looked at")
    func otherVersion() throws {
        // protocol_version = 7, then field 99, which no version has yet.
        let frame = Frame(copying: [0x08, 7, 0x9a, 0x06, 1, 0] as [UInt8])
        #expect(throws: WireError.version(theirs: 7, ours: WireLimits.protocolVersion)) {
            try WorkerMessage(frames: [frame, frame, frame])
        }
        #expect(throws: WireError.version(theirs: 7, ours: WireLimits.protocolVersion)) {
            try CoordinatorMessage(frames: [frame])
        }
        #expect(WireError.version(theirs: 7, ours: WireLimits.protocolVersion).description.contains("version 7"))
    }

    @Test("a refusal is understood in every version")
    func refusalOfAnotherVersion() throws {
        var bytes = try CoordinatorMessage.refused("too old").frames()[0].withBytes { [UInt8]($0) }
        #expect(bytes[0] == 0x08)
        bytes[1] = 9
        #expect(try CoordinatorMessage(frames: [Frame(copying: bytes)]) == .refused("too old"))
    }

    @Test("a message without a known body is an unknown message")
    func unknownBody() {
        let frame = Frame(copying: [0x08, UInt8(WireLimits.protocolVersion), 0x9a, 0x06, 0] as [UInt8])
        #expect(throws: WireError.unknownMessage) { try WorkerMessage(frames: [frame]) }
        #expect(throws: WireError.unknownMessage) { try CoordinatorMessage(frames: [frame]) }
    }

    @Test("no header, an empty and an oversized one are named errors")
    func badHeaders() {
        #expect(throws: WireError.empty) { try WorkerMessage(frames: []) }
        #expect(throws: WireError.headerSize(bytes: 0)) { try WorkerMessage(frames: [Frame(copying: [UInt8]())]) }
        #expect(throws: WireError.headerSize(bytes: 65537)) {
            try WorkerMessage(frames: [Frame(copying: [UInt8](repeating: 0, count: 65537))])
        }
    }

    @Test("a denoise task is held against its own geometry")
    func geometry() throws {
        var random = SplitMix64(state: 5)
        var request = Samples.request(using: &random)
        request.sampleIsNoise = true
        request.canvasHeight = 300
        request.canvasWidth = 300
        request.window = Rect(y: 8, x: 8, height: 64, width: 64)
        request.cell = Rect(y: 16, x: 16, height: 48, width: 48)
        request.text = nil
        let enlargement = Enlargement(
            inputHeight: 75, inputWidth: 75, outputHeight: 300, outputWidth: 300,
            source: Rect(y: 0, x: 0, height: 20, width: 20))
        request.conditioning = .enlarged(enlargement)

        func refusal(_ change: (inout DenoiseRequest) -> Void) -> String? {
            var changed = request
            change(&changed)
            return Self.refusal(of: .denoise(changed), inputs: [Frame(zeros: 1200)])
        }
        func enlarged(_ change: @escaping (inout Enlargement) -> Void) -> (inout DenoiseRequest) -> Void {
            var changed = enlargement
            change(&changed)
            return { [changed] in $0.conditioning = .enlarged(changed) }
        }
        #expect(refusal { _ in } == nil)
        let faults: [(String, (inout DenoiseRequest) -> Void)] = [
            ("denoise.canvas.height", { $0.canvasHeight = 0 }),
            ("denoise.canvas.width", { $0.canvasWidth = .max }),
            ("denoise.channels", { $0.channels = 65 }),
            ("denoise.channels", { $0.channels = -1 }),
            ("denoise.window.height", { $0.window.height = 4097 }),
            ("denoise.window.y", { $0.window.y = -1 }),
            ("inside the canvas", { $0.window.x = 237 }),
            ("denoise.window.x", { $0.window.x = .max }),
            ("inside the window", { $0.cell.y = 7 }),
            ("denoise.cell.width", { $0.cell.width = 0 }),
            ("inside the input", enlarged { $0.source.height = 76 }),
            ("denoise.enlarged.input.width", enlarged { $0.inputWidth = 0 }),
            ("denoise.enlarged.output.height", enlarged { $0.outputHeight = 1 << 21 }),
            ("denoise.noise_level", { $0.conditioning = .noised(level: -1) }),
            ("denoise.text.tokens", { $0.text = .init(tokens: 0, width: 8, scale: 1) }),
            ("denoise.text.width", { $0.text = .init(tokens: 77, width: 1 << 20, scale: 1) }),
            ("denoise.text.scale", { $0.text = .init(tokens: 77, width: 8, scale: .nan) }),
            ("an input of the task", { $0.conditioning = .noised(level: 20) }),
            ("parts", { $0.conditioning = .none }),
            ("denoise.step", { $0.step = -1 }),
            ("denoise.timestep", { $0.timestep = .nan }),
            ("coefficients.noise", { $0.coefficients.noise = .infinity }),
            ("coefficients.clip_range", { $0.coefficients.clipRange = -.infinity }),
            (
                "bytes of denoise.window",
                {
                    $0.canvasHeight = 4096
                    $0.canvasWidth = 4096
                    $0.window = Rect(y: 0, x: 0, height: 4096, width: 4096)
                    $0.channels = 64
                }
            ),
        ]
        for (words, change) in faults {
            let refusal = try #require(refusal(change), "\(words) was accepted")
            #expect(refusal.contains(words))
        }
    }

    /// Why a task may not be sent, nil if it may.
    static func refusal(of work: Work, inputs: [Frame]) -> String? {
        let task = FarmTask(
            id: TaskID(job: 1, stage: 0, step: 0, tile: 0, attempt: 0), model: Samples.digest(1), work: work)
        do {
            _ = try CoordinatorMessage.task(task, inputs: inputs).frames()
            return nil
        } catch {
            return error.description
        }
    }

    @Test("an autoencoder's task is held against its own geometry, a text against its length")
    func autoencoderGeometry() throws {
        let good = AutoencodeRequest(
            direction: .decode, canvasHeight: 100, canvasWidth: 100, window: Rect(y: 8, x: 8, height: 64, width: 64),
            cell: Rect(y: 16, x: 16, height: 48, width: 48), factor: 8, channels: 4, featureChannels: 512, groups: 10,
            givenNorms: 3)
        let inputs = [Frame(zeros: 64 * 64 * 4), Frame(doubles: Array(repeating: 1, count: 90))]
        #expect(Self.refusal(of: .autoencode(good), inputs: inputs) == nil)
        let faults: [(String, (inout AutoencodeRequest) -> Void)] = [
            ("autoencode.canvas.width", { $0.canvasWidth = 0 }),
            ("inside the canvas", { $0.window.x = 37 }),
            ("inside the window", { $0.cell.y = 7 }),
            ("autoencode.factor", { $0.factor = 0 }),
            ("autoencode.channels", { $0.channels = 65 }),
            ("autoencode.feature_channels", { $0.featureChannels = 1 << 20 }),
            ("autoencode.groups", { $0.groups = 0 }),
            ("autoencode.given_norms", { $0.givenNorms = 1 << 20 }),
            ("autoencode.wanted_from", { $0.wantedNorms = 1 << 20..<1 << 20 }),
            ("autoencode.wanted_norms", { $0.wantedNorms = 0..<1 << 20 }),
            (
                "bytes of autoencode.window",
                {
                    $0.factor = 64; $0.canvasHeight = 5000; $0.window.height = 2000
                }
            ),
            ("autoencode.signal", { $0.signal = .nan }),
            ("autoencode.noise", { $0.noise = .infinity }),
            ("autoencode.source", { $0.direction = .encode }),
            (
                "autoencode.source",
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
            let refusal = try #require(Self.refusal(of: .autoencode(changed), inputs: inputs), "\(words) was accepted")
            #expect(refusal.contains(words))
        }
        let text = TextRequest(byteCount: WireLimits.promptBytes + 1, tokens: 77, width: 8)
        #expect(Self.refusal(of: .encodeText(text), inputs: [])?.contains("encode_text.bytes") == true)
    }

    @Test("frames of another size, and too few or too many, are named errors")
    func frameSizes() throws {
        var random = SplitMix64(state: 11)
        var request = Samples.request(using: &random)
        request.sampleIsNoise = false
        request.conditioning = .enlarged(Samples.enlargement(using: &random))
        request.text = nil
        let task = FarmTask(id: Samples.task(using: &random), model: Samples.digest(1), work: .denoise(request))
        let inputs = task.work.inputByteCounts.map { Samples.tensor(bytes: $0, using: &random) }
        let sample = inputs[0]
        let frames = try CoordinatorMessage.task(task, inputs: inputs).frames()

        #expect(throws: WireError.partCount(message: "task", expected: 3, found: 2)) {
            try CoordinatorMessage(frames: Array(frames.dropLast()))
        }
        #expect(throws: WireError.partCount(message: "task", expected: 3, found: 4)) {
            try CoordinatorMessage(frames: frames + [sample])
        }
        let short = Frame(copying: sample.withBytes { [UInt8]($0.dropLast()) })
        #expect(
            throws: WireError.frameSize(
                frame: "an input of the task", expected: sample.byteCount, found: sample.byteCount - 1)
        ) {
            try CoordinatorMessage(frames: [frames[0], short, frames[2]])
        }
        let result = try WorkerMessage.result(task.id, seconds: 1, sample, checksum: 0, note: nil).frames()
        #expect(
            throws: WireError.frameSize(frame: "the answer", expected: sample.byteCount, found: sample.byteCount - 1)
        ) {
            try WorkerMessage(frames: [result[0], short])
        }
        #expect(throws: WireError.partCount(message: "result", expected: 2, found: 1)) {
            try WorkerMessage(frames: [result[0]])
        }
    }

    @Test("texts for the log hold one line: foreign ones are refused, our own are cleaned")
    func texts() throws {
        let hello = Hello(session: 1, name: "a\nb", host: "h", lanes: 1, kernels: "k", memoryBytes: 0)
        #expect(throws: WireError.text(field: "hello.name", bytes: 3)) { try WorkerMessage.hello(hello).frames() }

        let task = TaskID(job: 1, stage: 0, step: 0, tile: 0, attempt: 0)
        let long = "line\nnext\u{1b}[31m " + String(repeating: "é", count: 2000)
        guard
            case .failure(_, .error(let text)) = try WorkerMessage(
                frames: WorkerMessage.failure(task, .error(long)).frames())
        else {
            Issue.record("not a failure")
            return
        }
        #expect(text.hasPrefix("line next [31m é") && text.utf8.count <= WireLimits.textBytes)
    }

    @Test("random bytes are never a message and never a crash", arguments: 0..<200 as Range<UInt64>)
    func randomBytes(seed: UInt64) {
        var random = SplitMix64(state: seed)
        for _ in 0..<50 {
            let frames = (0..<Int.random(in: 1...4, using: &random)).map { _ in
                Frame(
                    copying: (0..<Int.random(in: 0...80, using: &random)).map { _ in
                        UInt8.random(in: 0...255, using: &random)
                    })
            }
            #expect(throws: WireError.self) { try WorkerMessage(frames: frames) }
            #expect(throws: WireError.self) { try CoordinatorMessage(frames: frames) }
        }
    }

    @Test("mutated messages are refused or are valid messages, never a crash", arguments: 0..<100 as Range<UInt64>)
    func mutations(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        var accepted = 0
        for message in Samples.workerMessages(using: &random) {
            for _ in 0..<20 {
                // What is accepted can be said: every value in it passed the same checks.
                if let decoded = try? WorkerMessage(frames: mutate(message.frames(), using: &random)) {
                    _ = try decoded.frames()
                    accepted += 1
                }
            }
        }
        for message in try Samples.coordinatorMessages(using: &random) {
            for _ in 0..<20 {
                if let decoded = try? CoordinatorMessage(frames: mutate(message.frames(), using: &random)) {
                    _ = try decoded.frames()
                    accepted += 1
                }
            }
        }
        #expect(accepted < 20 * 17)
    }

    private func mutate(_ frames: [Frame], using random: inout SplitMix64) -> [Frame] {
        var bytes = frames[0].withBytes { [UInt8]($0) }
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            let place = Int.random(in: 0..<max(bytes.count, 1), using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0 where !bytes.isEmpty: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 1 where !bytes.isEmpty: bytes[place] = .random(in: 0...255, using: &random)
            case 2 where !bytes.isEmpty:
                bytes.removeSubrange(place..<min(bytes.count, place + .random(in: 1...8, using: &random)))
            default:
                bytes.insert(
                    contentsOf: (0..<4).map { _ in .random(in: 0...255, using: &random) }, at: min(place, bytes.count))
            }
        }
        return [Frame(copying: bytes)] + frames.dropFirst()
    }
}
