import Foundation
import Protocol
import Testing

@Suite("Dealer") struct DealerTests {
    @Test("a worker passes over a message of too many parts, not taking its beginning for one, and hears the next")
    func surplusParts() throws {
        let context = try SocketContext()
        let router = try RouterSocket(context, bind: Endpoint("tcp://127.0.0.1:*"), limits: .open)
        let dealer = try DealerSocket(context, connect: Endpoint(router.endpoint))
        let parts = (0..<1000).map { Frame(copying: Array("\($0)".utf8)) }
        try dealer.deliver([parts[0]])
        let peer = try router.next().peer
        for count in [WireLimits.parts + 1, 1000, WireLimits.parts] {
            #expect(try router.send(Array(parts.prefix(count)), to: peer) == .sent)
        }
        #expect(try dealer.next() == Array(parts.prefix(WireLimits.parts)))
        #expect(try dealer.receive() == nil)
    }
}
