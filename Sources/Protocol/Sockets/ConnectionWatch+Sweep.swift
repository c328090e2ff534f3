/// The thread's own work: it takes in what libzmq tells, and looks at what connections hold.
extension ConnectionWatch {
    /// Looks at what happened and at what connections hold.
    /// - Returns: milliseconds until the next look.
    func look(_ state: inout State) -> Int {
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
    /// A connection that is gone by now is not looked at: asking the kernel costs time in a flood, and the descriptor
    /// may be another connection's already.
    func drain(_ state: inout State) {
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
            case .connected, .retrying:
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

    private func words(_ failure: HandshakeFailure) -> String {
        switch failure {
        case .closed: "left in the midst of the handshake"
        case .denied: "has a key that is not on the allow-list"
        case .otherMechanism: hasKeys ? "has no key" : "has keys, and this farm has none"
        case .cryptographic: "has another coordinator's key"
        case .protocolError: "does not speak ZMTP 3 as a worker does"
        }
    }
}
