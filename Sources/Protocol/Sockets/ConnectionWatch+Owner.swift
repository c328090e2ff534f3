import Synchronization

/// The calls of the router's owner.
extension ConnectionWatch {
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

    /// A frame of ZMTP 3: flags and size, and with CURVE a command name, nonce, flags and authenticator.
    private func wireBytes(_ frame: Int) -> Int {
        let body = frame + (hasKeys ? 33 : 0)
        return body + (body > 255 ? 9 : 2)
    }
}
