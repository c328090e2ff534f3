import Dispatch
import Engine
import Foundation
import Logging
import Protocol
import Synchronization
import Testing
import Worker

struct Late: Error {}

/// A coordinator's end of the wire, played by the test: one real router, deadlines in place of hope.
final class Farmer {
    let context: SocketContext
    let router: RouterSocket
    var endpoint: Endpoint { get throws { try Endpoint(router.endpoint) } }

    init(at endpoint: Endpoint? = nil, keys: CoordinatorKeys? = nil) throws {
        context = try SocketContext()
        let deadline = ContinuousClock.now + .seconds(10)
        while true {
            do {
                // It admits nobody, so its door is open.
                var limits = ConnectionLimits()
                (limits.strangerBytes, limits.strangerSeconds) = (1 << 30, 3600)
                router = try RouterSocket(
                    context, bind: endpoint ?? Endpoint("tcp://127.0.0.1:*"), lingerMilliseconds: 200, keys: keys,
                    limits: limits)
                return
            } catch SocketError.addressInUse where ContinuousClock.now < deadline {
                continue
            }
        }
    }

    /// The next message that `pick` takes something from; others are answered as a coordinator would, or passed over.
    func next<T>(seconds: Int = 20, _ pick: (Peer, WorkerMessage) -> T?) throws -> T {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < deadline {
            guard let received = try router.receive() else {
                _ = try router.wait(nil, milliseconds: 50)
                continue
            }
            let message = try WorkerMessage(frames: received.frames)
            if let picked = pick(received.peer, message) { return picked }
            if case .heartbeat = message { try send(.heartbeat, to: received.peer) }
        }
        throw Late()
    }

    func hello() throws -> (peer: Peer, hello: Hello) {
        try next { if case .hello(let hello) = $1 { ($0, hello) } else { nil } }
    }

    func ready() throws -> ModelDigest {
        try next { if case .ready(let model, _) = $1 { model } else { nil } }
    }

    func result() throws -> (task: TaskID, answer: Frame) {
        try next {
            guard case .result(let result) = $1, result.outputs.count == 1, result.checksums.count == 1,
                result.outputs[0].checksum(of: .floats).crc32c == result.checksums[0]
            else { return nil }
            return (result.task, result.outputs[0])
        }
    }

    /// The next task that failed, and why.
    func failure() throws -> (task: TaskID, kind: FailureKind) {
        try next { if case .failure(let id, let kind) = $1 { (id, kind) } else { nil } }
    }

    func send(_ message: CoordinatorMessage, to peer: Peer) throws {
        _ = try router.send(message.frames(), to: peer)
    }

    /// Welcomes the next worker that says hello.
    func welcome(kernels: String? = nil) throws -> (peer: Peer, hello: Hello) {
        let (peer, hello) = try hello()
        try send(Self.welcome(hello, kernels: kernels), to: peer)
        return (peer, hello)
    }

    static func welcome(_ hello: Hello, kernels: String? = nil) -> CoordinatorMessage {
        .welcome(
            Welcome(
                session: hello.session, requiredKernels: kernels, heartbeatMilliseconds: 20, silenceMilliseconds: 1000))
    }

    /// Welcomes the next worker that says hello, until it is ready with a model.
    func employ(_ model: TestModel) throws -> (peer: Peer, hello: Hello) {
        let (peer, hello) = try welcome()
        try prepare(model, at: peer)
        return (peer, hello)
    }

    /// Has a worker that was welcomed make a model ready.
    func prepare(_ model: TestModel, precision: Precision = .float32, at peer: Peer) throws {
        try send(model.preparation(precision), to: peer)
        // Nothing where the worker is ready without.
        if model.isFetched { try serve(model, fetches: model.fetches) }
        #expect(try ready() == model.manifest.digest)
    }

    /// Answers so many fetches of a model.
    func serve(_ model: TestModel, fetches: Int, spoil: (Int, Int, Frame) -> Frame = { $2 }) throws {
        for _ in 0..<fetches {
            let (peer, digest, file, offset, length) = try next {
                if case .fetch(let model, let file, let offset, let length) = $1 {
                    ($0, model, file, offset, length)
                } else {
                    nil
                }
            }
            #expect(digest == model.manifest.digest)
            guard case .chunk(_, _, _, let bytes) = try model.server.chunk(file: file, offset: offset, length: length)
            else { return }
            try send(.chunk(digest, file: file, offset: offset, spoil(file, offset, bytes)), to: peer)
        }
    }

    /// Makes a task of 4x5 pixels whose answer is its sample, one added.
    /// - Parameter pixels: how the low-resolution pixels come, which the answer does not depend on.
    func task(
        _ model: TestModel, job: UInt64 = 7, tile: Int, step: Int = 0, element: CanvasElement = .float32,
        pixels: SlotSource = .frame
    ) -> (task: FarmTask, inputs: [Frame]) {
        let window = Rect(y: 0, x: 0, height: 4, width: 5)
        let operation = DenoisePixels(
            tile: TileStep(
                canvasHeight: 8, canvasWidth: 8, channels: 3, window: window, cell: window, timestep: 999,
                coefficients: StepCoefficients(
                    originalFromSample: 0, originalFromPrediction: 0, clipRange: nil, nextFromOriginal: 0,
                    nextFromSample: 0, nextFromPrediction: 0, noise: 0),
                step: step, seed: 1, answer: .cell, element: element),
            enlargement: Enlargement(
                inputHeight: 2, inputWidth: 2, outputHeight: 8, outputWidth: 8,
                source: Rect(y: 0, x: 0, height: 2, width: 2)))
        let id = TaskID(job: job, pass: step, tile: tile, attempt: 0)
        let sample = Frame((0..<60).map { Float(tile * 100 + $0) }, as: element)
        return (
            FarmTask(
                id: id, model: model.manifest.digest, task: TileTask(operation, sources: [.frame, pixels])),
            pixels == .frame ? [sample, Frame(zeros: 12)] : [sample]
        )
    }

    func send(_ task: (task: FarmTask, inputs: [Frame]), to peer: Peer) throws {
        try send(.task(task.task, inputs: task.inputs), to: peer)
    }
}

/// A model's files, and a denoiser that stands for it.
final class TestModel {
    let folder: URL
    let cache: URL
    let manifest: ModelManifest
    let server: ModelServer
    /// Whether workers have to fetch it.
    var isFetched = true
    /// Messages that a fetch of it takes.
    let fetches: Int

    init(bytes: Int = 2_500_000) throws {
        let base = FileManager.default.temporaryDirectory.appending(
            path: "tilefarm-test-\(UInt64.random(in: 0 ... .max))")
        folder = base.appending(path: "model")
        cache = base.appending(path: "cache")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try Data("{}".utf8).write(to: folder.appending(path: "config.json"))
        try Data((0..<bytes).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }).write(
            to: folder.appending(path: "weights.safetensors"))
        manifest = try ModelManifest.of(folder: folder, files: ["config.json", "weights.safetensors"])
        server = try ModelServer(folder: folder, manifest: manifest)
        fetches = 1 + (bytes + WireLimits.chunkBytes - 1) / WireLimits.chunkBytes
    }

    deinit {
        try? FileManager.default.removeItem(at: folder.deletingLastPathComponent())
    }

    func preparation(_ precision: Precision = .float32) -> CoordinatorMessage {
        .prepare(Preparation(manifest: manifest, precision: precision))
    }
}

/// Holds lanes at a gate, to have tasks running for as long as a test wants.
final class Gate: Sendable {
    private let open = DispatchSemaphore(value: 0)
    private let entered = DispatchSemaphore(value: 0)

    func pass() {
        entered.signal()
        open.wait()
    }

    func waitUntilEntered() throws {
        guard entered.wait(timeout: .now() + 20) == .success else { throw Late() }
    }

    func release(_ count: Int) { for _ in 0..<count { open.signal() } }
}

/// A model that adds one to the sample, and to the first of the low-resolution pixels where those are a blob.
final class AddingModel: TaskPerformer {
    private let gate: Gate?
    /// Times that it was told to let go of what it holds.
    let releases = Atomic<Int>(0)

    init(gate: Gate? = nil) { self.gate = gate }

    func perform(_ task: FarmTask, _ tensors: any TaskTensors, workspace: Workspace) throws -> String? {
        gate?.pass()
        guard let operation = task.task.operation as? DenoisePixels, operation.tile.step != 13 else {
            throw Misfortune()
        }
        var values = [Float](repeating: 0, count: operation.tile.sampleSlot.count)
        var span = values.mutableSpan
        try tensors.tensor(0).read(operation.tile.element, from: 0, into: &span)
        var more: Float = 1
        if case .blob = tensors.source(1) { more += try tensors.tensor(1).floats[0] }
        let answer = values.map { $0 + more }
        try tensors.write(0) { write in write(answer.span, 0) }
        return operation.tile.step == 7 ? "the seventh step" : nil
    }

    func release() { releases.wrappingAdd(1, ordering: .relaxed) }

    struct Misfortune: Error, CustomStringConvertible {
        var description: String { "the thirteenth step" }
    }
}

/// Models that a worker has loaded, in order.
final class Loads: Sendable {
    let models = Mutex<[(folder: String, precision: Precision, model: AddingModel)]>([])

    var count: Int { models.withLock { $0.count } }
}

/// A worker's loop on a thread of the test's process, with a model that adds one.
final class Hand: Sendable {
    let link: FarmLink
    let loads = Loads()
    private let ending = Mutex<WorkerEnding?>(nil)
    private let over = DispatchSemaphore(value: 0)

    enum Source { case cache, folder(URL), loaded }

    init(
        _ endpoint: Endpoint, _ model: TestModel, lanes: Int = 1, gate: Gate? = nil, source: Source = .cache,
        local: Bool = false, keys: WorkerKeys? = nil, blobBytes: Int = 1 << 20
    ) throws {
        let loads = loads
        let load: ModelSource.Load = { folder, precision in
            guard FileManager.default.fileExists(atPath: folder.appending(path: "config.json").path) else {
                throw AddingModel.Misfortune()
            }
            let model = AddingModel(gate: gate)
            loads.models.withLock { $0.append((folder.lastPathComponent, precision, model)) }
            return model
        }
        let origin: ModelSource =
            switch source {
            case .cache: .store(ModelStore(folder: model.cache), load: load)
            case .folder(let folder): .folder(folder, load: load)
            case .loaded: .loaded(AddingModel(gate: gate))
            }
        var settings = WorkerSettings(endpoint: endpoint, name: "hand", lanes: lanes, kernels: "test", model: origin)
        settings.heartbeatMilliseconds = 20
        settings.parent = local ? getppid() : nil
        settings.keys = keys
        settings.blobBytes = blobBytes
        settings.words = Wording.words(for:)
        link = try FarmLink(settings, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        _ = try OSThread(name: "hand") { [self] in
            let reason = link.run()
            ending.withLock { $0 = reason }
            over.signal()
        }
    }

    @discardableResult
    func drain() throws -> WorkerEnding {
        link.drain(reason: "enough")
        return try end()
    }

    func end(seconds: Int = 20) throws -> WorkerEnding {
        guard over.wait(timeout: .now() + .seconds(seconds)) == .success, let ending = ending.withLock({ $0 }) else {
            throw Late()
        }
        return ending
    }
}

/// A server that is no coordinator and listens where one is looked for.
final class OtherServer {
    private var descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    let port: UInt16

    init() throws {
        var address = sockaddr_in(), size = socklen_t(MemoryLayout<sockaddr_in>.size),
            limit = timeval(tv_sec: 10, tv_usec: 0)
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let descriptor = descriptor
        let isBound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) == 0 && listen(descriptor, 8) == 0 && getsockname(descriptor, $0, &size) == 0
            }
        }
        try #require(isBound)
        port = UInt16(bigEndian: address.sin_port)
    }

    deinit { end() }

    /// Greets the next that comes in its own way.
    /// - Returns: whether that one left.
    func turnsAway(_ words: String) -> Bool {
        let guest = accept(descriptor, nil, nil)
        guard guest >= 0 else { return false }
        defer { close(guest) }
        var bytes = Array(words.utf8), limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(guest, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        send(guest, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        while true {
            let count = recv(guest, &bytes, bytes.count, 0)
            if count <= 0 { return count == 0 || errno == ECONNRESET }
        }
    }

    /// Nobody listens any more.
    func end() {
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }
}
