import DequeModule

/// Who did a place last: a worker that has kept what the tasks at a place have in common does the next one sooner.
/// Others come to the same bits, only later.
struct Affinity {
    private struct Group {
        /// Passes that are not finished.
        var passes = 0
        var lastWorkers: [Int: Fleet.ID] = [:]
    }

    /// By pass; nil for those that have nothing in common with others.
    private let groupNumbers: [Int?]
    private var groups: [Group] = []
    /// Tiles that are ready, or were, for those who did their places last.
    private var preferredTiles: [Fleet.ID: Deque<Scheduler.Tile>] = [:]
    private let passes: [Pass]

    /// - Parameter first: the passes before it are finished
    init(_ passes: [Pass], startingAt first: Int) {
        self.passes = passes
        var numbers: [String: Int] = [:], groupNumbers: [Int?] = []
        for (index, pass) in passes.enumerated() {
            guard let name = pass.affinity else {
                groupNumbers.append(nil)
                continue
            }
            let number = numbers[name] ?? numbers.count
            if numbers.updateValue(number, forKey: name) == nil { groups.append(Group()) }
            if index >= first { groups[number].passes += 1 }
            groupNumbers.append(number)
        }
        self.groupNumbers = groupNumbers
    }

    /// Who did the tile's place last, and may have left since.
    func lastWorker(_ tile: Scheduler.Tile) -> Fleet.ID? {
        guard let group = groupNumbers[tile.pass] else { return nil }
        return groups[group].lastWorkers[passes[tile.pass].place(tile.index)]
    }

    mutating func answered(_ tile: Scheduler.Tile, by worker: Fleet.ID) {
        guard let group = groupNumbers[tile.pass] else { return }
        groups[group].lastWorkers[passes[tile.pass].place(tile.index)] = worker
    }

    mutating func prefer(_ tile: Scheduler.Tile, for worker: Fleet.ID) {
        preferredTiles[worker, default: []].append(tile)
    }

    /// The first tile for a worker that is still to be sent, which stays where it is.
    mutating func nextPreferred(_ worker: Fleet.ID, isReady: (Scheduler.Tile) -> Bool) -> Scheduler.Tile? {
        guard !preferredTiles.isEmpty else { return nil }
        while let tile = preferredTiles[worker]?.first {
            if isReady(tile) { return tile }
            preferredTiles[worker]?.removeFirst()
        }
        preferredTiles[worker] = nil
        return nil
    }

    mutating func forget(_ worker: Fleet.ID) { preferredTiles[worker] = nil }

    mutating func finished(pass: Int) {
        guard let group = groupNumbers[pass] else { return }
        groups[group].passes -= 1
        guard groups[group].passes == 0 else { return }
        groups[group] = Group()
        preferredTiles = preferredTiles.compactMapValues { tiles in
            let others = tiles.filter { groupNumbers[$0.pass] != group }
            return others.isEmpty ? nil : others
        }
    }
}
