internal import CZeroMQ
internal import Glibc
import Synchronization

/// A TCP connection to a router, as its owner may speak of it; no other one ever has the same value.
public struct ConnectionID: Hashable, Sendable {
    let descriptor: Int32
    let serial: UInt64
}

/// What somebody did at the door who was not let in, or not let stay.
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
    /// Of them, those not admitted.
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
    private struct Entry {
        let connection: TCPConnection
        var serial: UInt64
        let since: ContinuousClock.Instant
        /// Bytes on the wire of what was received.
        var delivered: UInt64 = 0
        /// Bytes that may be under way.
        var allowance: Int
        var isAdmitted = false
        var isAtWork = false
        var isCut = false
        /// libzmq's own number of the connection, and the last one that was seen before it came: its own is a later
        /// one.
        var peer: UInt32?
        let after: UInt32
        var user: String?
        var nuisance = Nuisance()
    }

    /// Useless messages, forgiven with time.
    private struct Nuisance {
        private var level = 0.0
        private var at = ContinuousClock.now

        /// - Returns: the sum.
        @discardableResult
        mutating func add(_ cost: Double, forgiving perSecond: Double) -> Double {
            let now = ContinuousClock.now
            level = max(0, level - (now - at) / .seconds(1) * perSecond) + cost
            at = now
            return level
        }
    }

    /// Connections in the order of their coming, and how many each place has of them.
    private struct Queue {
        private(set) var descriptors: [Int32] = []
        private var countOf: [String: Int] = [:]

        mutating func append(_ connection: TCPConnection) {
            descriptors.append(connection.descriptor)
            countOf[connection.place, default: 0] += 1
        }

        /// Nothing happens where it is not in the queue.
        mutating func remove(_ connection: TCPConnection) {
            guard let index = descriptors.firstIndex(of: connection.descriptor), let count = countOf[connection.place]
            else { return }
            descriptors.remove(at: index)
            countOf[connection.place] = count > 1 ? count - 1 : nil
        }

        /// The place that has most.
        var fullestPlace: String? { countOf.max { $0.value < $1.value }?.key }
    }

    private struct State {
        let monitor: SocketMonitor
        var entries: [Int32: Entry] = [:]
        var nextSerial: UInt64 = 0
        /// The last of libzmq's numbers that can be given by now, and the last that came with a message.
        var lastPeer: UInt32
        var seenPeer: UInt32
        /// Those that are not cut: not admitted; not at work, strangers among them; at work.
        var strangers = Queue()
        var idle = Queue()
        var working = Queue()
        /// What the strangers of an address did together, so that a new connection is no new chance.
        var nuisanceOf: [String: Nuisance] = [:]
        /// How often those that were a nuisance come again.
        var returnsOf: [String: Nuisance] = [:]
        var incidents: [Incident] = []
        /// The allow-list's users, since it was changed.
        var allowed: Set<String>?
        /// What libzmq told of last: the failure of the connection whose end it tells of next.
        var failure: HandshakeFailure?
        var cursor = 0
        var nextSweep = ContinuousClock.now
    }

    // The monitor's socket moves between threads under this lock, which is the "full fence memory barrier" that libzmq
    // asks for.
    private let state: Mutex<State>
    private let limits: ConnectionLimits
    private let mostConnections: Int
    private let hasKeys: Bool
    private let wakeup: Wakeup
    private let monitorDescriptor: Int32
    private let isOver = Atomic<Bool>(false)
    private let thread = Mutex<OSThread?>(nil)

    /// Incidents kept until they are taken; a flood's further ones are forgotten.
    private static let mostIncidents = 4096
    /// Connections looked at in a row, of those at work and of the others.
    private static let idleSweep = 512
    private static let workingSweep = 128  // what they may hold is their credit, and they wait for the lock meanwhile
    /// Useless messages in a row: from the strangers of an address together, or from one connection that was admitted,
    /// before it is at work and after.
    private static let strangerNuisance = 50.0
    private static let workerNuisance = 1000.0
    /// How many of them are forgiven in a second; and connections in a second from an address whose strangers were at
    /// that limit.
    private static let forgivenPerSecond = 20.0
    /// Wakes of the thread in a row, and in a second, beyond which it rests first. Its own looks are half as many.
    private static let wakesAtOnce = 40.0
    private static let wakesPerSecond = 200.0
    private static let restMicroseconds: UInt32 = 5_000
    /// Bytes a second that no message accounts for: heartbeats of ZMTP's own, where a peer sends them.
    private static let unaccountedPerSecond = 100.0

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

    private func cutIfTakenOff(_ descriptor: Int32, _ state: inout State) {
        guard let allowed = state.allowed, let user = state.entries[descriptor]?.user, !allowed.contains(user) else {
            return
        }
        cut(descriptor, "the key of \(Authenticator.name(ofUser: user)) was taken off the allow-list", &state)
    }

    // MARK: What the router's owner says

    /// Tells the bytes of a message that was received.
    /// - Returns: nil when there is no such connection any more; `isCut` when its messages are to be dropped.
    func received(descriptor: Int32, peer: [UInt8], user: String?, frameBytes: [Int]) -> (
        id: ConnectionID, address: String, isCut: Bool
    )? {
        state.withLock { state in
            let number = Self.number(ofPeer: peer)
            // libzmq told of the connection before it read the message; of one that is known by its number there is
            // nothing to hear.
            if number == nil || state.entries[descriptor]?.peer != number { drain(&state) }
            guard var entry = state.entries[descriptor] else { return nil }
            if number == nil || entry.peer != number {
                guard let number, Self.isLater(number, than: entry.after), !Self.isLater(number, than: state.lastPeer)
                else {
                    // One that it chose itself. libzmq aborts the process when its own number is taken by the time that
                    // it gives it.
                    if entry.peer == nil {
                        cut(descriptor, "chose its routing id, which is ZeroMQ's to choose", &state)
                    }
                    return nil
                }
                if let known = entry.peer {
                    // Left over from a connection that had this descriptor before; or what was known of this one was.
                    guard Self.isLater(number, than: known) else { return nil }
                    entry.serial = state.nextSerial
                    state.nextSerial += 1
                    entry.nuisance = Nuisance()
                    if entry.isAdmitted {
                        (entry.isAdmitted, entry.isAtWork) = (false, false)
                        entry.allowance = limits.strangerBytes
                        if !entry.isCut { place(entry, &state) }
                    }
                }
                entry.peer = number
                if Self.isLater(number, than: state.seenPeer) { state.seenPeer = number }
            }
            entry.user = user
            for bytes in frameBytes { entry.delivered += UInt64(wireBytes(bytes)) }
            state.entries[descriptor] = entry
            // It may have come in before the list was changed, and say its first word now.
            cutIfTakenOff(descriptor, &state)
            return (
                ConnectionID(descriptor: descriptor, serial: entry.serial), entry.connection.address,
                state.entries[descriptor]?.isCut ?? true
            )
        }
    }

    /// The number in an id of libzmq's own making: a zero and four bytes of a counter. nil: the peer has chosen its id.
    static func number(ofPeer id: [UInt8]) -> UInt32? {
        guard id.count == 5, id[0] == 0 else { return nil }
        return id.dropFirst().reduce(0) { $0 << 8 | UInt32($1) }
    }

    /// The counter begins anywhere and goes round.
    private static func isLater(_ number: UInt32, than other: UInt32) -> Bool { Int32(bitPattern: number &- other) > 0 }

    /// This one may stay, and have `bytesInFlight` under way.
    func admit(_ id: ConnectionID, bytesInFlight: Int, isAtWork: Bool) {
        state.withLock { state in
            guard var entry = state.entries[id.descriptor], entry.serial == id.serial, !entry.isCut else { return }
            let hasChanged = !entry.isAdmitted || entry.isAtWork != isAtWork
            (entry.isAdmitted, entry.isAtWork, entry.allowance) = (true, isAtWork, bytesInFlight)
            state.entries[id.descriptor] = entry
            if hasChanged { place(entry, &state) }
        }
    }

    /// It sent something that is of no use, `cost` times as bad as a small message; too much of that ends the
    /// connection.
    func nuisance(_ id: ConnectionID, cost: Double, _ what: String) {
        state.withLock { state in
            guard let entry = state.entries[id.descriptor], entry.serial == id.serial, !entry.isCut else { return }
            let address = entry.connection.place
            if !entry.isAdmitted {
                if blame(address, cost, &state) > Self.strangerNuisance {
                    cut(id.descriptor, "flooded with messages: \(what)", &state)
                }
            } else if let level = state.entries[id.descriptor]?.nuisance.add(cost, forgiving: Self.forgivenPerSecond),
                level > (entry.isAtWork ? Self.workerNuisance : Self.strangerNuisance)
            {
                blame(address, Self.strangerNuisance / 2, &state)
                cut(id.descriptor, "flooded with messages: \(what)", &state)
            }
        }
    }

    /// Counts against the strangers of an address.
    @discardableResult
    private func blame(_ address: String, _ cost: Double, _ state: inout State) -> Double {
        if state.nuisanceOf.count > Self.mostIncidents { (state.nuisanceOf, state.returnsOf) = ([:], [:]) }
        return state.nuisanceOf[address, default: Nuisance()].add(cost, forgiving: Self.forgivenPerSecond)
    }

    /// Ends a connection, with the reason unless its owner tells that itself.
    func cut(_ id: ConnectionID, _ reason: String?) {
        state.withLock { state in
            guard state.entries[id.descriptor]?.serial == id.serial else { return }
            cut(id.descriptor, reason, &state)
        }
    }

    func traffic(_ id: ConnectionID) -> TCPConnection.Traffic? {
        state.withLock { state in
            guard let entry = state.entries[id.descriptor], entry.serial == id.serial else { return nil }
            return entry.connection.traffic
        }
    }

    func takeIncidents() -> [Incident] {
        state.withLock { state in
            defer { state.incidents = [] }
            return state.incidents
        }
    }

    // MARK: What the door does by itself

    /// Looks at what happened and at what connections hold.
    /// - Returns: milliseconds until the next look.
    private func look(_ state: inout State) -> Int {
        drain(&state)
        let now = ContinuousClock.now
        // Not at every wake.
        guard now >= state.nextSweep else { return Int((state.nextSweep - now) / .milliseconds(1)) + 1 }
        while let oldest = state.strangers.descriptors.first, let entry = state.entries[oldest],
            now - entry.since > .seconds(limits.strangerSeconds)
        {
            cut(oldest, "said no valid hello within \(Int(limits.strangerSeconds)) s", &state)
        }
        // In turns, so that a look takes no longer with thousands of them.
        let turn =
            turn(of: state.idle, state.cursor, sweep: Self.idleSweep)
            + turn(of: state.working, state.cursor, sweep: Self.workingSweep)
        state.cursor += 1
        for descriptor in turn {
            guard let entry = state.entries[descriptor], !entry.isCut, let traffic = entry.connection.traffic else {
                continue
            }
            // What was received under a number that another connection had before counts for nothing.
            let delivered = min(entry.delivered, traffic.bytesReceived)
            state.entries[descriptor]?.delivered = delivered
            let slack = Int((now - entry.since) / .seconds(1) * Self.unaccountedPerSecond) + 1024
            if traffic.bytesReceived - delivered > UInt64(entry.allowance + slack) {
                if !entry.isAtWork { blame(entry.connection.place, Self.strangerNuisance / 2, &state) }
                cut(descriptor, "sent more than \(entry.allowance) bytes that are no whole message", &state)
            }
        }
        let pause = state.strangers.descriptors.isEmpty ? 25 : 10
        state.nextSweep = now + .milliseconds(pause)
        return state.entries.isEmpty ? 1000 : pause  // the first that comes wakes the thread
    }

    private func turn(of queue: Queue, _ cursor: Int, sweep: Int) -> ArraySlice<Int32> {
        let turns = max(1, (queue.descriptors.count + sweep - 1) / sweep)
        return queue.descriptors.dropFirst(cursor % turns * sweep).prefix(sweep)
    }

    /// Takes in what libzmq tells of connections.
    ///
    /// What is gone by now is not looked at: asking the kernel costs time in a flood, and the descriptor may be another
    /// connection's already.
    private func drain(_ state: inout State) {
        var new: [Int32] = []
        // An error means that the context ends, and with it everything.
        while let event = try? state.monitor.next() {
            switch event {
            case .accepted(let descriptor):
                forget(descriptor, &state)
                new.append(descriptor)
            case .handshakeFailed(let failure):
                state.failure = failure
            case .disconnected(let descriptor):
                let failure = state.failure
                state.failure = nil
                if let index = new.lastIndex(of: descriptor) { new.remove(at: index) }
                let entry = forget(descriptor, &state)
                guard entry?.isAdmitted != true, entry?.isCut != true else { continue }
                if let address = entry?.connection.place { blame(address, 1, &state) }
                // ZAP has told of a key that is not listed.
                if case .denied = failure { continue }
                note(entry?.connection.address ?? "unknown", failure.map(words) ?? "left without a valid hello", &state)
            case .handshakeSucceeded:
                state.lastPeer &+= 1
            case .connected:
                continue
            }
        }
        for descriptor in new { accepted(descriptor, &state) }
    }

    private func accepted(_ descriptor: Int32, _ state: inout State) {
        guard let connection = TCPConnection(descriptor: descriptor) else { return }
        let now = ContinuousClock.now
        let entry = Entry(
            connection: connection, serial: state.nextSerial, since: now, allowance: limits.strangerBytes,
            after: state.seenPeer)
        state.entries[descriptor] = entry
        state.nextSerial += 1
        place(entry, &state)
        // Each connection of a flood brings a queue of messages before it is cut, so few are let in; others' addresses
        // do not matter to it.
        if let level = state.nuisanceOf[connection.place]?.add(0, forgiving: Self.forgivenPerSecond),
            level > Self.strangerNuisance
        {
            let returns = state.returnsOf[connection.place, default: Nuisance()].add(
                0, forgiving: Self.forgivenPerSecond)
            guard returns < Self.forgivenPerSecond else { return cut(descriptor, "came again at once", &state) }
            // Who is cut here does not count, or nobody would be let in for a long time after a flood.
            state.returnsOf[connection.place]?.add(1, forgiving: Self.forgivenPerSecond)
        }
        // The oldest of the place that has most: an honest one has said its hello by then, or works, and who holds many
        // stands in nobody's way but its own.
        let oldest =
            state.strangers.descriptors.count > limits.strangers
            ? oldest(of: state.strangers, state)
            : state.entries.count > mostConnections ? oldest(of: state.idle, state) : nil
        if let oldest { cut(oldest, "held more connections open than the farm has room for", &state) }
    }

    private func oldest(of queue: Queue, _ state: State) -> Int32? {
        guard let place = queue.fullestPlace else { return nil }
        return queue.descriptors.first { state.entries[$0]?.connection.place == place }
    }

    /// Puts a connection into the queues where it belongs now.
    private func place(_ entry: Entry, _ state: inout State) {
        displace(entry, &state)
        if !entry.isAdmitted { state.strangers.append(entry.connection) }
        if entry.isAtWork { state.working.append(entry.connection) } else { state.idle.append(entry.connection) }
    }

    private func displace(_ entry: Entry, _ state: inout State) {
        state.strangers.remove(entry.connection)
        state.idle.remove(entry.connection)
        state.working.remove(entry.connection)
    }

    @discardableResult
    private func forget(_ descriptor: Int32, _ state: inout State) -> Entry? {
        guard let entry = state.entries.removeValue(forKey: descriptor) else { return nil }
        displace(entry, &state)
        return entry
    }

    private func cut(_ descriptor: Int32, _ reason: String?, _ state: inout State) {
        guard let entry = state.entries[descriptor], !entry.isCut else { return }
        displace(entry, &state)
        state.entries[descriptor]?.isCut = true
        entry.connection.shutDown()
        if let reason { note(entry.connection.address, reason, &state) }
    }

    private func note(_ address: String, _ what: String, _ state: inout State) {
        if state.incidents.count < Self.mostIncidents { state.incidents.append(Incident(address: address, what: what)) }
    }

    private func words(_ failure: HandshakeFailure) -> String {
        switch failure {
        case .closed: "left in the midst of the handshake"
        case .denied: "has a key that is not on the allow-list"
        case .otherMechanism: hasKeys ? "has no key" : "has keys, and this farm has none"
        case .cryptographic: "has another coordinator's key"
        case .protocolError: "does not speak ZMTP 3 as a worker does"
        }
    }

    /// A frame of ZMTP 3: flags and size, and with CURVE a command name, nonce, flags and authenticator.
    private func wireBytes(_ frame: Int) -> Int {
        let body = frame + (hasKeys ? 33 : 0)
        return body + (body > 255 ? 9 : 2)
    }
}
