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
    /// Blobs that it was sent, which many tasks read.
    var blobs: BlobLedger

    init(
        number: Int, peer: Peer, connection: ConnectionID?, hello: Hello, name: String, user: String?,
        lastHeard: Double, bytesSent: Int
    ) {
        (self.number, self.peer, self.connection, self.hello) = (number, peer, connection, hello)
        (self.name, self.user, self.lastHeard, self.bytesSent) = (name, user, lastHeard, bytesSent)
        blobs = BlobLedger(capacity: hello.blobBytes)
    }

    /// Notes a tile that took it so long.
    func add(tile seconds: Double) {
        smoothedSeconds = tiles == 0 ? seconds : smoothedSeconds * 0.9 + seconds * 0.1
        tiles += 1
    }
}

/// The workers that are here, by all that they are asked for by: thousands of them join within seconds. No number is
/// given twice.
struct WorkerRoster {
    private struct Session: Hashable {
        let session: UInt64
        let user: String?
    }

    private var workers: [Int: WorkerPeer] = [:]
    private var byPeer: [Peer: WorkerPeer] = [:]
    private var bySession: [Session: WorkerPeer] = [:]
    private var names: Set<String> = []
    /// Names of those that have left, while it is still spoken of them.
    private var departed: [Int: String] = [:]
    private var nextNumber = 0

    subscript(number: Int) -> WorkerPeer? { workers[number] }
    subscript(peer: Peer) -> WorkerPeer? { byPeer[peer] }

    /// In the order in which they came.
    var all: [WorkerPeer] { workers.values.sorted { $0.number < $1.number } }

    func worker(session: UInt64, user: String?) -> WorkerPeer? { bySession[Session(session: session, user: user)] }

    func name(_ number: Int) -> String { workers[number]?.name ?? departed[number] ?? "worker \(number)" }

    /// The name of the one that takes longest for a tile.
    var slowest: String? {
        workers.values.filter { $0.tiles > 0 }.max { $0.smoothedSeconds < $1.smoothedSeconds }?.name
    }

    /// - Parameters:
    ///   - user: what the allow-list calls it: with keys nobody chooses a name
    ///   - bytesSent: over its connection, in a session before
    /// - Returns: its number.
    mutating func add(
        _ hello: Hello, peer: Peer, connection: ConnectionID?, user: String?, bytesSent: Int, at now: Double
    ) -> Int {
        defer { nextNumber += 1 }
        let wanted = user ?? hello.name, name = names.contains(wanted) ? "\(wanted)#\(nextNumber)" : wanted
        let worker = WorkerPeer(
            number: nextNumber, peer: peer, connection: connection, hello: hello, name: name, user: user,
            lastHeard: now, bytesSent: bytesSent)
        (workers[nextNumber], byPeer[peer], bySession[Session(session: hello.session, user: user)]) = (
            worker, worker, worker
        )
        names.insert(name)
        return nextNumber
    }

    mutating func remove(_ number: Int) -> WorkerPeer? {
        guard let worker = workers.removeValue(forKey: number) else { return nil }
        (byPeer[worker.peer], bySession[Session(session: worker.hello.session, user: worker.user)]) = (nil, nil)
        names.remove(worker.name)
        departed[number] = worker.name
        return worker
    }

    mutating func forgetDeparted() { departed = [:] }
}
