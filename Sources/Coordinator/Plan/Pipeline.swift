import Engine

/// A part of a job at one resolution: a plain upscale has one, a self-cascade several.
package struct Stage: Sendable {
    package var passes: [Pass]

    package init(_ passes: [Pass]) { self.passes = passes }
}

/// All of a job's work: planes, and the passes that read and write them, in the order in which each sees what those
/// before it have written.
///
/// The order of the list says what the results are, and nothing about time: which tile waits for which follows from the
/// accesses (`TaskGraph`).
package struct Pipeline: Sendable {
    package let planes: [Plane]
    package let stages: [Stage]
    /// The plane that the picture is made from at the end.
    package let output: Plane.ID
    /// The passes of all stages.
    package let passes: [Pass]
    /// For each pass and each of its reads, the pass whose writing it sees; nil for what is given or made from noise.
    package let writers: [[Int?]]

    /// - Throws: `PipelineError` where accesses contradict each other.
    package init(planes: [Plane], stages: [Stage], output: Plane.ID) throws(PipelineError) {
        self.planes = planes
        self.stages = stages
        self.output = output
        passes = stages.flatMap(\.passes)
        var last = [Int?](repeating: nil, count: planes.count)
        var writers: [[Int?]] = []
        guard Set(planes.map(\.name)).count == planes.count else { throw .samePlaneNames }
        for (index, pass) in passes.enumerated() {
            try Self.check(pass, index, planes)
            var sources: [Int?] = []
            for read in pass.reads {
                let plane = planes[read.plane], writer = read.needsPlane ? last[read.plane] : nil
                guard writer != nil || plane.isGiven || !read.needsPlane else {
                    throw .readBeforeWritten(plane: plane.name, pass: index)
                }
                sources.append(writer)
            }
            writers.append(sources)
            for write in pass.writes { last[write.plane] = index }
        }
        guard planes.indices.contains(output) else { throw .noSuchPlane(output, pass: passes.count) }
        guard last[output] != nil, planes[output].arrayBytes > 0 else {
            throw .readBeforeWritten(plane: planes[output].name, pass: passes.count)
        }
        self.writers = writers
    }

    package var taskCount: Int { passes.reduce(0) { $0 + $1.taskCount } }
    /// Steps of the sampler's loop, in all stages.
    package var stepCount: Int { (passes.compactMap(\.step).max() ?? -1) + 1 }

    /// The number of the stage that a pass belongs to.
    package func stage(of pass: Int) -> Int {
        var end = 0
        for (number, stage) in stages.enumerated() {
            end += stage.passes.count
            if pass < end { return number }
        }
        return max(stages.count - 1, 0)
    }

    // MARK: Planes at a boundary

    /// The last pass before `boundary` that writes a plane; nil where none does.
    package func lastWriter(of plane: Plane.ID, before boundary: Int) -> Int? {
        passes[..<boundary].lastIndex { $0.writes.contains { $0.plane == plane } }
    }

    /// The planes that hold something between the passes before `boundary` and the others: written before, and read
    /// by a pass from there on before any such pass has written them anew, or the output.
    package func livePlanes(at boundary: Int) -> [Plane.ID] {
        planes.indices.filter { plane in
            guard lastWriter(of: plane, before: boundary) != nil else { return false }
            for pass in passes[boundary...] {
                if pass.reads.contains(where: { $0.plane == plane && $0.needsPlane }) { return true }
                if pass.writes.contains(where: { $0.plane == plane && $0.start == 0 }) { return false }
            }
            return plane == output
        }
    }

    /// Whether a job can go on from this boundary: sums that are still to be used are never kept.
    package func canCheckpoint(at boundary: Int) -> Bool {
        livePlanes(at: boundary).allSatisfy { plane in
            guard planes[plane].arrayBytes > 0, let writer = lastWriter(of: plane, before: boundary) else {
                return true
            }
            return !passes[writer].writes.contains { $0.plane == plane && $0.isOrdered }
        }
    }

    /// Buffers of a plane that checkpoints may hold and that is written anew after them: one is the last checkpoint,
    /// one on its way to be the next, one is written by what comes after that.
    package static let buffersOfRewrittenPlane = 3

    /// Whether a checkpoint may hold a plane that is written anew after it: such planes have buffers in turn.
    package func isRewritten(_ plane: Plane.ID) -> Bool {
        guard planes[plane].arrayBytes > 0 else { return false }
        let writes = passes.flatMap { pass in pass.writes.filter { $0.plane == plane } }
        return writes.dropLast().contains { !$0.isOrdered }
    }
}

/// Why passes and planes do not make a pipeline. Passes are named by their index.
package enum PipelineError: Error, Equatable {
    case samePlaneNames
    case noSuchPlane(Plane.ID, pass: Int)
    case readBeforeWritten(plane: String, pass: Int)
    /// A plane that is given is written.
    case givenPlaneWritten(plane: String, pass: Int)
    /// A window of what is only read whole, a cell of a pass without places, a part of a plane that is written, a
    /// whole write by several tiles, a blend of what is no array.
    case impossibleRegion(plane: String, pass: Int)
    /// Cells that overlap, leave gaps or reach beyond the plane.
    case cellsDoNotCover(plane: String, pass: Int)
    /// A window or a cell whose borders do not fall between positions of the plane, or that reaches beyond it.
    case scaleDoesNotFit(plane: String, pass: Int)
    /// One pass writes a plane twice.
    case writtenTwice(plane: String, pass: Int)
    /// The coordinator's own work has several tiles, or reads or writes what is no array.
    case impossibleLocalWork(pass: Int)
    /// An operation has other inputs or outputs than its pass reads and writes.
    case slotsDoNotFit(pass: Int, slot: Int, bytes: Int, expected: Int)
}
