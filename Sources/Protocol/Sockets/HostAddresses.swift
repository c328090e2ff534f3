internal import Glibc
import Synchronization

extension Endpoint {
    /// The port of a TCP endpoint; nil for `*`.
    private var port: UInt16? { isTCP ? UInt16(description.drop(toLast: ":")) : nil }

    /// The same host at a port; itself for nil.
    fileprivate func at(port: UInt16?) -> Endpoint {
        guard let port else { return self }
        let old = description.drop(toLast: ":")
        return (try? Endpoint(description.dropLast(old.count) + "\(port)")) ?? self
    }

    /// The same host at the port of another endpoint.
    func withPort(of other: String) -> String { at(port: UInt16(other.drop(toLast: ":"))).description }

    /// Whether the host is a name that somebody has to be asked about: neither an address, nor `*`, nor `localhost`.
    var needsLookup: Bool {
        guard let host else { return false }
        return host != "*" && !isAddress && !isLocalhost
    }

    /// The same port at every address of the host, in the order in which they should be tried; the endpoint itself
    /// where it names one. `localhost` is both loopback addresses, whatever the system's files say of it
    /// (RFC 6761, section 6.3). Waits where the host `needsLookup`.
    /// - Parameter toListen: whether the host may be a network interface of this machine
    /// - Returns: nothing for a name that nobody knows
    func addresses(toListen: Bool = false) -> [Endpoint] {
        guard let host else { return [self] }
        if isLocalhost { return ["127.0.0.1", "::1"].compactMap(at) }
        guard needsLookup else { return [self] }
        let interface = toListen ? AddressList.interface(String(host)) : []
        return (interface.isEmpty ? AddressList.host(String(host)) : interface).compactMap(at)
    }

    /// The same port at an address.
    private func at(_ address: String) -> Endpoint? {
        let host = address.contains(":") ? "[\(address)]" : address
        return try? Endpoint("tcp://\(host):\(description.drop(toLast: ":"))")
    }
}

extension String {
    /// The part after the last of these characters.
    fileprivate func drop(toLast character: Character) -> Substring {
        lastIndex(of: character).map { self[index(after: $0)...] } ?? self[...]
    }
}

/// Addresses in figures, as the C library has them.
private enum AddressList {
    /// Those of a host, best first.
    static func host(_ name: String) -> [String] {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var first: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(name, nil, &hints, &first) == 0 else { return [] }
        defer { freeaddrinfo(first) }
        return unique(sequence(first: first) { $0?.pointee.ai_next }.prefix { $0 != nil }.map { $0?.pointee.ai_addr })
    }

    /// Those of a network interface of this machine.
    static func interface(_ name: String) -> [String] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        let all = sequence(first: first) { $0?.pointee.ifa_next }.prefix { $0 != nil }.compactMap { $0?.pointee }
        return unique(all.filter { $0.ifa_name.map { String(cString: $0) } == name }.map(\.ifa_addr))
    }

    private static func unique(_ addresses: [UnsafeMutablePointer<sockaddr>?]) -> [String] {
        addresses.compactMap { $0.flatMap(text) }.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }

    private static func text(_ address: UnsafeMutablePointer<sockaddr>) -> String? {
        let length: Int
        switch Int32(address.pointee.sa_family) {
        case AF_INET: length = MemoryLayout<sockaddr_in>.size
        case AF_INET6: length = MemoryLayout<sockaddr_in6>.size
        default: return nil
        }
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(NI_MAXHOST)) { text in
            getnameinfo(
                address, socklen_t(length), text.baseAddress, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0
                ? text.baseAddress.map { String(cString: $0) } : nil
        }
    }
}

/// Looks a host's addresses up on a thread of its own: the system may take seconds to know that there are none.
final class HostLookup: Sendable {
    /// Is woken when there is an answer.
    let wakeup: Wakeup
    private let found = Mutex<[Endpoint]?>(nil)

    init(_ endpoint: Endpoint) throws(SocketError) {
        wakeup = try Wakeup()
        _ = try OSThread(name: "lookup", stackBytes: 1 << 20) { [self] in
            let addresses = endpoint.addresses()
            found.withLock { $0 = addresses }
            wakeup.wake()
        }
    }

    /// The addresses, nil while they are looked up.
    var addresses: [Endpoint]? { found.withLock { $0 } }
}

/// A port that several addresses of this machine have in common, held until this is gone: who looks for a free one gets
/// another, and a listener of libzmq's is not hindered.
final class SharedPort {
    /// Those of the addresses that this machine has, with the port.
    private(set) var endpoints: [Endpoint] = []
    private var descriptors: [Int32] = []

    /// - Parameter addresses: of `endpoint`
    /// - Throws: `SocketError` where the port is taken at one of the addresses, or none of them is this machine's.
    init(_ addresses: [Endpoint], of endpoint: Endpoint) throws(SocketError) {
        // A port that is free at the first address may be taken at another.
        for _ in 0..<100 {
            guard let (address, code) = hold(addresses) else {
                if endpoints.isEmpty { throw .noSuchAddress(endpoint.description) }
                return
            }
            release()
            guard code == EADDRINUSE, endpoint.isAtAnyPort else {
                errno = code
                throw .last("bind", endpoint: address.description)
            }
        }
        throw .addressInUse(endpoint.description)
    }

    deinit { release() }

    private func release() {
        for descriptor in descriptors { close(descriptor) }
        (descriptors, endpoints) = ([], [])
    }

    /// - Returns: what could not be held, and why; nil when all could, but for those of other machines and of a family
    ///   that this machine has not.
    private func hold(_ addresses: [Endpoint]) -> (Endpoint, code: Int32)? {
        var port: UInt16?
        for address in addresses.map({ $0.at(port: port) }) {
            let (descriptor, code) = address.hold()
            if code == EADDRNOTAVAIL || code == EAFNOSUPPORT { continue }
            guard code == 0 else { return (address, code) }
            descriptors.append(descriptor)
            port = port ?? AddressList.port(of: descriptor)
            endpoints.append(address.at(port: port))
        }
        return nil
    }
}

extension Endpoint {
    fileprivate var isAtAnyPort: Bool { isTCP && port == nil }

    /// Takes a numeric address without listening at it.
    /// - Returns: a descriptor, and 0 or `errno`.
    fileprivate func hold() -> (descriptor: Int32, code: Int32) {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV
        var found: UnsafeMutablePointer<addrinfo>?
        guard let host, getaddrinfo(String(host), "\(port ?? 0)", &hints, &found) == 0, let found else {
            return (-1, EADDRNOTAVAIL)
        }
        defer { freeaddrinfo(found) }
        let descriptor = socket(found.pointee.ai_family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return (-1, errno) }
        // As libzmq's own has it: two of them share a port as long as one does not listen.
        var yes: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        guard bind(descriptor, found.pointee.ai_addr, found.pointee.ai_addrlen) == 0 else {
            let code = errno
            close(descriptor)
            return (-1, code)
        }
        return (descriptor, 0)
    }
}

extension AddressList {
    /// The port that a socket is bound to.
    fileprivate static func port(of descriptor: Int32) -> UInt16? {
        var address = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let isKnown = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) == 0 }
        }
        // Both families have it at the same place.
        return isKnown
            ? withUnsafeBytes(of: &address) { UInt16(bigEndian: $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self)) }
            : nil
    }
}
