internal import CZeroMQ
internal import Glibc
import Synchronization

/// A TCP connection to a router, as its owner may speak of it; no other one ever has the same value.
public struct ConnectionID: Hashable, Sendable {
    let descriptor: Int32
    let serial: UInt64
}

/// The offence of somebody who was not let in, or not let stay.
public struct Incident: Sendable, Hashable {
    /// The IP address that it came from; "unknown" when its connection was gone too soon.
    public let address: String
    public let what: String

    public init(address: String, what: String) {
        self.address = address
        self.what = what
    }
}

/// Bounds of what peers may hold of a router that listens on TCP.
public struct ConnectionLimits: Sendable {
    /// Connections at a time; nil: what the process may open, less what it needs itself.
    public var connections: Int?
    /// Connections at a time that are not admitted.
    public var strangers = 1024
    /// Seconds in which a stranger has to be admitted.
    public var strangerSeconds = 10.0
    /// Bytes that a stranger may have sent beyond what was received from it: a hello is far smaller.
    public var strangerBytes = 16 << 10

    public init() {}
}

/// Stands at the door of a router that listens on TCP: lets in who is on the allow-list, and cuts connections that hold
/// more than they may.
///
/// libzmq bounds a frame and a queue of messages, but neither the connections, nor the time that one may be there
/// without a word, nor the parts of a message that is not finished. So a thread of its own looks at what the kernel has
/// received for each connection, less what came out of the router: that is what the peer makes this process hold. It
/// does so whatever the router's owner is at.
final class ConnectionWatch: Sendable {
    // The monitor's socket moves between threads under this lock, which is the "full fence memory barrier" that libzmq
    // asks for.
    let state: Mutex<State>
    let limits: ConnectionLimits
    let mostConnections: Int
    let hasKeys: Bool
    private let wakeup: Wakeup
    private let monitorDescriptor: Int32
    private let isOver = Atomic<Bool>(false)
    private let thread = Mutex<OSThread?>(nil)

    /// Incidents kept until they are taken; a flood's further ones are forgotten.
    static let mostIncidents = 4096
    /// Connections looked at in a row, of those at work and of the others.
    static let idleSweep = 512
    static let workingSweep = 128  // what they may hold is their credit, and they wait for the lock meanwhile
    /// Useless messages in a row: from the strangers of an address together, or from one connection that was admitted,
    /// before it is at work and after.
    static let strangerNuisance = 50.0
    static let workerNuisance = 1000.0
    /// How many of them are forgiven in a second; and connections in a second from an address whose strangers were at
    /// that limit.
    static let forgivenPerSecond = 20.0
    /// Wakes of the thread in a row, and in a second, beyond which it rests first. Its own looks are half as many.
    private static let wakesAtOnce = 40.0
    private static let wakesPerSecond = 200.0
    private static let restMicroseconds: UInt32 = 5_000
    /// Bytes a second that no message accounts for: heartbeats of ZMTP's own, where a peer sends them.
    static let unaccountedPerSecond = 100.0

    /// - Parameters:
    ///   - monitor: the name of the router's monitor.
    ///   - lastPeer: the last number that libzmq has given to a peer of the router.
    ///   - keys: nil lets in whoever speaks ZMTP 3.
    init(
        _ context: SocketContext, monitor name: String, lastPeer: UInt32, limits: ConnectionLimits,
        keys: CoordinatorKeys?
    ) throws(SocketError) {
        let monitor = try SocketMonitor(context, name: name)
        monitorDescriptor = try monitor.descriptor()
        state = Mutex(State(monitor: monitor, lastPeer: lastPeer, seenPeer: lastPeer))
        self.limits = limits
        mostConnections = limits.connections ?? max(64, raise_descriptor_limit() - 256)
        hasKeys = keys != nil
        wakeup = try Wakeup()
        // Handed to the thread that starts here, and not used by this one again.
        nonisolated(unsafe) let authenticator = try Authenticator(context, keys: keys)
        let thread = try OSThread(name: "door", stackBytes: 1 << 20) { [self] in run(authenticator) }
        self.thread.withLock { $0 = thread }
    }

    /// Ends the thread. The router must have stopped telling of its connections before.
    func stop() {
        isOver.store(true, ordering: .releasing)
        wakeup.wake()
        thread.withLock { $0?.join() }
    }

    private func run(_ authenticator: Authenticator) {
        var wakes = Nuisance()
        var pause = 0
        while !isOver.load(ordering: .acquiring) {
            authenticator.wait(wakeup, monitorDescriptor, milliseconds: pause)
            // A flood of connections would wake this thread three times for each, at libzmq's cost too: what comes in
            // such a moment is taken together.
            if wakes.add(1, forgiving: Self.wakesPerSecond) > Self.wakesAtOnce { usleep(Self.restMicroseconds) }
            // First, so that who is cut as it comes gets no answer to its handshake.
            pause = state.withLock { look(&$0) }
            let verdict = authenticator.serve()
            guard !verdict.incidents.isEmpty || verdict.allowed != nil else { continue }
            state.withLock { state in
                for incident in verdict.incidents { note(incident.address, incident.what, &state) }
                guard let allowed = verdict.allowed else { return }
                state.allowed = allowed
                for descriptor in Array(state.entries.keys) { cutIfTakenOff(descriptor, &state) }
            }
        }
    }

    func cutIfTakenOff(_ descriptor: Int32, _ state: inout State) {
        guard let allowed = state.allowed, let user = state.entries[descriptor]?.user, !allowed.contains(user) else {
            return
        }
        cut(descriptor, "the key of \(Authenticator.name(ofUser: user)) was taken off the allow-list", &state)
    }

    // MARK: Connections

    /// Counts against the strangers of an address.
    @discardableResult
    func blame(_ address: String, _ cost: Double, _ state: inout State) -> Double {
        if state.nuisanceOf.count > Self.mostIncidents { (state.nuisanceOf, state.returnsOf) = ([:], [:]) }
        return state.nuisanceOf[address, default: Nuisance()].add(cost, forgiving: Self.forgivenPerSecond)
    }

    /// Puts a connection into the queues where it belongs now.
    func place(_ entry: Entry, _ state: inout State) {
        displace(entry, &state)
        if !entry.isAdmitted { state.strangers.append(entry.connection) }
        if entry.isAtWork { state.working.append(entry.connection) } else { state.idle.append(entry.connection) }
    }

    func displace(_ entry: Entry, _ state: inout State) {
        state.strangers.remove(entry.connection)
        state.idle.remove(entry.connection)
        state.working.remove(entry.connection)
    }

    @discardableResult
    func forget(_ descriptor: Int32, _ state: inout State) -> Entry? {
        guard let entry = state.entries.removeValue(forKey: descriptor) else { return nil }
        displace(entry, &state)
        return entry
    }

    func cut(_ descriptor: Int32, _ reason: String?, _ state: inout State) {
        guard let entry = state.entries[descriptor], !entry.isCut else { return }
        displace(entry, &state)
        state.entries[descriptor]?.isCut = true
        entry.connection.shutDown()
        if let reason { note(entry.connection.address, reason, &state) }
    }

    func note(_ address: String, _ what: String, _ state: inout State) {
        if state.incidents.count < Self.mostIncidents { state.incidents.append(Incident(address: address, what: what)) }
    }
}
