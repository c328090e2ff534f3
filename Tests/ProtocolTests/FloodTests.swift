import Foundation
import Protocol
import Testing

/// Connections by the thousand at one router.
@Suite("Floods of connections", .serialized) struct FloodTests {
    private let hello = Frame(copying: Array("hello".utf8))

    @Test(
        """
        connections that come and go by the thousand are told of, keep the door from nothing, and let a worker of \
        their address in
        """
    )
    func comeAndGo() throws {
        var limits = ConnectionLimits()
        limits.strangerSeconds = 1
        let router = try RouterSocket(
            SocketContext(), bind: Endpoint("tcp://127.0.0.1:*"), lingerMilliseconds: 0, limits: limits)
        let silent = try RawPeer(router)
        for round in 0..<2000 {
            let peer = try RawPeer(router)
            if round % 2 == 0 { peer.say([0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f]) }
        }
        #expect(silent.isCut())
        let dealer = try DealerSocket(SocketContext(), connect: Endpoint(router.endpoint), lingerMilliseconds: 0)
        // While its address counts as a flood's it may be cut, and say hello again.
        let deadline = ContinuousClock.now + .seconds(20)
        var heard: RouterSocket.Received?
        while heard == nil {
            try #require(ContinuousClock.now < deadline)
            _ = try dealer.send([hello])
            _ = try router.wait(nil, milliseconds: 50)
            // What a connection that was cut has left counts for nothing.
            heard = try router.receive().flatMap { $0.isOrphan ? nil : $0 }
        }
        let received = try #require(heard)
        #expect(received.frames == [hello] && received.address == "127.0.0.1")
        let incidents = router.takeIncidents()
        #expect(incidents.contains { $0.what.contains("no valid hello") && $0.address == "127.0.0.1" })
        #expect(incidents.count > 100 && incidents.allSatisfy { ["127.0.0.1", "unknown"].contains($0.address) })
    }

    /// A peer at another address of this machine, that has said hello.
    private func greet(_ router: RouterSocket, from address: UInt32) throws -> Int32 {
        let port = try #require(UInt16(router.endpoint.split(separator: ":").last ?? ""))
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        func use(_ call: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Int32, _ host: UInt32, _ port: UInt16) -> Int32
        {
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            address.sin_addr.s_addr = host.bigEndian
            return withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    call(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
        }
        try #require(use(bind, address, 0) == 0 && use(connect, 0x7f00_0001, port) == 0)
        let ready: [UInt8] =
            [5] + Array("READY".utf8) + [11] + Array("Socket-Type".utf8) + [0, 0, 0, 6] + Array("DEALER".utf8)
        let greeting: [UInt8] =
            [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0] + Array("NULL".utf8) + [UInt8](repeating: 0, count: 48)
        for bytes in [greeting + [4, UInt8(ready.count)] + ready, [0, 5] + Array("hello".utf8)] {
            try #require(send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
            // The router's own, before the first message.
            var answer = [UInt8](repeating: 0, count: 107)
            if bytes.count > 7 {
                try #require(recv(descriptor, &answer, answer.count, Int32(MSG_WAITALL)) == answer.count)
            }
        }
        return descriptor
    }

    @Test(
        """
        who fills the farm with welcomed connections that never work makes room for those who come from elsewhere; \
        workers stay
        """
    )
    func welcomedCrowd() throws {
        var limits = ConnectionLimits()
        limits.connections = 20
        let router = try RouterSocket(
            SocketContext(), bind: Endpoint("tcp://127.0.0.1:*"), lingerMilliseconds: 0, limits: limits)
        let context = try SocketContext()
        func join(isAtWork: Bool) throws -> (dealer: DealerSocket, peer: Peer) {
            let dealer = try DealerSocket(context, connect: Endpoint(router.endpoint), lingerMilliseconds: 0)
            try dealer.deliver([hello])
            let received = try router.next()
            router.admit(received.connection, bytesInFlight: 1 << 16, isAtWork: isAtWork)
            return (dealer, received.peer)
        }
        var all = [try join(isAtWork: true)]
        var crowd: [Int32] = []
        defer { for descriptor in crowd { close(descriptor) } }
        for _ in 0..<19 {
            crowd.append(try greet(router, from: 0x7f00_0002))
            router.admit(try router.next().connection, bytesInFlight: 1 << 16)
        }
        #expect(router.takeIncidents().isEmpty)
        for _ in 0..<3 { all.append(try join(isAtWork: false)) }
        let incidents = router.takeIncidents()
        #expect(
            incidents.count == 3
                && incidents.allSatisfy { $0.address == "127.0.0.2" && $0.what.contains("connections open") },
            "\(incidents)")
        for (dealer, peer) in all {
            #expect(try router.send([hello], to: peer) == .sent)
            #expect(try dealer.next() == [hello])
        }
    }

    @Test("among many connections one that sends without an end is found")
    func overlooked() throws {
        var limits = ConnectionLimits()
        (limits.strangers, limits.strangerSeconds) = (3000, 60)
        let router = try RouterSocket(
            SocketContext(), bind: Endpoint("tcp://127.0.0.1:*"), lingerMilliseconds: 0, limits: limits)
        var crowd: [RawPeer] = []
        for _ in 0..<600 { crowd.append(try RawPeer(router)) }
        let rude = try RawPeer(router)
        for _ in 0..<600 { crowd.append(try RawPeer(router)) }
        rude.greet()
        let part: [UInt8] = [3, 0, 0, 0, 0, 0, 0x10, 0, 0] + [UInt8](repeating: 1, count: 1 << 20)
        var sent = 0
        while sent < 1 << 30, rude.say(part) { sent += part.count }
        #expect(sent < 1 << 30)
        // On a busy machine the crowd's handshakes may run out of time meanwhile.
        let found = router.takeIncidents().count { $0.what.contains("no whole message") }
        #expect(found == 1)
        withExtendedLifetime(crowd) {}
    }
}
