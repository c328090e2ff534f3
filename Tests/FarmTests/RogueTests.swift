import Engine
import Foundation
import Protocol
import Testing
import Worker

struct Late: Error {}

/// A worker's end of the wire, with deadlines.
extension DealerSocket {
    func deliver(_ frames: [Frame]) throws {
        let deadline = ContinuousClock.now + .seconds(20)
        while try !send(frames) {
            guard ContinuousClock.now < deadline else { throw Late() }
            _ = try wait(nil, milliseconds: 50, writable: true)
        }
    }

    /// The next message that `pick` takes something from.
    func next<T>(_ pick: (CoordinatorMessage) -> T?) throws -> T {
        let deadline = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < deadline {
            while let frames = try receive() {
                if let picked = try pick(CoordinatorMessage(frames: frames)) { return picked }
            }
            _ = try wait(nil, milliseconds: 50)
        }
        throw Late()
    }
}

/// A worker played by the test, over a real socket: it can compute, and lie.
final class Rogue {
    private let context: SocketContext
    private let socket: DealerSocket
    private var nextHeartbeat = ContinuousClock.now
    private let model: any TaskModel
    private let workspace = Workspace()
    private(set) var received = 0

    /// Joins, with the default model.
    init(_ endpoint: String, name: String, credit: Int) throws {
        context = try SocketContext()
        socket = try DealerSocket(context, connect: Endpoint(endpoint), lingerMilliseconds: 200)
        model = try ModelFolder(url: DefaultModel.url).load(precision: .float32)
        let hello = Hello(
            session: .random(in: 0 ... .max), name: name, host: "here", lanes: 1,
            kernels: try KernelEnvironment.kernels(), memoryBytes: 1 << 34, credit: credit, blobBytes: 1 << 30)
        try say(.hello(hello))
        let preparation = try next { if case .prepare(let preparation) = $0 { preparation } else { nil } }
        try say(.ready(model: preparation.manifest.digest, preparation.precision))
    }

    func say(_ message: WorkerMessage) throws { try socket.deliver(message.frames()) }

    /// The next message that `pick` takes something from.
    private func next<T>(_ pick: (CoordinatorMessage) -> T?) throws -> T {
        let deadline = ContinuousClock.now + .seconds(60)
        while ContinuousClock.now < deadline {
            if let picked = try listen(pick) { return picked }
            _ = try socket.wait(nil, milliseconds: 50)
        }
        throw Late()
    }

    /// Hears what there is, says that it lives, and gives what `pick` takes.
    private func listen<T>(_ pick: (CoordinatorMessage) -> T?) throws -> T? {
        if ContinuousClock.now >= nextHeartbeat {
            nextHeartbeat = ContinuousClock.now + .milliseconds(500)
            _ = try socket.send(WorkerMessage.heartbeat(Heartbeat(progress: 0, running: [])).frames())
        }
        while let frames = try socket.receive() {
            let message = try CoordinatorMessage(frames: frames)
            if case .task = message { received += 1 }
            if let picked = pick(message) { return picked }
        }
        return nil
    }

    func task() throws -> (task: FarmTask, inputs: [Frame]) {
        try next { if case .task(let task, let inputs) = $0 { (task, inputs) } else { nil } }
    }

    /// A task, if one comes soon.
    func pending() throws -> FarmTask? {
        _ = try socket.wait(nil, milliseconds: 20)
        return try listen { if case .task(let task, _) = $0 { task } else { nil } }
    }

    /// An honest worker's answer.
    func answer(_ task: (task: FarmTask, inputs: [Frame])) throws -> Frame {
        let (operation, sources) = (task.task.task.operation, task.task.task.sources)
        var rest = task.inputs[...]
        let inputs = sources.map { $0 == .frame ? rest.removeFirst() : Frame(zeroBytes: 0) }
        return try FrameTensors.perform(operation, sources, inputs, on: model, workspace)[0]
    }

    func answer(_ id: TaskID, _ frame: Frame, checksum: UInt32? = nil) throws {
        let checksum = checksum ?? frame.checksum(of: .floats).crc32c
        try say(.result(TaskResult(task: id, seconds: 0.1, outputs: [frame], checksums: [checksum])))
    }

    /// Lives on until `isOver`.
    func idle(until isOver: () -> Bool) throws {
        let deadline = ContinuousClock.now + .seconds(120)
        while !isOver() {
            guard ContinuousClock.now < deadline else { throw Late() }
            _ = try listen { _ in nil as Void? }
            _ = try socket.wait(nil, milliseconds: 50)
        }
    }
}

@Suite("Rogues", .serialized)
struct RogueTests {
    @Test(
        """
        answers that come twice, in another order, damaged, in the wrong shape or not finite change no byte; the third \
        bad one is the last
        """
    )
    func lies() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 100, height: 80)
        let farm = try BoundFarm(scratch, input, RenderingTests.tiling(steps: 6))
        let rogue = try Rogue(farm.endpoint, name: "rogue", credit: 4)
        let first = try (0..<4).map { _ in try rogue.task() }
        // Right answers, the last first, each twice.
        for task in first.reversed() {
            let answer = try rogue.answer(task)
            for _ in 0..<2 { try rogue.answer(task.task.id, answer) }
        }
        let next = try (0..<4).map { _ in try rogue.task() }
        let values = try rogue.answer(next[0]).floats
        // Damaged on its way.
        try rogue.answer(
            next[0].task.id, Frame(floats: values.map { $0 + 1 }),
            checksum: Frame(floats: values).checksum(of: .floats).crc32c)
        // A row short.
        try rogue.answer(next[1].task.id, Frame(floats: values.dropLast(3)))
        // An answer to a tile that it was not given is dropped, whatever it says.
        var foreign = next[2].task.id
        foreign.tile = 1 << 20
        try rogue.answer(foreign, Frame(floats: values))
        // Not a number.
        let size = next[2].task.task.operation.outputs[0].count
        try rogue.answer(next[2].task.id, Frame(floats: (0..<size).map { $0 == size / 2 ? Float.nan : 0 }))
        try #require(farm.program.waitForError { $0.contains("worker in quarantine") }, "\(farm.program.standardError)")
        let received = rogue.received
        // It comes back under its name, and another connection.
        let again = try Rogue(farm.endpoint, name: "rogue", credit: 4)
        let worker = try farm.worker("honest", awaitJoin: false)
        try again.idle { !farm.program.process.isRunning }
        try farm.expectSameBytes()
        try rogue.idle { true }
        #expect(again.received == 0 && rogue.received <= received + 8)
        let log = farm.program.standardError.split(separator: "\n")
        #expect(
            log.count { $0.contains("bad result dropped") } == 3
                && log.count { $0.contains("worker in quarantine") } == 1, "\(log)")
        #expect(log.contains { $0.contains("job finished") && $0.contains("bad=3") }, "\(log)")
        for reason in ["checksum does not fit", "bytes instead of", "not finite"] {
            #expect(log.contains { $0.contains("bad result") && $0.contains(reason) }, "\(reason): \(log)")
        }
        farm.dismiss(worker)
    }

    @Test(
        """
        a worker that takes tasks and never reads them makes the coordinator hold no more than its credit, and the job \
        goes on without it
        """
    )
    func slowReader() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 220, height: 180)
        let farm = try BoundFarm(scratch, input, RenderingTests.tiling())
        let reader = try Rogue(farm.endpoint, name: "reader", credit: 480)
        try #require(farm.program.waitForError { $0.contains("worker joined worker=reader") })
        let worker = try farm.worker("good", lanes: 2)
        try farm.expectSameBytes()
        #expect(farm.program.standardError.contains("worker left worker=reader"))
        let peak = try #require(
            farm.program.standardError.firstMatch(of: /peak_memory=(\d+)MiB/).flatMap { Int($0.output.1) })
        // 480 tasks of 12 KiB and the windows that they were cut from, beside what any job takes.
        #expect(peak < 128, "\(peak) MiB")
        withExtendedLifetime(reader) {}
        farm.dismiss(worker)
    }

    @Test("a tile that fails on three workers ends the job; its task lies beside the output, as it was sent")
    func failedTile() throws {
        let scratch = try Scratch()
        let input = try scratch.picture("in.png", width: 16, height: 16)
        let farm = try BoundFarm(scratch, input, RenderingTests.tiling(steps: 2))
        let rogues = try (0..<3).map { try Rogue(farm.endpoint, name: "rogue-\($0)", credit: 1) }
        // None of them can do anything.
        let deadline = ContinuousClock.now + .seconds(60)
        while farm.program.process.isRunning {
            guard ContinuousClock.now < deadline else { throw Late() }
            for rogue in rogues {
                if let task = try rogue.pending() { try rogue.say(.failure(task.id, .error("misfortune"))) }
            }
        }
        #expect(farm.program.waitForExit() == 1)
        let path = farm.output + ".failed-tile", words = farm.program.standardError
        #expect(
            words.contains("failed on every try: misfortune") && words.contains("its task is in \(path)"), "\(words)")
        let file = try Safetensors(url: URL(filePath: path))
        let frames = try file.names.sorted { $0 == "header" || $1 != "header" && $0 < $1 }.map { name in
            Frame(copying: try file.integers(name).map { UInt8(truncatingIfNeeded: $0) })
        }
        guard case .task(let task, let inputs) = try CoordinatorMessage(frames: frames) else {
            Issue.record("not a task")
            return
        }
        #expect(inputs.map(\.byteCount) == task.task.frameByteCounts)
        #expect(FileManager.default.fileExists(atPath: farm.output) == false)
    }
}
