internal import CZeroMQ
internal import Glibc

/// Why a socket could not be opened or used.
public enum SocketError: Error, Hashable, CustomStringConvertible {
    case badEndpoint(String, reason: String)
    case addressInUse(String)
    case noSuchAddress(String)
    case notPermitted(String)
    /// A call of libzmq or the system that should not fail did.
    case failed(call: String, reason: String)

    public var description: String {
        switch self {
        case .badEndpoint(let endpoint, let reason):
            "endpoint '\(endpoint)' is not valid: \(reason); write it as tcp://host:port"
        case .addressInUse(let endpoint):
            "endpoint \(endpoint) is in use by another program; choose another port or stop that program"
        case .noSuchAddress(let endpoint):
            """
            endpoint \(endpoint) names no address or network interface of this machine; tcp://*:PORT listens on all of \
            them
            """
        case .notPermitted(let endpoint):
            """
            endpoint \(endpoint) may not be opened by this user; choose a port above 1023 or a folder that you may \
            write to
            """
        case .failed(let call, let reason):
            "\(call) failed: \(reason)"
        }
    }

    /// The error that `errno` tells of after `call`.
    static func last(_ call: String, endpoint: String? = nil) -> SocketError {
        let code = zmq_errno()
        guard let endpoint else { return .failed(call: call, reason: String(cString: zmq_strerror(code))) }
        return switch code {
        case EADDRINUSE: .addressInUse(endpoint)
        case EADDRNOTAVAIL, ENODEV: .noSuchAddress(endpoint)
        case EACCES, EPERM: .notPermitted(endpoint)
        case EINVAL, EPROTONOSUPPORT: .badEndpoint(endpoint, reason: "the host is not known")
        default: .failed(call: "\(call) \(endpoint)", reason: String(cString: zmq_strerror(code)))
        }
    }
}
