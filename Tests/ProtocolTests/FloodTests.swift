import Foundation
import Protocol
import Testing

/// Connections by the thousand at one router.
@Suite("Floods of connections", .serialized, .timeLimit(.minutes(1))) struct FloodTests {
    private let hello = Frame(copying: Array("hello".utf8))

    @Test("connections that come and go by the thousand are told of, keep the door from nothing, and let a worker of their address in")
    func comeAndGo() throws {
        var limits = ConnectionLimits()
        limits.strangerSeconds = 1
        let router = try RouterSocket(SocketContext(), bind: Endpoint("tcp://127.0.0.1:*"), lingerMilliseconds: 0, limits: limits)
        let silent = try RawPeer(router)
        for round in 0..<2000 {
            let peer = try RawPeer(router)
            if round % 2 == 0 { peer.say([0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f]) }
        }
        #expect(silent.isCut())
        let dealer = try DealerSocket(SocketContext(), connect: Endpoint(router.endpoint), lingerMilliseconds: 0)
        try dealer.deliver([hello])
        let received = try router.next()
        #expect(received.frames == [hello] && received.address == "127.0.0.1" && !received.isOrphan)
        let incidents = router.takeIncidents()
        #expect(incidents.contains { $0.what.contains("no valid hello") && $0.address == "127.0.0.1" })
        #expect(incidents.count > 100 && incidents.allSatisfy { ["127.0.0.1", "unknown"].contains($0.address) })
    }
}
