import Foundation
import Synchronization
import Testing

/// Hosts on this machine, each in a network namespace of its own, between which packets are lost, come late, or not at
/// all: `Network/relay.py`, which also takes everything away when this is gone, or this whole process.
final class TestNetwork {
    /// A place to run programs in.
    struct Host {
        let namespace: String
        let address: String
        let ip: URL
    }

    let hosts: [Host]
    private let relay = Process()
    private let commands = Pipe(), answers = Pipe(), errors = Pipe()

    private static let ip = find("ip"), python = find("python3")

    /// Why there can be no such network here; nil where there can.
    static let missing: String? =
        geteuid() != 0
        ? "not root"
        : access("/dev/net/tun", R_OK | W_OK) != 0
            ? "no /dev/net/tun"
            : ip == nil
                ? "no program ip, of iproute2"
                : python == nil
                    ? "no python3"
                    : canMakeNamespaces ? nil : "this system lets nobody make network namespaces with TUN devices"

    /// - Parameters:
    ///   - loss: the share of packets that is lost.
    ///   - delay: seconds from one host to another.
    init(hosts count: Int, loss: Double = 0, delay: Double = 0, seed: Int = 1) throws {
        let ip = try #require(Self.ip),
            number = Self.numbers.withLock { number in
                number += 1
                return number
            }
        let name = "tilefarm-\(getpid())-\(number)"
        hosts = (0..<count).map { Host(namespace: "\(name)-\($0)", address: "10.99.7.\($0 + 1)", ip: ip) }
        relay.executableURL = Self.python
        relay.arguments = [
            URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Network/relay.py").path,
            "--name", name, "--hosts", "\(count)", "--loss", "\(loss)", "--delay", "\(delay)", "--seed", "\(seed)",
        ]
        relay.standardInput = commands
        relay.standardOutput = answers
        relay.standardError = errors
        try relay.run()
        try expect("ready")
    }

    deinit { _ = finish() }

    /// From now on these hosts reach nobody, and everybody else each other.
    func cutOff(_ hosts: Range<Int>) throws { try command("cut" + hosts.map { " \($0)" }.joined()) }

    /// From now on all hosts reach each other.
    func join() throws { try command("join") }

    /// Ends the programs and the hosts; packets that were carried and lost, nil when this was done before.
    @discardableResult
    func finish() -> (carried: Int, lost: Int)? {
        guard relay.isRunning else { return nil }
        try? commands.fileHandleForWriting.write(contentsOf: Data("end\n".utf8))
        let words = answer()?.split(separator: " ") ?? []
        relay.waitUntilExit()
        guard words.count == 4, let carried = Int(words[1]), let lost = Int(words[3]) else { return nil }
        return (carried, lost)
    }

    private func command(_ line: String) throws {
        try commands.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8))
        try expect(line)
    }

    private func expect(_ line: String) throws {
        let answer = answer()
        guard answer == line else {
            let reason =
                answer == nil ? String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self) : ""
            throw Failure(description: "the network says \(answer ?? "nothing") to \(line): \(reason)")
        }
    }

    /// The relay's next line, nil at its end. It writes one at a time and waits for us.
    private func answer() -> String? {
        var line = Data()
        while line.last != UInt8(ascii: "\n") {
            let part = answers.fileHandleForReading.availableData
            if part.isEmpty { return nil }
            line += part
        }
        return String(decoding: line.dropLast(), as: UTF8.self)
    }

    private struct Failure: Error, CustomStringConvertible { var description: String }

    private static let numbers = Mutex(0)

    private static func find(_ program: String) -> URL? {
        let path = (ProcessInfo.processInfo.environment["PATH"] ?? "") + ":/usr/sbin:/sbin:/usr/bin"
        return path.split(separator: ":").map { URL(filePath: "\($0)/\(program)") }.first {
            FileManager.default.isExecutableFile(atPath: $0.path)
        }
    }

    /// Root in a container may lack the right.
    private static var canMakeNamespaces: Bool { (try? TestNetwork(hosts: 1)) != nil }
}
