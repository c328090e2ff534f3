internal import CZeroMQ
internal import Glibc

/// A TCP connection of libzmq's, looked at from beside: what the kernel knows of it, and its end.
///
/// The descriptor is libzmq's, which may close it at any time; the next connection may then get its number. The
/// kernel's cookie, unique for as long as the machine runs, tells them apart.
struct TCPConnection: Sendable {
    let descriptor: Int32
    let cookie: UInt64
    /// The peer's IP address.
    let address: String
    /// The address that counts as one place: an IPv4 address, or the /64 that a host of IPv6 may choose its addresses
    /// from.
    let place: String

    /// - Returns: nil when the descriptor is closed, or no TCP connection with a peer.
    init?(descriptor: Int32) {
        guard let cookie = Self.cookie(of: descriptor) else { return nil }
        var address = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let name = withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(NI_MAXHOST)) { text in
            let isNamed = withUnsafeMutablePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    getpeername(descriptor, $0, &length) == 0
                        && ($0.pointee.sa_family == AF_INET || $0.pointee.sa_family == AF_INET6)
                        && getnameinfo($0, length, text.baseAddress, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0
                }
            }
            return isNamed ? text.baseAddress.map { String(cString: $0) } : nil
        }
        guard let name else { return nil }
        self.descriptor = descriptor
        self.cookie = cookie
        self.address = Endpoint.plain(name)
        place =
            address.ss_family != AF_INET6 || self.address != name
            ? self.address
            : withUnsafeBytes(of: &address) {
                // sockaddr_in6: family, port, flow, then the address.
                $0[8..<16].map { String($0, radix: 16) }.joined(separator: ".") + "/64"
            }
    }

    /// The kernel's figures on the peer's stream; nil when the connection is closed.
    struct Traffic {
        /// Bytes received in order since the connection was made.
        var bytesReceived: UInt64
        /// Bytes that the peer's machine has confirmed to have.
        var bytesAcknowledged: UInt64
        /// Since the last of them arrived.
        var millisecondsSinceData: UInt32
    }

    var traffic: Traffic? {
        guard isOpen else { return nil }
        // struct tcp_info of <linux/tcp.h>, which only ever grows at its end; Glibc's own lacks the counts.
        return withUnsafeTemporaryAllocation(byteCount: 256, alignment: 8) { info in
            var size = socklen_t(info.count)
            guard getsockopt(descriptor, Int32(IPPROTO_TCP), TCP_INFO, info.baseAddress, &size) == 0, size >= 136 else {
                return nil
            }
            return Traffic(
                bytesReceived: info.loadUnaligned(fromByteOffset: 128, as: UInt64.self),
                bytesAcknowledged: info.loadUnaligned(fromByteOffset: 120, as: UInt64.self),
                millisecondsSinceData: info.loadUnaligned(fromByteOffset: 52, as: UInt32.self))
        }
    }

    /// Whether the descriptor still is this connection.
    var isOpen: Bool { Self.cookie(of: descriptor) == cookie }

    /// Ends the connection: libzmq reads its end, drops what was unfinished, and closes it.
    func shutDown() {
        if isOpen { shutdown(descriptor, Int32(SHUT_RDWR)) }
    }

    private static func cookie(of descriptor: Int32) -> UInt64? {
        var cookie: UInt64 = 0
        var size = socklen_t(8)
        let SO_COOKIE: Int32 = 57
        guard getsockopt(descriptor, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 else { return nil }
        return cookie
    }
}
