import Engine

extension TaskGraph {
    /// The part of a plane that an access of a tile covers.
    enum Footprint: Hashable {
        case everything
        case window(Scale)
        case cell(Scale)
    }

    /// A reason why tiles of a pass cannot be cut yet, or their answers not merged: tiles of an earlier pass, or of
    /// the same, that are not yet as far as they must be.
    struct Dependency: Hashable {
        enum Effect { case cutting, merging }

        /// The pass whose tiles are waited for, and how far each of them must be.
        var source: Int
        var milestone: Status
        /// The pass whose tiles wait, and with what.
        var target: Int
        var effect: Effect
        /// The part of the plane that tiles of either pass cover: those that meet wait for one another. nil: all wait
        /// for all.
        var region: Region?

        struct Region: Hashable {
            var source: Footprint
            var target: Footprint

            /// nil where either covers everything.
            init?(_ source: Footprint, _ target: Footprint) {
                guard source != .everything, target != .everything else { return nil }
                self.source = source
                self.target = target
            }
        }
    }

    /// The dependencies of the passes from `first` on.
    ///
    /// - Read after write: a tile is cut when what it reads is merged.
    /// - Write after read: it is merged when nobody wants what stands there any more. A frame is wanted until it is
    ///   cut, a blob until the task is answered, as another worker may ask for it.
    /// - Write after write: it is merged after what was written there before.
    ///
    /// - Parameter hasBarrier: whether reads of windows and cells wait for the writer's last tile
    static func dependencies(of pipeline: Pipeline, startingAt first: Int, hasBarrier: Bool) -> [Dependency] {
        var dependencies: [Dependency] = []
        var known: Set<Dependency> = []
        func add(_ dependency: Dependency) {
            // What was done before the start holds nobody back, and the coordinator's own tile reads as it writes.
            guard dependency.source >= first, dependency.target >= first,
                dependency.source != dependency.target || !pipeline.passes[dependency.source].isLocal,
                known.insert(dependency).inserted
            else { return }
            dependencies.append(dependency)
        }

        var planes = [PlaneState](repeating: PlaneState(), count: pipeline.planes.count)
        for (index, pass) in pipeline.passes.enumerated() {
            for read in pass.reads where read.needsPlane {
                let footprint = Footprint(read)
                if let writer = planes[read.plane].writer {
                    let region = hasBarrier ? nil : Dependency.Region(writer.footprint, footprint)
                    add(.init(source: writer.pass, milestone: .merged, target: index, effect: .cutting, region: region))
                }
                planes[read.plane].readers.append(Reader(read, pass: index))
            }
            for write in pass.writes {
                let footprint = Footprint(write), old = planes[write.plane]
                // Who reads what a sum leaves as it is keeps nobody from it, and still has to be waited for later.
                let isKept = { (reader: Reader) in reader.end <= write.start }
                for reader in old.readers where !isKept(reader) {
                    add(
                        .init(
                            source: reader.pass, milestone: reader.milestone, target: index, effect: .merging,
                            region: .init(reader.footprint, footprint)))
                }
                if let writer = old.writer, !old.readers.contains(where: { $0.pass == index && $0.covers(footprint) }) {
                    add(
                        .init(
                            source: writer.pass, milestone: .merged, target: index, effect: .merging,
                            region: .init(writer.footprint, footprint)))
                }
                planes[write.plane] = PlaneState(
                    writer: Writer(pass: index, footprint: footprint), readers: old.readers.filter(isKept))
            }
        }
        return dependencies
    }

    /// Who has written a plane last, and who has read that.
    private struct PlaneState {
        var writer: Writer?
        var readers: [Reader] = []
    }

    private struct Writer {
        var pass: Int
        var footprint: Footprint
    }

    private struct Reader {
        let pass: Int
        let footprint: Footprint
        /// How far its tiles must be before they no longer want the plane as it is.
        let milestone: Status
        /// The end of what it reads of a plane of values.
        let end: Int

        init(_ read: Read, pass: Int) {
            self.pass = pass
            footprint = Footprint(read)
            milestone = read.delivery == .blob ? .answered : .cut
            end = if case .leading(let count) = read.region { count } else { .max }
        }

        /// Whether a tile that reads this has waited for all that was written where it writes.
        func covers(_ written: Footprint) -> Bool {
            switch (footprint, written) {
            case (.everything, _): true
            case (.window(let read), .cell(let write)), (.cell(let read), .cell(let write)): read == write
            default: false
            }
        }
    }
}

extension TaskGraph.Footprint {
    init(_ read: Read) {
        switch read.region {
        case .window(let scale): self = .window(scale)
        case .cell(let scale): self = .cell(scale)
        case .whole, .leading, .part: self = .everything
        }
    }

    /// Sums, blends and whole writes make a plane anew, so they write all of it.
    init(_ write: Write) {
        switch write.merge {
        case .cells(let scale): self = .cell(scale)
        case .whole, .sum, .blend: self = .everything
        }
    }
}

/// Where the tiles of a pass lie.
struct PassGeometry {
    let count: Int
    private let grid: TileGrid?
    /// The places of the tiles where not every place of the grid has one, ascending.
    private let sampled: [Int]?

    /// Whether only some places of the grid have a tile.
    var isSampled: Bool { sampled != nil }

    init(_ pass: Pass) {
        count = pass.count
        grid = pass.grid
        sampled = if case .sample(_, let places) = pass.places { places } else { nil }
    }

    /// The part of a plane that a window or a cell covers.
    func part(_ footprint: TaskGraph.Footprint, of tile: Int) -> Rect {
        let place = sampled?[tile] ?? tile
        switch footprint {
        case .window(let scale): if let part = grid.flatMap({ scale.plane($0.window(place)) }) { return part }
        case .cell(let scale): if let part = grid.flatMap({ scale.plane($0.cell(place)) }) { return part }
        case .everything: break
        }
        preconditionFailure("a pipeline has only parts that fit its planes")
    }

    /// The places of the grid whose windows or cells cover some of `part`; `tile(at:)` says which tiles these are.
    func places(_ footprint: TaskGraph.Footprint, touching part: Rect) -> TileRange {
        switch footprint {
        case .window(let scale): if let grid { return grid.tilesReading(scale.grid(part)) }
        case .cell(let scale): if let grid { return grid.tilesWriting(scale.grid(part)) }
        case .everything: break
        }
        preconditionFailure("a pipeline has windows and cells in passes with a grid alone")
    }

    /// The tile at a place of the grid; nil where the pass has none.
    func tile(at place: Int) -> Int? {
        guard let sampled else { return place }
        var (low, high) = (0, sampled.count)
        while low < high {
            let middle = (low + high) / 2
            if sampled[middle] < place { low = middle + 1 } else { high = middle }
        }
        return low < sampled.count && sampled[low] == place ? low : nil
    }
}
