import Foundation
import Protocol
import Testing

extension RawPeer {
    /// As `greet`, with a routing id of its own.
    func greet(as id: [UInt8]) {
        var greeting: [UInt8] = [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0] + Array("NULL".utf8)
        greeting += [UInt8](repeating: 0, count: 64 - greeting.count)
        func property(_ name: String, _ value: [UInt8]) -> [UInt8] {
            [UInt8(name.utf8.count)] + Array(name.utf8) + [0, 0, 0, UInt8(value.count)] + value
        }
        let ready: [UInt8] =
            [5] + Array("READY".utf8) + property("Socket-Type", Array("DEALER".utf8)) + property("Identity", id)
        say(greeting + [4, UInt8(ready.count)] + ready)
        var answer = [UInt8](repeating: 0, count: 107)
        recv(descriptor, &answer, answer.count, Int32(MSG_WAITALL))
    }
}

/// libzmq numbers a router's peers, and aborts the process when a peer has chosen the next number.
@Suite("Routing ids", .serialized) struct RoutingIDTests {
    private let hello = Frame(copying: Array("hello".utf8))

    private func number(_ peer: Peer) throws -> UInt32 {
        try #require(peer.bytes.count == 5 && peer.bytes[0] == 0)
        return peer.bytes.dropFirst().reduce(0) { $0 << 8 | UInt32($1) }
    }

    private func id(_ number: UInt32) -> [UInt8] { [0] + withUnsafeBytes(of: number.bigEndian) { Array($0) } }

    /// Says hello under an id of its own, and is heard by nobody.
    private func expectCut(_ id: [UInt8], _ router: RouterSocket) throws {
        let peer = try RawPeer(router)
        peer.greet(as: id)
        peer.say([0, 5] + Array("hello".utf8))
        let deadline = ContinuousClock.now + .seconds(10)
        var incidents: [Incident] = []
        while incidents.isEmpty {
            try #require(ContinuousClock.now < deadline)
            _ = try router.wait(nil, milliseconds: 20)
            if let received = try router.receive() { #expect(received.isOrphan) }
            incidents = router.takeIncidents()
        }
        #expect(incidents.allSatisfy { $0.what.contains("routing id") && $0.address == "127.0.0.1" }, "\(incidents)")
        #expect(peer.isCut())
    }

    @Test("a peer that chooses its routing id is cut: any name, a number that nobody has yet, one that somebody had")
    func chosen() throws {
        let context = try SocketContext()
        let router = try RouterSocket(SocketContext(), bind: Endpoint("tcp://127.0.0.1:*"), lingerMilliseconds: 0)
        func join() throws -> (dealer: DealerSocket, number: UInt32) {
            let dealer = try DealerSocket(context, connect: Endpoint(router.endpoint), lingerMilliseconds: 0)
            try dealer.deliver([hello])
            let received = try router.next()
            router.admit(received.connection, bytesInFlight: 1 << 16)
            return (dealer, try number(received.peer))
        }
        let first = try join()
        try expectCut(Array("n1".utf8), router)
        try expectCut([0, 1, 2], router)
        try expectCut(id(first.number &- 1), router)
        try expectCut(id(first.number &+ 1000), router)
        // Others are numbered on, and have lost nothing.
        let second = try join()
        #expect(second.number == first.number &+ 1)
        try first.dealer.deliver([hello])
        #expect(try number(router.next().peer) == first.number)
    }

    @Test("two hundred peers that come and go are each known by their own number")
    func numbers() throws {
        let context = try SocketContext()
        let router = try RouterSocket(SocketContext(), bind: Endpoint("tcp://127.0.0.1:*"), lingerMilliseconds: 0)
        var last: UInt32?
        for _ in 0..<200 {
            let dealer = try DealerSocket(context, connect: Endpoint(router.endpoint), lingerMilliseconds: 0)
            try dealer.deliver([hello])
            let received = try router.next()
            router.admit(received.connection, bytesInFlight: 1 << 16)
            let number = try number(received.peer)
            #expect(!received.isOrphan && last.map { number == $0 &+ 1 } ?? true)
            last = number
            withExtendedLifetime(dealer) {}
        }
        #expect(router.takeIncidents().isEmpty)
    }
}
