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
            TaskResult(task: Self.id, seconds: 1, outputs: [answer], checksums: [0])
        ).frames()
        #expect(frames.count == 2 && frames[1] === answer && frames[0].byteCount < 64)
    }

    static let id = TaskID(job: 1, pass: 0, tile: 0, attempt: 0)

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

    @Test("frames of another size, and too few or too many, are named errors that tell whose they are")
    func frameSizes() throws {
        var random = SplitMix64(state: 11)
        let operation = Samples.denoisePixels(using: &random)
        let task = FarmTask(
            id: Samples.task(using: &random), model: Samples.digest(1),
            task: TileTask(operation, sources: [.frame, .frame]))
        let inputs = task.task.frameByteCounts.map { Samples.tensor(bytes: $0, using: &random) }
        let sample = inputs[0]
        let frames = try CoordinatorMessage.task(task, inputs: inputs).frames()

        func refusal(_ frames: [Frame]) -> WireError? {
            do throws(WireError) { _ = try CoordinatorMessage(frames: frames) } catch { return error }
            return nil
        }
        let few = WireError.partCount(message: "task", expected: 3, found: 2)
        #expect(refusal(Array(frames.dropLast())) == .unreadableTask(task.id, few))
        let many = WireError.partCount(message: "task", expected: 3, found: 4)
        #expect(refusal(frames + [sample]) == .unreadableTask(task.id, many))
        let short = Frame(copying: sample.withBytes { [UInt8]($0.dropLast()) })
        let size = WireError.frameSize(
            frame: "an input of the task", expected: sample.byteCount, found: sample.byteCount - 1)
        #expect(refusal([frames[0], short, frames[2]]) == .unreadableTask(task.id, size))
        let ten = refusal(frames + (0..<7).map { _ in sample })
        #expect(ten == .partCount(message: "message", expected: 9, found: 10))

        #expect(throws: few) { try CoordinatorMessage.task(task, inputs: [sample]).frames() }
        #expect(throws: size) { try CoordinatorMessage.task(task, inputs: [short, inputs[1]]).frames() }
    }

    @Test("an answer that cannot be read still names its task")
    func unreadableAnswers() throws {
        let sample = Frame(zeros: 10), short = Frame(zeroBytes: 39)
        let result = TaskResult(task: Self.id, seconds: 1, outputs: [sample, short], checksums: [0, 1])
        let frames = try WorkerMessage.result(result).frames()
        func refusal(_ frames: [Frame]) -> WireError? {
            do throws(WireError) { _ = try WorkerMessage(frames: frames) } catch { return error }
            return nil
        }
        #expect(
            refusal([frames[0], short, short])
                == .unreadableAnswer(Self.id, .frameSize(frame: "an output", expected: 40, found: 39)))
        #expect(
            refusal([frames[0], sample])
                == .unreadableAnswer(Self.id, .partCount(message: "result", expected: 3, found: 2)))
        let failure = try WorkerMessage.failure(Self.id, .error("bad")).frames()
        #expect(
            refusal(failure + [sample])
                == .unreadableAnswer(Self.id, .partCount(message: "failure", expected: 1, found: 2)))
        #expect(refusal([frames[0], sample])?.description.contains("1/0/0#0") == true)
        // A failure without a kind: version 5, field 5 of one field, the task with job 1.
        let bare = Frame(copying: [0x08, 5, 0x2a, 4, 0x0a, 2, 0x08, 1] as [UInt8])
        #expect(refusal([bare]) == .unreadableAnswer(Self.id, .missing(field: "failure.kind")))
        // What says not even whose it is, is no answer.
        #expect(refusal([Frame(copying: [0x08, 5, 0x22, 0] as [UInt8])]) == .missing(field: "result.task"))
    }

    @Test("what may not be received is not sent either: results, blobs, models, identities")
    func bounds() throws {
        var result = TaskResult(task: Self.id, seconds: 1, outputs: [Frame(zeros: 1)], checksums: [0])
        func refusal(_ message: WorkerMessage) -> String? {
            do throws(WireError) { _ = try message.frames() } catch { return error.description }
            return nil
        }
        func refusal(_ message: CoordinatorMessage) -> String? {
            do throws(WireError) { _ = try message.frames() } catch { return error.description }
            return nil
        }
        #expect(refusal(.result(result)) == nil)
        result.seconds = .infinity
        #expect(refusal(.result(result))?.contains("result.seconds") == true)
        result.seconds = -1
        #expect(refusal(.result(result))?.contains("result.seconds") == true)
        result.seconds = 0
        result.checksums = []
        #expect(refusal(.result(result))?.contains("checksums") == true)
        result.outputs = []
        #expect(refusal(.result(result))?.contains("result.outputs") == true)
        (result.outputs, result.checksums) = ((0..<9).map { _ in Frame(zeros: 1) }, (0..<9).map { $0 })
        #expect(refusal(.result(result))?.contains("result.outputs") == true)

        #expect(refusal(.missing(Self.id, blobs: []))?.contains("missing.blobs") == true)
        #expect(
            refusal(.missing(Self.id, blobs: (0..<9).map { Samples.blob($0) }))?.contains("missing.blobs") == true)
        for (id, field) in [
            (TaskID(job: 0, pass: -1, tile: 0, attempt: 0), "task.pass"),
            (TaskID(job: 0, pass: WireLimits.passes + 1, tile: 0, attempt: 0), "task.pass"),
            (TaskID(job: 0, pass: 0, tile: .max, attempt: 0), "task.tile"),
            (TaskID(job: 0, pass: 0, tile: 0, attempt: 65_536), "task.attempt"),
        ] {
            #expect(refusal(.failure(id, .returned))?.contains(field) == true)
        }
        for (change, field) in [
            ({ $0.credit = 0 }, "hello.credit"), ({ $0.credit = 4097 }, "hello.credit"),
            ({ $0.lanes = 1025 }, "hello.lanes"), ({ $0.blobBytes = -1 }, "hello.blob_bytes"),
            ({ $0.memoryBytes = -1 }, "hello.memory_bytes"),
            ({ $0.kernels = String(repeating: "k", count: 129) }, "hello.kernels"),
        ] as [((inout Hello) -> Void, String)] {
            var hello = Hello(
                session: 1, name: "n", host: "h", lanes: 1, kernels: "k", memoryBytes: 0, credit: 2, blobBytes: 0)
            #expect(refusal(.hello(hello)) == nil)
            change(&hello)
            #expect(refusal(.hello(hello))?.contains(field) == true)
        }
        let welcome = Welcome(session: 1, requiredKernels: nil, heartbeatMilliseconds: 9, silenceMilliseconds: 5000)
        #expect(refusal(.welcome(welcome))?.contains("welcome.heartbeat_milliseconds") == true)
        #expect(
            refusal(.chunk(Samples.digest(1), file: 256, offset: 0, Frame(zeros: 1)))?.contains("chunk.file") == true)
        #expect(
            refusal(.chunk(Samples.digest(1), file: 0, offset: 0, Frame(zeroBytes: 0)))?.contains("chunk.length")
                == true)
        #expect(
            refusal(.fetch(Samples.digest(1), file: 0, offset: 0, length: 1 << 21))?.contains("fetch.length") == true)
    }

    @Test("a blob of another length than its header says is an error")
    func blobLength() throws {
        let frames = try CoordinatorMessage.blob(Samples.blob(1), Frame(zeros: 10)).frames()
        #expect(throws: WireError.frameSize(frame: "the blob", expected: 40, found: 44)) {
            try CoordinatorMessage(frames: [frames[0], Frame(zeros: 11)])
        }
        #expect(throws: WireError.partCount(message: "blob", expected: 2, found: 1)) {
            try CoordinatorMessage(frames: [frames[0]])
        }
    }

    @Test("texts for the log hold one line, whoever sent them; names are refused")
    func texts() throws {
        let hello = Hello(
            session: 1, name: "a\nb", host: "h", lanes: 1, kernels: "k", memoryBytes: 0, credit: 1, blobBytes: 0)
        #expect(throws: WireError.text(field: "hello.name", bytes: 3)) { try WorkerMessage.hello(hello).frames() }

        let long = "line\nnext\u{1b}[31m " + String(repeating: "é", count: 2000)
        func error(_ frames: [Frame]) throws -> String? {
            if case .failure(_, .error(let text)) = try WorkerMessage(frames: frames) { text } else { nil }
        }
        let sent = try #require(try error(WorkerMessage.failure(Self.id, .error(long)).frames()))
        #expect(sent.hasPrefix("line next [31m é") && sent.utf8.count <= WireLimits.textBytes)
        // As another program may send it, a traceback for one: version 5, field 5: the task, then the text.
        let traceback = Array("Traceback:\n  File \u{7}".utf8)
        let received = try error([
            Frame(
                copying: [0x08, 5, 0x2a, UInt8(4 + 2 + traceback.count), 0x0a, 2, 0x08, 1]
                    + [0x1a, UInt8(traceback.count)] + traceback)
        ])
        #expect(received == "Traceback:   File  ")
        let note = TaskResult(
            task: Self.id, seconds: 0, outputs: [Frame(zeros: 1)], checksums: [0], note: "cut\r\nhere")
        guard case .result(let result) = try WorkerMessage(frames: WorkerMessage.result(note).frames()) else {
            Issue.record("not a result")
            return
        }
        #expect(result.note == "cut  here")
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
        #expect(accepted < 20 * (13 + 15))
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
