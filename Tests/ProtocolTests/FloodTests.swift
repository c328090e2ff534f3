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
}
