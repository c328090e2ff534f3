/// The state of the connections, and of those who were cut.
extension ConnectionWatch {
    struct Entry {
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
    struct Nuisance {
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
    struct Queue {
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

    struct State {
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
        /// Nuisance of the strangers of an address together, so that a new connection is no new chance.
        var nuisanceOf: [String: Nuisance] = [:]
        /// How often those that were a nuisance come again.
        var returnsOf: [String: Nuisance] = [:]
        var incidents: [Incident] = []
        /// The allow-list's users, since it was changed.
        var allowed: Set<String>?
        /// The failure that libzmq told of last, of the connection whose end it tells of next.
        var failure: HandshakeFailure?
        var cursor = 0
        var nextSweep = ContinuousClock.now
    }
}
