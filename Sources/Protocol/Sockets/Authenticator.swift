internal import CZeroMQ
internal import Glibc

/// Answers libzmq's question whether a peer may come in (ZAP, rfc.zeromq.org/spec/27). CURVE by itself lets every key
/// in, so it is bound before any router is, and routers insist on it. It belongs to one thread at a time.
final class Authenticator {
    static let endpoint = "inproc://zeromq.zap.01"
    static let domain = "tilefarm"
    /// ZMQ_ZAP_ENFORCE_DOMAIN, which zmq.h shows only among drafts.
    static let enforceDomain: Int32 = 93

    private let socket: Socket
    private var keys: CoordinatorKeys?
    private var stamp: Stamp?
    private var nextLook = ContinuousClock.now

    /// Facts of a file that change when it is changed.
    private struct Stamp: Equatable {
        var seconds: Int
        var nanoseconds: Int
        var bytes: Int64
        var inode: UInt64
    }

    init(_ context: SocketContext, keys: CoordinatorKeys?) throws(SocketError) {
        self.keys = keys
        socket = try Socket(context, type: ZMQ_REP, maximumFrameBytes: 4096, lingerMilliseconds: 0)
        try socket.bind(Endpoint(Self.endpoint))
        // No stamp yet: what was changed since the keys were read is seen at the first question.
    }

    /// Waits for a question, for `wakeup`, for the descriptor, or until the time is over.
    func wait(_ wakeup: Wakeup, _ descriptor: Int32, milliseconds: Int) {
        do { _ = try socket.wait(wakeup, milliseconds: milliseconds, writable: false, descriptors: [descriptor]) } catch
        {
            usleep(10_000)
        }
    }

    /// Answers what was asked.
    /// - Returns: who was turned away; and the users on the allow-list, when that has changed.
    func serve() -> (incidents: [Incident], allowed: Set<String>?) {
        var incidents: [Incident] = []
        var allowed: Set<String>?
        let now = ContinuousClock.now
        var isFresh = false
        if now >= nextLook {
            nextLook = now + .seconds(1)
            allowed = reread(&incidents)
            isFresh = true
        }
        while let (parts, _) = try? socket.receive(limit: 7) {
            if !isFresh {
                allowed = reread(&incidents) ?? allowed
                isFresh = true
            }
            answer(parts, &incidents)
        }
        return (incidents, allowed)
    }

    /// Parts of a question: version, request, domain, address, routing id, mechanism, credentials.
    private func answer(_ parts: [Frame], _ incidents: inout [Incident]) {
        func text(_ index: Int) -> String {
            index < parts.count ? parts[index].withBytes { String(decoding: $0, as: UTF8.self) } : ""
        }
        var (user, code) = ("", "400")
        switch text(5) {
        case "CURVE":
            guard let keys, parts.count == 7, let key = parts[6].withBytes({ PublicKey(bytes: $0) }) else { break }
            if let name = keys.workers[key] {
                (user, code) = (Self.user(name, key), "200")
            } else {
                incidents.append(
                    Incident(
                        address: Endpoint.plain(text(3)),
                        what:
                            """
                            has a key that is not on the allow-list; to let it in, add to \(keys.path): allow NAME \
                            \(key)
                            """
                    ))
            }
        case "NULL" where keys == nil:
            code = "200"
        default: break
        }
        let reply = ["1.0", text(1), code, code == "200" ? "OK" : "not on the allow-list", user, ""].map {
            Frame(copying: Array($0.utf8))
        }
        for index in reply.indices where socket.send(reply[index], more: index + 1 < reply.count) != 0 { return }
    }

    /// The identity of a connection: a key that takes another's name is somebody else. Names have no blanks.
    static func user(_ name: String, _ key: PublicKey) -> String { "\(name) \(key)" }

    /// The name of a user.
    static func name(ofUser user: String) -> String { String(user.prefix { $0 != " " }) }

    /// - Returns: the users on the allow-list, when the file was changed and is still whole.
    private func reread(_ incidents: inout [Incident]) -> Set<String>? {
        guard let keys, let new = look(), new != stamp else { return nil }
        stamp = new
        do {
            let read = try CoordinatorKeys(path: keys.path)
            self.keys = CoordinatorKeys(path: keys.path, pair: keys.pair, workers: read.workers)
            return Set(read.workers.map { Self.user($0.value, $0.key) })
        } catch {
            incidents.append(Incident(address: "allow-list", what: "the allow-list stays as it was: \(error)"))
            return nil
        }
    }

    private func look() -> Stamp? {
        var status = stat()
        guard let keys, stat(keys.path, &status) == 0 else { return nil }
        return Stamp(
            seconds: status.st_mtim.tv_sec, nanoseconds: status.st_mtim.tv_nsec, bytes: Int64(status.st_size),
            inode: UInt64(status.st_ino))
    }
}
