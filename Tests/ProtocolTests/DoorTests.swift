import Foundation
import Protocol
import Synchronization
import Testing

/// A connection without ZeroMQ: says what it is told to, byte by byte. No wait on it is longer than ten seconds.
final class RawPeer {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)

    init(_ router: RouterSocket) throws {
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        let port = try #require(UInt16(router.endpoint.split(separator: ":").last ?? ""))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(connected == 0)
    }

    deinit { close(descriptor) }

    /// False when the connection is gone.
    @discardableResult
    func say(_ bytes: [UInt8]) -> Bool {
        var from = 0
        while from < bytes.count {
            let sent = bytes.withUnsafeBytes {
                send(descriptor, $0.baseAddress?.advanced(by: from), bytes.count - from, Int32(MSG_NOSIGNAL))
            }
            guard sent > 0 else { return false }
            from += sent
        }
        return true
    }

    /// Greeting and READY of ZMTP 3.0 without keys, as a DEALER.
    func greet() {
        var bytes: [UInt8] = [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0] + Array("NULL".utf8)
        bytes += [UInt8](repeating: 0, count: 64 - bytes.count)
        let body: [UInt8] =
            [5] + Array("READY".utf8) + [11] + Array("Socket-Type".utf8) + [0, 0, 0, 6] + Array("DEALER".utf8)
        say(bytes + [4, UInt8(body.count)] + body)
        // The router's greeting and READY: what came before them would be out of turn.
        var answer = [UInt8](repeating: 0, count: 107)
        recv(descriptor, &answer, answer.count, Int32(MSG_WAITALL))
    }

    /// Ends the connection; nothing can be said after that.
    func hangUp() { shutdown(descriptor, Int32(SHUT_RDWR)) }

    /// Waits until the other side has ended the connection.
    func isCut() -> Bool {
        var bytes = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = recv(descriptor, &bytes, bytes.count, 0)
            if count == 0 { return true }
            if count < 0 { return errno != EAGAIN }
        }
    }
}

/// Who comes in over TCP, and how much of the router strangers can hold.
@Suite(.serialized) struct DoorTests {
    let folder: KeyTests.Folder
    let context: SocketContext

    init() throws {
        folder = try KeyTests.Folder()
        context = try SocketContext()
        try CoordinatorKeys.make(path: folder.path("farm"))
        try WorkerKeys.make(path: folder.path("n1"), name: "n1", for: folder.path("farm"))
    }

    private func router(keys: Bool = false, _ limits: ConnectionLimits = ConnectionLimits()) throws -> RouterSocket {
        try RouterSocket(
            SocketContext(), bind: Endpoint("tcp://127.0.0.1:*"), maximumFrameBytes: 1 << 20, lingerMilliseconds: 0,
            keys: keys ? CoordinatorKeys(path: folder.path("farm")) : nil, limits: limits)
    }

    private func dealer(_ router: RouterSocket, _ keys: String? = nil) throws -> DealerSocket {
        try DealerSocket(
            context, connect: Endpoint(router.endpoint), lingerMilliseconds: 0,
            keys: keys.map { try WorkerKeys(path: folder.path($0)) })
    }

    private let hello = Frame(copying: Array("hello".utf8))

    /// Incidents as they come, until one is as wanted.
    private func incident(_ router: RouterSocket, seconds: Int = 10, _ wanted: (Incident) -> Bool) throws -> Incident {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < deadline {
            if let found = router.takeIncidents().first(where: wanted) { return found }
            _ = try router.wait(nil, milliseconds: 20)
            _ = try router.receive()
        }
        throw Late()
    }

    private func refusal(_ dealer: DealerSocket) throws -> HandshakeFailure {
        let deadline = ContinuousClock.now + .seconds(10)
        while ContinuousClock.now < deadline {
            if case .refused(let failure)? = try dealer.event() { return failure }
            _ = try dealer.wait(nil, milliseconds: 50)
        }
        throw Late()
    }

    @Test("a listed key comes in under the name that the list has for it, and both sides may talk")
    func listed() throws {
        let router = try router(keys: true)
        let dealer = try dealer(router, "n1")
        try dealer.deliver([hello, Frame(zeros: 100_000)])
        let received = try router.next()
        #expect(
            received.user == "n1" && received.address == "127.0.0.1" && received.connection != nil
                && received.frames == [hello, Frame(zeros: 100_000)])
        #expect(try router.send([hello], to: received.peer) == .sent)
        #expect(try dealer.next() == [hello])
    }

    @Test("an unlisted key, another coordinator's key, and no key are refused, and each side is told why")
    func unlisted() throws {
        try CoordinatorKeys.make(path: folder.path("other"))
        try WorkerKeys.make(path: folder.path("wrong"), name: "n1", for: folder.path("other"))
        let farm = try CoordinatorKeys(path: folder.path("farm"))
        let wrong = try folder.text("wrong").split(separator: "\n")
        try folder.write(
            "unlisted",
            wrong.map { $0.hasPrefix("coordinator") ? "coordinator \(farm.pair.publicKey)" : String($0) }.joined(
                separator: "\n"))
        let router = try router(keys: true)

        let unlisted = try dealer(router, "unlisted")
        #expect(try refusal(unlisted) == .denied(400))
        let key = try WorkerKeys(path: folder.path("unlisted")).pair.publicKey
        #expect(
            try incident(router) { $0.what.contains("\(key)") && $0.what.contains("allow-list") }.address == "127.0.0.1"
        )

        let stranger = try dealer(router, "wrong")
        #expect(try [.closed, .cryptographic].contains(refusal(stranger)))
        _ = try incident(router) { $0.what.contains("another coordinator's key") }

        let naked = try dealer(router)
        #expect(try [.closed, .otherMechanism].contains(refusal(naked)))
        for refused in [unlisted, stranger, naked] { #expect(try !refused.send([hello])) }
        #expect(try router.receive() == nil)
    }

    @Test("a key that is added to the file while the router runs comes in, and one that is taken out is cut off")
    func changedList() throws {
        let router = try router(keys: true)
        try WorkerKeys.make(path: folder.path("late"), name: "late", for: folder.path("farm"))
        let late = try dealer(router, "late")
        try late.deliver([hello])
        let received = try router.next()
        #expect(received.user == "late")
        router.admit(received.connection, bytesInFlight: 1 << 20)
        let lines = try folder.text("farm").split(separator: "\n").filter { !$0.hasPrefix("allow late") }
        try folder.write("farm", lines.joined(separator: "\n"))
        _ = try incident(router) { $0.what.contains("late") && $0.what.contains("taken off") }
        #expect(try refusal(late) == .denied(400))
        // A list that cannot be read changes nothing.
        try folder.write("farm", lines.joined(separator: "\n") + "\nallow nonsense\n")
        _ = try incident(router) { $0.what.contains("stays as it was") }
        try dealer(router, "n1").deliver([hello])
        #expect(try router.next().user == "n1")
    }

    @Test("a key that takes another's name in the file is somebody else: who had the name is cut off")
    func replacedKey() throws {
        let router = try router(keys: true)
        let former = try dealer(router, "n1")
        try former.deliver([hello])
        #expect(try router.next().user == "n1")
        try WorkerKeys.make(path: folder.path("new"), name: "new", for: folder.path("farm"))
        let lines = try folder.text("farm").split(separator: "\n").filter { !$0.hasPrefix("allow n1 ") }.map {
            $0.replacing("allow new ", with: "allow n1 ")
        }
        try folder.write("farm", lines.joined(separator: "\n"))
        _ = try incident(router) { $0.what.contains("n1") && $0.what.contains("taken off") }
        #expect(try refusal(former) == .denied(400))
        try dealer(router, "new").deliver([hello])
        #expect(try router.next().user == "n1")
    }

    @Test("connections that say nothing are cut in time, those that were admitted stay")
    func heldOpen() throws {
        var limits = ConnectionLimits()
        limits.strangerSeconds = 0.5
        let router = try router(limits)
        let good = try dealer(router)
        try good.deliver([hello])
        let admitted = try router.next()
        router.admit(admitted.connection, bytesInFlight: 1 << 16)
        let silent = try (0..<50).map { _ in try RawPeer(router) }
        for (index, peer) in silent.enumerated() where index % 2 == 0 { peer.greet() }
        for peer in silent { #expect(peer.isCut()) }
        _ = try incident(router) { $0.what.contains("no valid hello") }
        #expect(try router.send([hello], to: admitted.peer) == .sent)
        #expect(try good.next() == [hello])
    }

    @Test("who holds many connections stands in nobody's way: the oldest strangers go")
    func crowd() throws {
        var limits = ConnectionLimits()
        limits.strangers = 20
        let router = try router(limits)
        let crowd = try (0..<100).map { _ in try RawPeer(router) }
        let good = try dealer(router)
        try good.deliver([hello])
        #expect(try router.next().frames == [hello])
        for peer in crowd.prefix(60) { #expect(peer.isCut()) }
        _ = try incident(router) { $0.what.contains("connections open") }
    }

    @Test("a message that is never finished is cut long before it has a gigabyte, also when nobody receives")
    func unfinished() throws {
        let router = try router()
        let rude = try RawPeer(router)
        rude.greet()
        let size = 1 << 20
        let part: [UInt8] = [3, 0, 0, 0, 0, 0, 0x10, 0, 0] + [UInt8](repeating: 1, count: size)
        var sent = 0
        while sent < 1 << 30, rude.say(part) { sent += part.count }
        #expect(sent < 1 << 30)
        _ = try incident(router) { $0.what.contains("no whole message") }
    }

    @Test("an admitted peer may have under way what it was granted, and no more")
    func granted() throws {
        let router = try router()
        let good = try dealer(router)
        try good.deliver([hello])
        router.admit(try router.next().connection, bytesInFlight: 9 << 20)
        for _ in 0..<8 { try good.deliver([hello, Frame(copying: [UInt8](repeating: 0, count: 1 << 20))]) }
        for _ in 0..<8 { #expect(try router.next().frames.count == 2) }
        // What was received counts no more.
        for _ in 0..<8 { try good.deliver([hello, Frame(copying: [UInt8](repeating: 0, count: 1 << 20))]) }
        for _ in 0..<8 { #expect(try router.next().frames.count == 2) }
        #expect(router.takeIncidents().isEmpty)
        // Nobody receives, and it sends on.
        let deadline = ContinuousClock.now + .seconds(20)
        while router.takeIncidents().isEmpty {
            try #require(ContinuousClock.now < deadline)
            _ = try good.send([hello, Frame(copying: [UInt8](repeating: 0, count: 1 << 20))])
        }
    }

    @Test("useless messages end a stranger's connection soon, and the next one sooner; an admitted peer's later")
    func nuisances() throws {
        let router = try router()
        func tolerated(admitted: Bool, isAtWork: Bool = false) throws -> Int {
            let peer = try dealer(router)
            try peer.deliver([hello])
            let connection = try router.next().connection
            if admitted { router.admit(connection, bytesInFlight: 1 << 16, isAtWork: isAtWork) }
            var count = 0
            while router.takeIncidents().isEmpty, count < 10_000 {
                router.nuisance(connection, "rubbish")
                count += 1
            }
            return count
        }
        #expect((50...60).contains(try tolerated(admitted: false)))
        #expect(try tolerated(admitted: false) < 50)
        #expect((50...60).contains(try tolerated(admitted: true)))
        #expect((1000...1100).contains(try tolerated(admitted: true, isAtWork: true)))
    }

    @Test("a thousand workers that come at once all come in")
    func thousand() throws {
        let router = try router(keys: true)
        let dealers = try (0..<1000).map { _ in try dealer(router, "n1") }
        var waiting = Set(dealers.indices)
        var peers: Set<Peer> = []
        let deadline = ContinuousClock.now + .seconds(60)
        while peers.count < 1000 {
            try #require(ContinuousClock.now < deadline, "\(peers.count)")
            for index in waiting where try dealers[index].send([hello]) { waiting.remove(index) }
            _ = try router.wait(nil, milliseconds: 10)
            while let received = try router.receive() {
                router.admit(received.connection, bytesInFlight: 1 << 16)
                peers.insert(received.peer)
            }
        }
        #expect(router.takeIncidents().isEmpty)
    }

    @Test("a peer of which something arrives is not silent, whole message or not")
    func life() throws {
        let router = try router()
        let slow = try RawPeer(router)
        slow.greet()
        slow.say([0, 5] + Array("hello".utf8))
        let connection = try router.next().connection
        router.admit(connection, bytesInFlight: 1 << 20)
        let before = try #require(router.secondsSinceData(connection))
        let deadline = ContinuousClock.now + .seconds(10)
        while try #require(router.secondsSinceData(connection)) < before + 0.3 {
            try #require(ContinuousClock.now < deadline)
            _ = try router.wait(nil, milliseconds: 20)
        }
        // The beginning of a long frame, byte by byte.
        slow.say([2, 0, 0, 0, 0, 0, 0x10, 0, 0, 1])
        while try #require(router.secondsSinceData(connection)) >= before + 0.3 {
            try #require(ContinuousClock.now < deadline)
        }
        #expect(try router.receive() == nil)
    }
}
