internal import Glibc

/// Where a coordinator listens: `tcp://host:port`, `ipc://path` or `inproc://name`.
public struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    public let description: String

    /// - Parameter text: the host may be a name, which means every address that it has, an IPv4 address, an IPv6
    ///   address in brackets, or, to listen on, an interface's name or `*`, which means all of both families; the port
    ///   1 to 65535 or, to listen on any free one, `*`.
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
        if isIPv4Address { return host.hasPrefix("127.") }
        return isLocalhost || Self.bytes(host, AF_INET6) == [UInt8](repeating: 0, count: 15) + [1]
    }

    /// Whether it names one place to connect to, not `*`.
    public var isConnectable: Bool {
        guard let host else { return true }
        return host != "*" && !description.hasSuffix(":*")
    }

    /// Whether libzmq has to be told of IPv6 before it is given the address: without that it knows IPv4 alone. With it,
    /// `*` is every address of both families, or of IPv4 where the system has no other.
    var wantsIPv6: Bool { host.map { $0 == "*" || $0.contains(":") } ?? false }

    /// Whether the host is an address in figures.
    var isAddress: Bool { isIPv4Address || host?.contains(":") == true }

    var isLocalhost: Bool { host?.lowercased() == "localhost" }

    private var isIPv4Address: Bool { host.map { Self.bytes($0, AF_INET) != nil } ?? false }

    /// The bytes of an address in figures.
    private static func bytes(_ text: Substring, _ family: Int32) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: family == AF_INET ? 4 : 16)
        return inet_pton(family, String(text), &bytes) == 1 ? bytes : nil
    }

    /// An IPv4 address as it is written, where a listener for both families has it in the clothes of the other.
    static func plain(_ address: String) -> String {
        address.hasPrefix("::ffff:") && address.contains(".") ? String(address.dropFirst(7)) : address
    }
}
