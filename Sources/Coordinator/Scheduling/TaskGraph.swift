import DequeModule
import Engine

/// Which tiles may be cut and sent, and which answers may be merged: what the passes of a pipeline need of one another,
/// as it follows from their accesses (`dependencies`). It knows nothing of workers.
///
/// A pass has a state from when its first tile may be ready until its last is merged. Passes that need nothing of one
/// another run beside one another and finish in any order. An event looks at those tiles alone that the tile meets.
struct TaskGraph {
    typealias Tile = Scheduler.Tile

    /// How far a tile is.
    enum Status: UInt8, Comparable {
        case waiting, ready, cut, answered, merged

        static func < (left: Status, right: Status) -> Bool { left.rawValue < right.rawValue }
    }

    /// A consequence of an event, in the order in which it may be carried out.
    enum Change {
        case ready(Tile)
        /// The coordinator does the tile now.
        case compute(Tile)
        case merged(Tile)
        case finished(pass: Int)
    }

    private struct PassState {
        enum Phase { case waiting, begun, finished }

        var phase = Phase.waiting
        /// Dependencies that keep the pass from beginning: passes that it reads all of and that are not finished, and
        /// passes that it reads parts of and that have merged nothing.
        var unopened = 0
        /// Dependencies on whole passes that keep it from merging.
        var gates = 0
        var status: [Status] = []
        /// For each tile, how many it reads from that are not merged.
        var unmerged: [Int32] = []
        /// For each tile, how many keep its answer from being merged: they still want the old values, or have to write
        /// before.
        var blockers: [Int32] = []
        /// Tiles that are at least so far.
        var cut = 0
        var answered = 0
        var merged = 0

        func reached(_ milestone: Status) -> Int {
            switch milestone {
            case .waiting, .ready: status.count
            case .cut: cut
            case .answered: answered
            case .merged: merged
            }
        }
    }

    /// A step that the graph takes when nothing else is under way.
    private enum Transition {
        case begin(pass: Int)
        /// Merge the tile, or do it where the coordinator does it, if nothing keeps it from that.
        case settle(Tile)
    }

    /// Rules of a pass, the same from the beginning to the end.
    private struct PassRules {
        var geometry: PassGeometry
        var isLocal: Bool
        var isOrdered: Bool
        /// Dependencies that the pass waits for.
        var needs: [Dependency] = []
        /// Which dependencies a tile of it may end, when it is so far.
        var endedByCut: [Dependency] = []
        var endedByAnswer: [Dependency] = []
        var endedByMerge: [Dependency] = []

        func ended(by milestone: Status) -> [Dependency] {
            switch milestone {
            case .waiting, .ready: []
            case .cut: endedByCut
            case .answered: endedByAnswer
            case .merged: endedByMerge
            }
        }
    }

    /// The lowest pass that is not finished.
    private(set) var currentPass: Int
    /// Changes since they were cleared.
    private(set) var changes: [Change] = []
    private var rules: [PassRules]
    private var states: [PassState]
    private var transitions: Deque<Transition> = []

    /// Call `start` next.
    /// - Parameters:
    ///   - first: the passes before it are finished
    ///   - hasBarrier: whether reads of windows and cells wait for the writer's last tile
    init(_ pipeline: Pipeline, startingAt first: Int = 0, hasBarrier: Bool = false) {
        currentPass = min(first, pipeline.passes.count)
        rules = pipeline.passes.map {
            PassRules(geometry: PassGeometry($0), isLocal: $0.isLocal, isOrdered: $0.isOrdered)
        }
        states = Array(repeating: PassState(), count: rules.count)
        for pass in 0..<currentPass { states[pass].phase = .finished }
        for dependency in Self.dependencies(of: pipeline, startingAt: first, hasBarrier: hasBarrier) {
            rules[dependency.target].needs.append(dependency)
            if dependency.effect == .cutting { states[dependency.target].unopened += 1 }
            switch dependency.milestone {
            case .waiting, .ready: break
            case .cut: rules[dependency.source].endedByCut.append(dependency)
            case .answered: rules[dependency.source].endedByAnswer.append(dependency)
            case .merged: rules[dependency.source].endedByMerge.append(dependency)
            }
        }
    }

    var isFinished: Bool { currentPass == rules.count }

    /// nil for tiles of passes that are finished or have not begun, and for those that the job does not have.
    func status(of tile: Tile) -> Status? {
        guard states.indices.contains(tile.pass), states[tile.pass].status.indices.contains(tile.index) else {
            return nil
        }
        return states[tile.pass].status[tile.index]
    }

    mutating func clearChanges() { changes.removeAll(keepingCapacity: true) }

    // MARK: Events

    /// Begins the passes that wait for nothing.
    mutating func start() {
        for pass in states.indices where states[pass].phase == .waiting && states[pass].unopened == 0 {
            transitions.append(.begin(pass: pass))
        }
        carryOutTransitions()
    }

    /// The inputs of a tile have been cut.
    mutating func cut(_ tile: Tile) {
        reach(.cut, tile)
        carryOutTransitions()
    }

    /// The answer of a tile that was cut is there.
    mutating func answer(_ tile: Tile) {
        reach(.answered, tile)
        transitions.append(.settle(tile))
        carryOutTransitions()
    }

    // MARK: Transitions

    private mutating func carryOutTransitions() {
        while let transition = transitions.popFirst() {
            switch transition {
            case .begin(let pass): begin(pass)
            case .settle(let tile): settle(tile)
            }
        }
    }

    private mutating func begin(_ pass: Int) {
        let count = rules[pass].geometry.count
        states[pass].phase = .begun
        states[pass].status = Array(repeating: .waiting, count: count)
        states[pass].unmerged = Array(repeating: 0, count: count)
        states[pass].blockers = Array(repeating: 0, count: count)
        for dependency in rules[pass].needs { countWaiting(dependency) }
        for tile in 0..<count where states[pass].unmerged[tile] == 0 { makeReady(Tile(pass: pass, index: tile)) }
        if count == 0 { finishEmpty(pass) }
    }

    /// Counts the tiles that a pass which begins still has to wait for.
    private mutating func countWaiting(_ dependency: Dependency) {
        let (source, target) = (dependency.source, dependency.target)
        guard states[source].phase != .finished else { return }
        let from = rules[source].geometry, to = rules[target].geometry
        let reached = states[source].reached(dependency.milestone)
        guard let region = dependency.region else {
            // That the pass begins says that it need not wait with cutting. A pass without tiles has cut all of them.
            if dependency.effect == .merging, dependency.milestone == .merged || reached < from.count {
                states[target].gates += 1
            }
            return
        }
        for tile in 0..<to.count {
            let places = from.places(region.source, touching: to.part(region.target, of: tile))
            var left: Int32 = 0
            if reached == 0, !from.isSampled {
                left = Int32(places.count)
            } else {
                for place in places {
                    guard let other = from.tile(at: place) else { continue }
                    if reached == 0 || states[source].status[other] < dependency.milestone { left += 1 }
                }
            }
            switch dependency.effect {
            case .cutting: states[target].unmerged[tile] += left
            case .merging: states[target].blockers[tile] += left
            }
        }
    }

    private mutating func makeReady(_ tile: Tile) {
        states[tile.pass].status[tile.index] = .ready
        if rules[tile.pass].isLocal { transitions.append(.settle(tile)) } else { changes.append(.ready(tile)) }
    }

    private mutating func settle(_ tile: Tile) {
        guard states[tile.pass].phase == .begun, states[tile.pass].gates == 0,
            states[tile.pass].blockers[tile.index] == 0
        else { return }
        switch states[tile.pass].status[tile.index] {
        case .ready where rules[tile.pass].isLocal:
            changes.append(.compute(tile))
            reach(.cut, tile)
            reach(.answered, tile)
            merge(tile)
        case .answered where !rules[tile.pass].isOrdered || tile.index == states[tile.pass].merged:
            changes.append(.merged(tile))
            merge(tile)
        default:
            break
        }
    }

    private mutating func merge(_ tile: Tile) {
        let pass = tile.pass
        reach(.merged, tile)
        let merged = states[pass].merged
        if merged == 1 { openReadersOfParts(pass) }
        if merged == states[pass].status.count {
            finish(pass)
        } else if rules[pass].isOrdered {
            transitions.append(.settle(Tile(pass: pass, index: merged)))
        }
    }

    /// A pass without tiles finishes when it might have merged one: what it writes is empty from then on.
    private mutating func finishEmpty(_ pass: Int) {
        guard states[pass].phase == .begun, states[pass].gates == 0 else { return }
        openReadersOfParts(pass)
        finish(pass)
    }

    private mutating func finish(_ pass: Int) {
        states[pass] = PassState(phase: .finished)
        changes.append(.finished(pass: pass))
        for dependency in rules[pass].endedByMerge where dependency.region == nil {
            switch dependency.effect {
            case .cutting: open(dependency)
            case .merging: openGate(dependency)
            }
        }
        while currentPass < states.count, states[currentPass].phase == .finished { currentPass += 1 }
    }

    // MARK: Ends of dependencies

    /// A tile is so far; whoever waits for that waits no longer.
    private mutating func reach(_ milestone: Status, _ tile: Tile) {
        let pass = tile.pass
        states[pass].status[tile.index] = milestone
        switch milestone {
        case .waiting, .ready: break
        case .cut: states[pass].cut += 1
        case .answered: states[pass].answered += 1
        case .merged: states[pass].merged += 1
        }
        let isLast = states[pass].reached(milestone) == states[pass].status.count
        for dependency in rules[pass].ended(by: milestone) {
            if let region = dependency.region {
                end(dependency, region, tile.index)
            } else if isLast, milestone != .merged {
                openGate(dependency)
            }
        }
    }

    /// A tile keeps those of a pass that has begun from nothing more; passes that begin later do not count it.
    private mutating func end(_ dependency: Dependency, _ region: Dependency.Region, _ source: Int) {
        let pass = dependency.target
        guard states[pass].phase == .begun else { return }
        let geometry = rules[pass].geometry
        let part = rules[dependency.source].geometry.part(region.source, of: source)
        for place in geometry.places(region.target, touching: part) {
            guard let tile = geometry.tile(at: place) else { continue }
            switch dependency.effect {
            case .cutting:
                states[pass].unmerged[tile] -= 1
                if states[pass].unmerged[tile] == 0 { makeReady(Tile(pass: pass, index: tile)) }
            case .merging:
                states[pass].blockers[tile] -= 1
                if states[pass].blockers[tile] == 0 { settleLater(Tile(pass: pass, index: tile)) }
            }
        }
    }

    private mutating func openGate(_ dependency: Dependency) {
        let pass = dependency.target
        guard states[pass].phase == .begun else { return }
        states[pass].gates -= 1
        guard states[pass].gates == 0 else { return }
        if states[pass].status.isEmpty { return finishEmpty(pass) }
        for tile in states[pass].status.indices { settleLater(Tile(pass: pass, index: tile)) }
    }

    private mutating func settleLater(_ tile: Tile) {
        let status = states[tile.pass].status[tile.index]
        if status == .answered || status == .ready && rules[tile.pass].isLocal { transitions.append(.settle(tile)) }
    }

    private mutating func openReadersOfParts(_ pass: Int) {
        for dependency in rules[pass].endedByMerge where dependency.region != nil { open(dependency) }
    }

    private mutating func open(_ dependency: Dependency) {
        guard dependency.effect == .cutting else { return }
        states[dependency.target].unopened -= 1
        if states[dependency.target].unopened == 0 { transitions.append(.begin(pass: dependency.target)) }
    }
}
