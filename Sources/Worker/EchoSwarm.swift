import Engine
import Foundation
import Logging
import Protocol

/// Many workers that answer at once with zeros, on one thread: the load that measures a coordinator's ceiling.
///
/// Each has a connection and a session of its own and says what a worker says. One that loses its connection is gone
/// for good.
final class EchoSwarm {
    private struct Connection {
        let socket: DealerSocket
        let session: UInt64
        var hasGreeted = false
        var model: ModelDigest?
        var progress: UInt64 = 0
    }

    /// An answer and its sum.
    private struct Answer {
        let frame: Frame
        let checksum: UInt32
    }

    private let logger: Logger
    private let kernels: String
    private let lanes: Int
    private let name: String
    private var connections: [Connection] = []
    private var answers: [Int: Answer] = [:]
    private var tiles = 0
    private var lastHeard = ContinuousClock.now

    private static let beat = Duration.seconds(1)
    /// Silence of everybody after which the coordinator counts as gone.
    private static let patience = Duration.seconds(60)

    init(connections count: Int, settings: WorkerSettings, logger: Logger) throws {
        self.logger = logger
        (kernels, lanes, name) = (settings.kernels, settings.lanes, settings.name)
        let context = try SocketContext()
        DealerSocket.raiseDescriptorLimit()
        for _ in 0..<count {
            connections.append(
                Connection(
                    socket: try DealerSocket(
                        context, connect: settings.endpoint, lingerMilliseconds: 0, keys: settings.keys),
                    session: .random(in: 0 ... .max)))
        }
    }

    /// Serves one job.
    func run() throws -> WorkerEnding {
        let poll = try DescriptorPoll(try connections.map { try $0.socket.descriptor() })
        logger.info("echoing", metadata: ["connections": "\(connections.count)", "lanes": "\(lanes)"])
        var nextBeat = ContinuousClock.now
        while true {
            let ready = poll.wait(milliseconds: Int(max(.zero, nextBeat - .now) / .milliseconds(1)) + 1)
            for index in ready {
                if let ending = try serve(index) { return ending }
            }
            let now = ContinuousClock.now
            guard now >= nextBeat else { continue }
            guard now - lastHeard < Self.patience else { return .failed(reason: "nobody answers") }
            nextBeat = now + Self.beat
            for index in connections.indices {
                try keepAlive(index)
                // Sending, too, takes in what has come, and the descriptor does not tell of that again.
                if let ending = try serve(index) { return ending }
            }
        }
    }

    /// Takes what has come, until there is nothing more.
    private func serve(_ index: Int) throws -> WorkerEnding? {
        while let frames = try connections[index].socket.receive() {
            if let ending = try take(frames, index) { return ending }
        }
        // Something came that is no message: perhaps the connection.
        if !connections[index].hasGreeted { try keepAlive(index) }
        return nil
    }

    private func keepAlive(_ index: Int) throws {
        let connection = connections[index]
        if connection.model != nil {
            connections[index].progress += 1
            _ = try say(.heartbeat(Heartbeat(progress: connection.progress, running: [])), index)
        } else {
            // Where nobody answers at one of a name's addresses, the next gets its turn.
            while try connection.socket.event() != nil {}
            connections[index].hasGreeted = try say(
                .hello(
                    Hello(
                        session: connection.session, name: "\(name)-\(index)", host: Machine.name, lanes: lanes,
                        kernels: kernels,
                        memoryBytes: Machine.memoryBytes, credit: 2 * lanes, blobBytes: 1 << 30)), index)
        }
    }

    private func take(_ frames: [Frame], _ index: Int) throws -> WorkerEnding? {
        lastHeard = ContinuousClock.now
        switch try CoordinatorMessage(frames: frames) {
        case .prepare(let preparation):
            guard connections[index].model == nil else { return nil }
            connections[index].model = preparation.manifest.digest
            _ = try say(.ready(model: preparation.manifest.digest, preparation.precision), index)
        case .task(let task, _):
            let answers = task.task.operation.outputs.map { answer(of: $0.byteCount) }
            tiles += 1
            _ = try say(
                .result(
                    TaskResult(
                        task: task.id, seconds: 0, outputs: answers.map(\.frame), checksums: answers.map(\.checksum))),
                index)
        case .stop(let reason):
            logger.info("echoed", metadata: ["tiles": "\(tiles)"])
            return .stopped(reason: reason)
        case .refused(let reason):
            return .refused(reason: reason)
        case .welcome, .release, .blob, .heartbeat, .introduceYourself, .chunk:
            break
        }
        return nil
    }

    /// - Returns: false without a connection.
    private func say(_ message: WorkerMessage, _ index: Int) throws -> Bool {
        try connections[index].socket.send(try message.frames())
    }

    private func answer(of size: Int) -> Answer {
        if let known = answers[size] { return known }
        let frame = Frame(zeroBytes: size)
        let answer = Answer(frame: frame, checksum: frame.checksum(of: .bytes).crc32c)
        answers[size] = answer
        return answer
    }
}
