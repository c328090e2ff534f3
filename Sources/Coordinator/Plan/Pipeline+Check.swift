import Engine

extension Pipeline {
    /// Whether a pass's accesses can be what they say.
    static func check(_ pass: Pass, _ index: Int, _ planes: [Plane]) throws(PipelineError) {
        for read in pass.reads {
            guard planes.indices.contains(read.plane) else { throw .noSuchPlane(read.plane, pass: index) }
            try check(read, of: pass, index, planes[read.plane])
        }
        var written: Set<Plane.ID> = []
        for write in pass.writes {
            guard planes.indices.contains(write.plane) else { throw .noSuchPlane(write.plane, pass: index) }
            let plane = planes[write.plane]
            guard !plane.isGiven else { throw .givenPlaneWritten(plane: plane.name, pass: index) }
            guard written.insert(write.plane).inserted else { throw .writtenTwice(plane: plane.name, pass: index) }
            try check(write, of: pass, index, plane)
        }
        if pass.isLocal {
            let accessed = pass.reads.map(\.plane) + pass.writes.map(\.plane)
            guard pass.count == 1, accessed.allSatisfy({ planes[$0].arrayBytes > 0 }) else {
                throw .impossibleLocalWork(pass: index)
            }
        }
    }

    private static func check(_ read: Read, of pass: Pass, _ index: Int, _ plane: Plane) throws(PipelineError) {
        let impossible = PipelineError.impossibleRegion(plane: plane.name, pass: index)
        switch read.region {
        case .whole: break
        case .leading(let count):
            guard case .values(let all, _) = plane.content, (1...all).contains(count) else { throw impossible }
        case .part:
            guard case .picture = plane.content else { throw impossible }
        case .window(let scale), .cell(let scale):
            guard let grid = pass.grid, let size = plane.size else { throw impossible }
            let isWindow = if case .window = read.region { true } else { false }
            // The picture goes on beyond its border; arrays do not.
            let isBounded = plane.arrayBytes > 0
            for (axis, length) in [(grid.rows, size.height), (grid.columns, size.width)] {
                for span in isWindow ? axis.windows : axis.cells {
                    guard let start = scale.plane(span.lowerBound), let end = scale.plane(span.upperBound),
                        !isBounded || end <= length
                    else { throw .scaleDoesNotFit(plane: plane.name, pass: index) }
                    _ = start
                }
            }
        }
    }

    private static func check(_ write: Write, of pass: Pass, _ index: Int, _ plane: Plane) throws(PipelineError) {
        let impossible = PipelineError.impossibleRegion(plane: plane.name, pass: index)
        switch write.merge {
        case .whole:
            guard pass.count == 1 else { throw impossible }
        case .sum:
            guard case .values(let count, _) = plane.content, !plane.isGiven else { throw impossible }
            if case .sum(let at) = write.merge { guard (0..<count).contains(at) else { throw impossible } }
        case .blend:
            guard let grid = pass.grid, let size = plane.size, case .grid = pass.places else { throw impossible }
            guard grid.rows.windows.allSatisfy({ $0.upperBound <= size.height }),
                grid.columns.windows.allSatisfy({ $0.upperBound <= size.width })
            else { throw .scaleDoesNotFit(plane: plane.name, pass: index) }
        case .cells(let scale):
            guard let grid = pass.grid, let size = plane.size else { throw impossible }
            guard case .grid = pass.places else { throw .cellsDoNotCover(plane: plane.name, pass: index) }
            for (axis, length) in [(grid.rows, size.height), (grid.columns, size.width)] {
                var end = 0
                for cell in axis.cells {
                    guard let first = scale.plane(cell.lowerBound), let last = scale.plane(cell.upperBound) else {
                        throw .scaleDoesNotFit(plane: plane.name, pass: index)
                    }
                    guard first == end, last > first else { throw .cellsDoNotCover(plane: plane.name, pass: index) }
                    end = last
                }
                guard end == length else { throw .cellsDoNotCover(plane: plane.name, pass: index) }
            }
        }
    }
}
