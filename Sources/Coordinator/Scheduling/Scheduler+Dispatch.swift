import HeapModule

/// Tiles that wait for a worker, the lowest first, by the network that they run.
struct ReadyTiles {
    private var tiles: [Heap<Scheduler.Tile>]
    private(set) var count = 0

    /// - Parameter networks: how many there are besides none
    init(networks: Int) { tiles = Array(repeating: Heap(), count: networks + 1) }

    var isEmpty: Bool { count == 0 }
    var networks: Range<Int> { tiles.indices }
    /// The lowest of all.
    var first: Scheduler.Tile? {
        if tiles.count == 1 { return tiles[0].min }
        return tiles.lazy.compactMap(\.min).min()
    }

    func first(_ network: Int) -> Scheduler.Tile? { tiles[network].min }

    mutating func insert(_ tile: Scheduler.Tile, network: Int) {
        tiles[network].insert(tile)
        count += 1
    }

    /// - Returns: nil where there is none.
    @discardableResult
    mutating func removeFirst(_ network: Int) -> Scheduler.Tile? {
        guard let first = tiles[network].popMin() else { return nil }
        count -= 1
        return first
    }
}

/// Who gets which tile.
extension Scheduler {
    /// Tiles that one event passes over because those whose turn it is have them or have failed on them.
    private static let maxPassedOver = 256
    /// Tiles that one event looks at again for a second copy after such.
    private static let maxCopiesPassedOver = 4

    mutating func dispatch(at now: Double, _ commands: inout [Command]) {
        var passedOver: [Tile] = []
        // Networks that nobody who waits could run now.
        var withoutWorkers: [Int] = []
        // What is lost is not out, and goes first: it is older.
        while !isOver, passedOver.count < Self.maxPassedOver, let tile = nextReady(besides: withoutWorkers),
            inFlight < traits[tile.pass].maxInFlight
        {
            let network = traits[tile.pass].network
            var refused: [Fleet.IdleWorker] = []
            var isSent = false
            while !isSent, let idle = nextIdle(for: network) {
                let choice = preferredTile(of: idle.worker) ?? tile
                if mayTake(idle.worker, choice) {
                    // The others are dropped when they come to be the first.
                    if choice == tile { readyTiles.removeFirst(network) }
                    send(choice, to: idle.worker, at: now, &commands)
                    isSent = true
                } else {
                    refused.append(idle)
                }
            }
            for idle in refused { fleet.giveBack(idle) }
            if isSent { continue }
            if !refused.isEmpty {
                readyTiles.removeFirst(network)
                passedOver.append(tile)
            } else if readyTiles.networks.count > 1 {
                withoutWorkers.append(network)
            } else {
                break
            }
        }
        if !isOver, readyTiles.isEmpty, leases.policy.sendsCopies { sendCopies(at: now, &commands) }
        for tile in passedOver { readyTiles.insert(tile, network: traits[tile.pass].network) }
    }

    /// The first tile that is to be sent, which stays where it is.
    mutating func nextReady(besides networks: [Int] = []) -> Tile? {
        var first: Tile?
        for network in readyTiles.networks where !networks.contains(network) {
            while let tile = readyTiles.first(network), !waitsForWorker(tile) { readyTiles.removeFirst(network) }
            guard let next = readyTiles.first(network) else { continue }
            if let best = first, best < next { continue }
            first = next
        }
        return first
    }

    /// Whether a tile is to be sent: else it was answered while it waited to be repeated, or sent to the worker that
    /// did its place before.
    private func waitsForWorker(_ tile: Tile) -> Bool {
        switch graph.status(of: tile) {
        case .ready: true
        case .cut: pendingTasks[tile]?.holders.isEmpty == true
        case .waiting, .answered, .merged, nil: false
        }
    }

    /// The worker whose turn it is. What is prefetched waits, perhaps behind a slow tile: not while it might be all
    /// that the next idle lane finds.
    private mutating func nextIdle(for network: Int) -> Fleet.IdleWorker? {
        fleet.popIdle(for: network, mayPrefetch: readyTiles.count > fleet.ableLanes)
    }

    /// A tile at whose place the worker has done the one before, if it may be sent now.
    private mutating func preferredTile(of worker: Worker) -> Tile? {
        guard let tile = affinity.nextPreferred(worker, isReady: { graph.status(of: $0) == .ready }) else { return nil }
        let traits = traits[tile.pass]
        return inFlight < traits.maxInFlight && fleet.mayRun(traits.network, worker) ? tile : nil
    }

    /// Whether a worker may be given a tile: it does not have it, and has not failed on it while others could take it.
    private func mayTake(_ worker: Worker, _ tile: Tile) -> Bool {
        guard let state = fleet[worker], state.index(of: tile) == nil else { return false }
        guard let failedOn = pendingTasks[tile]?.failedOn, failedOn.contains(state.record) else { return true }
        return fleet.ableWorkers(besides: failedOn) == 0
    }

    private mutating func send(
        _ tile: Tile, to worker: Worker, at now: Double, isCopy: Bool = false, _ commands: inout [Command]
    ) {
        guard let state = fleet[worker] else { return }
        let task = pendingTasks[tile, default: PendingTask()]
        let traits = traits[tile.pass]
        // A lane comes to it when the one before it on that lane is answered.
        let waiting = state.tasks.filter { !$0.isOverdue }
        let before = waiting.count - state.openLanes
        let start = before >= 0 && before < waiting.count ? max(now, waiting[before].finish) : now
        fleet.assign(
            Fleet.Assignment(
                tile: tile, kind: traits.kind, network: traits.network, number: fleet.nextNumber(), sent: now,
                finish: start + (leases.seconds(of: state, kind: traits.kind) ?? 0)),
            to: worker)
        pendingTasks[tile, default: task].attempts += 1
        pendingTasks[tile]?.holders.append(worker)
        if task.holders.isEmpty { inFlight += 1 }
        beginTasks(of: worker, at: now)
        if before >= 0 { expect(tile) }
        offer(worker)
        if task.attempts == 0 {
            commands.append(.cutAndSend(tile, to: worker))
            graph.cut(tile)
            takeChanges(&commands)
        } else {
            if isCopy { speculations += 1 } else { repeats += 1 }
            commands.append(.resend(tile, to: worker, attempt: task.attempts))
        }
    }

    // MARK: Second copies

    /// Lanes are idle and nothing is ready: the tile that is expected last gets a second copy, if the worker whose turn
    /// it is should be clearly sooner.
    private mutating func sendCopies(at now: Double, _ commands: inout [Command]) {
        guard fleet.hasIdleLanes() else { return }
        postponeExpectations(at: now)
        var passedOver: [Leases.Expectation] = []
        while let last = leases.expectations.max, passedOver.count < Self.maxCopiesPassedOver {
            guard pendingTasks[last.tile]?.expectation == last.number else {
                leases.expectations.removeMax()
                continue
            }
            let traits = traits[last.tile.pass]
            guard let idle = nextIdle(for: traits.network) else {
                if readyTiles.networks.count == 1 { break }
                leases.expectations.removeMax()
                passedOver.append(last)
                continue
            }
            guard let state = fleet[idle.worker], state.hasIdleLane,
                let seconds = leases.seconds(of: state, kind: traits.kind),
                last.finish - now > leases.policy.gain * seconds
            else {
                fleet.giveBack(idle)
                break
            }
            leases.expectations.removeMax()
            if mayTake(idle.worker, last.tile) {
                send(last.tile, to: idle.worker, at: now, isCopy: true, &commands)
            } else {
                passedOver.append(last)
                fleet.giveBack(idle)
            }
        }
        for expectation in passedOver { leases.expectations.insert(expectation) }
    }

    /// Tasks that should have been answered by now may take as long again as they have taken already.
    private mutating func postponeExpectations(at now: Double) {
        while let first = leases.expectations.min, first.finish <= now {
            leases.expectations.removeMin()
            guard let task = pendingTasks[first.tile], task.expectation == first.number else { continue }
            let assignment = task.holders.first.flatMap { worker in
                fleet[worker]?.tasks.first { $0.tile == first.tile }
            }
            expect(first.tile, notBefore: now + max(now - (assignment?.started ?? now), Self.shortestDelay))
        }
    }

    /// Seconds that a tile is late again at least.
    private static let shortestDelay = 0.01
}
