import Protocol

/// A worker that has said hello.
final class WorkerPeer {
    let number: Int
    let peer: Peer
    let connection: ConnectionID?
    let hello: Hello
    let name: String
    /// The allow-list's name for its key; several processes may have one.
    let user: String?
    var isReady = false
    /// Why it leaves, once it has said so.
    var leaving: String?
    var lastHeard: Double
    var tiles = 0
    var smoothedSeconds = 0.0
    /// Over its connection.
    var bytesSent: Int

    init(number: Int, peer: Peer, connection: ConnectionID?, hello: Hello, name: String, user: String?, lastHeard: Double, bytesSent: Int) {
        (self.number, self.peer, self.connection, self.hello) = (number, peer, connection, hello)
        (self.name, self.user, self.lastHeard, self.bytesSent) = (name, user, lastHeard, bytesSent)
    }

    /// Notes a tile that took it so long.
    func add(tile seconds: Double) {
        smoothedSeconds = tiles == 0 ? seconds : smoothedSeconds * 0.9 + seconds * 0.1
        tiles += 1
    }
}

/// The workers that are here, by their numbers and by their peers. No number is given twice.
struct WorkerRoster {
    private var workers: [Int: WorkerPeer] = [:]
    private var byPeer: [Peer: WorkerPeer] = [:]
    private var nextNumber = 0

    subscript(number: Int) -> WorkerPeer? { workers[number] }
    subscript(peer: Peer) -> WorkerPeer? { byPeer[peer] }

    /// In the order in which they came.
    var all: [WorkerPeer] { workers.values.sorted { $0.number < $1.number } }

    func first(session: UInt64, user: String?) -> WorkerPeer? { workers.values.first { $0.hello.session == session && $0.user == user } }

    func contains(where condition: (WorkerPeer) -> Bool) -> Bool { workers.values.contains(where: condition) }

    func name(_ number: Int) -> String { workers[number]?.name ?? "worker \(number)" }

    /// The name of the one that takes longest for a tile.
    var slowest: String? { workers.values.filter { $0.tiles > 0 }.max { $0.smoothedSeconds < $1.smoothedSeconds }?.name }

    /// - Parameters:
    ///   - user: what the allow-list calls it: with keys nobody chooses a name
    ///   - bytesSent: over its connection, in a session before
    /// - Returns: its number.
    mutating func add(_ hello: Hello, peer: Peer, connection: ConnectionID?, user: String?, bytesSent: Int, at now: Double) -> Int {
        defer { nextNumber += 1 }
        let name = user ?? hello.name, isTaken = contains { $0.name == name }
        let worker = WorkerPeer(
            number: nextNumber, peer: peer, connection: connection, hello: hello, name: isTaken ? "\(name)#\(nextNumber)" : name, user: user, lastHeard: now,
            bytesSent: bytesSent)
        (workers[nextNumber], byPeer[peer]) = (worker, worker)
        return nextNumber
    }

    mutating func remove(_ number: Int) -> WorkerPeer? {
        guard let worker = workers.removeValue(forKey: number) else { return nil }
        byPeer[worker.peer] = nil
        return worker
    }
}
