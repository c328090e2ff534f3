internal import Glibc

/// Where a coordinator listens: `tcp://host:port`, `ipc://path` or `inproc://name`.
public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    public let description: String

    /// - Parameter text: the host may be a name, an IPv4 address, an IPv6 address in brackets, or, to listen on, `*`;
    ///   the port 1 to 65535 or, to listen on any free one, `*`.
    public init(_ text: String) throws(SocketError) {
        guard let scheme = ["tcp://", "ipc://", "inproc://"].first(where: text.hasPrefix) else {
            throw .badEndpoint(text, reason: "it does not begin with tcp://")
        }
        guard text.utf8.count <= 256, text.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            throw .badEndpoint(text, reason: "it is too long or holds blanks")
        }
        let address = text.dropFirst(scheme.count)
        guard !address.isEmpty else { throw .badEndpoint(text, reason: "nothing follows \(scheme)") }
        if scheme == "tcp://" {
            guard let colon = address.lastIndex(of: ":"), !address[..<colon].isEmpty else {
                throw .badEndpoint(text, reason: "it lacks a host or a port")
            }
            let port = address[address.index(after: colon)...]
            guard port == "*" || UInt16(port).map({ $0 > 0 }) == true else {
                throw .badEndpoint(text, reason: "the port is not a number from 1 to 65535")
            }
            let host = address[..<colon]
            guard host.hasPrefix("[") == host.hasSuffix("]"), host.hasPrefix("[") || !host.contains(":") else {
                throw .badEndpoint(text, reason: "an IPv6 address goes into brackets")
            }
        }
        description = text
    }

    var isTCP: Bool { description.hasPrefix("tcp://") }

    /// The host part of a TCP endpoint, without brackets.
    var host: Substring? {
        guard description.hasPrefix("tcp://"), let colon = description.lastIndex(of: ":") else { return nil }
        let host = description[description.index(description.startIndex, offsetBy: 6)..<colon]
        return host.hasPrefix("[") ? host.dropFirst().dropLast() : host
    }

    /// Whether only this machine reaches it: 127.0.0.0/8, ::1, localhost, and what is not TCP.
    public var isLoopback: Bool {
        guard let host else { return true }
        if isIPv4Literal { return host.hasPrefix("127.") }
        return host == "::1" || host == "localhost"
    }

    /// Whether it names one place to connect to, not `*`.
    public var isConnectable: Bool {
        guard let host else { return true }
        return host != "*" && !description.hasSuffix(":*")
    }

    /// ZeroMQ looks up IPv4 alone unless told otherwise, and told otherwise shows IPv4 addresses in IPv6 clothes.
    var wantsIPv6: Bool {
        guard let host else { return false }
        return host != "*" && !isIPv4Literal && host != "localhost"
    }

    private var isIPv4Literal: Bool {
        guard let host else { return false }
        var address = in_addr()
        return inet_pton(AF_INET, String(host), &address) == 1
    }
}
