import Foundation
import Protocol
import Testing

/// Addresses that a host's name stands for, to those who listen and to those who connect.
@Suite("Addresses", .serialized) struct AddressTests {
    static let hasIPv6 = (try? RouterSocket(SocketContext(), bind: Endpoint("tcp://[::1]:*"))) != nil

    private let hello = Frame(copying: Array("hello".utf8))

    private func router(_ context: SocketContext, _ endpoint: String) throws -> RouterSocket {
        try RouterSocket(context, bind: Endpoint(endpoint), limits: .open)
    }

    private func port(_ router: RouterSocket) throws -> String {
        try String(#require(router.endpoint.split(separator: ":").last))
    }

    /// Says hello, and is answered over one connection.
    /// - Returns: the address that the router saw.
    private func greet(_ router: RouterSocket, by dealer: DealerSocket) throws -> String? {
        try dealer.deliver([hello])
        let first = try router.next()
        #expect(first.frames == [hello])
        for _ in 0..<20 {
            try dealer.deliver([hello])
            #expect(try router.next().peer == first.peer, "messages come over several connections")
        }
        #expect(try router.send([hello], to: first.peer) == .sent)
        #expect(try dealer.next() == [hello])
        return first.address
    }

    @Test(
        "a name reaches whoever listens at any of its addresses, over one connection at a time",
        .enabled(if: hasIPv6, "this machine has no IPv6"),
        arguments: [
            ("tcp://[::1]:*", "localhost", "::1"), ("tcp://127.0.0.1:*", "localhost", "127.0.0.1"),
            ("tcp://localhost:*", "localhost", "127.0.0.1"),
        ])
    func connectsByName(bind: String, host: String, address: String) throws {
        let context = try SocketContext()
        let router = try router(context, bind)
        let dealer = try DealerSocket(context, connect: Endpoint("tcp://\(host):\(port(router))"))
        #expect(try greet(router, by: dealer) == address)
    }

    @Test(
        "who listens at * is reached over both families, and sees plain addresses",
        .enabled(if: hasIPv6, "this machine has no IPv6"),
        arguments: [("[::1]", "::1"), ("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1")])
    func everywhere(host: String, address: String) throws {
        let context = try SocketContext()
        let router = try router(context, "tcp://*:*")
        #expect(router.endpoint == "tcp://*:\(try port(router))")
        let dealer = try DealerSocket(context, connect: Endpoint("tcp://\(host):\(port(router))"))
        #expect(try greet(router, by: dealer) == address)
    }

    @Test(
        "who listens at a name, or at an interface, is reached at each of its addresses, at one port",
        .enabled(if: hasIPv6, "this machine has no IPv6"), arguments: ["localhost", "lo"])
    func listensAtName(name: String) throws {
        let context = try SocketContext()
        let router = try router(context, "tcp://\(name):*")
        #expect(router.endpoint == "tcp://\(name):\(try port(router))")
        for (host, address) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
            let dealer = try DealerSocket(context, connect: Endpoint("tcp://\(host):\(port(router))"))
            #expect(try greet(router, by: dealer) == address)
        }
    }

    @Test(
        "who waits for a coordinator at a name finds it at any of the addresses, and again at another",
        .enabled(if: hasIPv6, "this machine has no IPv6"))
    func moves() throws {
        // A context's end waits for that of its sockets: then the port is free again.
        var first: RouterSocket? = try router(SocketContext(), "tcp://localhost:*")
        let port = try port(#require(first))
        first = nil
        let dealer = try DealerSocket(SocketContext(), connect: Endpoint("tcp://localhost:\(port)"))
        for (host, address) in [("[::1]", "::1"), ("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
            do {
                let router = try router(SocketContext(), "tcp://\(host):\(port)")
                #expect(try greet(router, by: dealer) == address)
            }
            // What is said before that is lost with the connection.
            let deadline = ContinuousClock.now + .seconds(10)
            while try dealer.event() != .lost {
                try #require(ContinuousClock.now < deadline)
                _ = try dealer.wait(nil, milliseconds: 50)
            }
        }
    }

    @Test("a name that the system has to be asked about is asked for, and one that nobody knows is tried again")
    func lookups() throws {
        let context = try SocketContext()
        // Figures that are no address as it is written; the system makes 127.0.0.1 of them.
        let router = try router(context, "tcp://127.0.0.1:*")
        let dealer = try DealerSocket(context, connect: Endpoint("tcp://127.1:\(port(router))"))
        #expect(try greet(router, by: dealer) == "127.0.0.1")
        #expect(throws: SocketError.noSuchAddress("tcp://no-such-host.invalid:5999")) {
            try self.router(SocketContext(), "tcp://no-such-host.invalid:5999")
        }
        let lost = try DealerSocket(context, connect: Endpoint("tcp://no-such-host.invalid:5999"))
        #expect(try !lost.send([hello]))
        try lost.disconnect()
        try lost.connect()
        #expect(try !lost.send([hello]))
    }

    @Test("a port that is taken at one of a name's addresses is named", .enabled(if: hasIPv6, "no IPv6"))
    func taken() throws {
        let context = try SocketContext()
        let six = try router(context, "tcp://[::1]:*")
        let port = try port(six)
        // Another context: one has one router on TCP.
        #expect(throws: SocketError.addressInUse("tcp://[::1]:\(port)")) {
            try self.router(SocketContext(), "tcp://localhost:\(port)")
        }
        _ = try self.router(SocketContext(), "tcp://127.0.0.1:\(port)")
    }
}
