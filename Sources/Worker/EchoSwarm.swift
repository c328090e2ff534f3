import Engine
import Foundation
import Logging
import Protocol

/// Many workers that answer at once with zeros, on one thread: the load that measures a coordinator's ceiling.
///
/// Each has a connection and a session of its own and says what a worker says. One that loses its connection is gone for good.
final class EchoSwarm {
    private struct Connection {
        let socket: DealerSocket
        let session: UInt64
        var job: ModelDigest?
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

    private static let beat = Duration.seconds(1)
    /// Silence of everybody after which the coordinator counts as gone.
    private static let patience = Duration.seconds(60)

    init(connections count: Int, settings: WorkerSettings, logger: Logger) throws {
        self.logger = logger
        (kernels, lanes, name) = (settings.kernels, settings.lanes, settings.name)
        let context = try SocketContext()
        DealerSocket.raiseDescriptorLimit()
        for _ in 0..<count {
            connections.append(Connection(
                socket: try DealerSocket(context, connect: settings.endpoint, lingerMilliseconds: 0), session: .random(in: 0 ... .max)))
        }
    }

    /// Serves one job.
    func run() throws -> WorkerEnding {
        let poll = try DescriptorPoll(try connections.map { try $0.socket.descriptor() })
        logger.info("echoing", metadata: ["connections": "\(connections.count)", "lanes": "\(lanes)"])
        var nextBeat = ContinuousClock.now
        var lastHeard = ContinuousClock.now
        while true {
            let ready = poll.wait(milliseconds: Int(max(.zero, nextBeat - .now) / .milliseconds(1)) + 1)
            for index in ready {
                // Until there is nothing more, or the descriptor stays silent.
                while let frames = try connections[index].socket.receive() {
                    if let ending = try take(frames, index) { return ending }
                }
            }
            let now = ContinuousClock.now
            if !ready.isEmpty { lastHeard = now }
            guard now >= nextBeat else { continue }
            guard now - lastHeard < Self.patience else { return .failed(reason: "nobody answers") }
            nextBeat = now + Self.beat
            for index in connections.indices { try keepAlive(index) }
        }
    }

    private func keepAlive(_ index: Int) throws {
        let connection = connections[index]
        if connection.job != nil {
            connections[index].progress += 1
            try say(.heartbeat(Heartbeat(progress: connection.progress, running: [])), index)
        } else {
            try say(
                .hello(Hello(
                    session: connection.session, name: "\(name)-\(index)", host: Machine.name, lanes: lanes, kernels: kernels,
                    memoryBytes: Machine.memoryBytes)), index)
        }
        // What a send has read of the wire, the descriptor does not tell of again.
        while let frames = try connections[index].socket.receive() { _ = try take(frames, index) }
    }

    private func take(_ frames: [Frame], _ index: Int) throws -> WorkerEnding? {
        switch try CoordinatorMessage(frames: frames) {
        case .welcome(let welcome):
            guard connections[index].job == nil else { return nil }
            connections[index].job = welcome.manifest.digest
            try say(.ready(credit: 2 * lanes, model: welcome.manifest.digest), index)
        case .task(let task, _):
            let answer = answer(to: task.work)
            tiles += 1
            try say(.result(task.id, seconds: 0, answer.frame, checksum: answer.checksum, note: nil), index)
        case .stop(let reason):
            logger.info("echoed", metadata: ["tiles": "\(tiles)"])
            return .stopped(reason: reason)
        case .refused(let reason):
            return .refused(reason: reason)
        case .heartbeat, .introduceYourself, .chunk:
            break
        }
        return nil
    }

    private func say(_ message: WorkerMessage, _ index: Int) throws {
        // Without a connection there is nobody to tell.
        _ = try connections[index].socket.send(try message.frames())
    }

    private func answer(to work: Work) -> Answer {
        let size = work.answerByteCount
        if let known = answers[size] { return known }
        let frame = Frame(zeros: size / 4)
        let answer = Answer(frame: frame, checksum: frame.checksum(of: .bytes).crc32c)
        answers[size] = answer
        return answer
    }
}
