import Coordinator
import Engine
import Testing

@Suite("Pipelines that contradict themselves")
struct PipelineErrorTests {
    private static let picture = 0, text = 1, sample = 2, low = 3, sums = 4
    private static let planes = [
        Plane("picture", .picture(height: 10, width: 12)), Plane("text", .text("a cat")),
        Plane("sample", height: 20, width: 24), Plane("low", height: 5, width: 6),
        Plane("sums", .values(count: 2, element: .float64)),
    ]

    private static func grid(
        _ height: Int = 20, _ width: Int = 24, tile: Int = 8, _ overlap: Tiling.Overlap = .implicit(halo: 2),
        alignment: Int = 1
    ) throws -> TileGrid {
        try Tiling(
            canvasHeight: height, canvasWidth: width, tile: tile, overlap: overlap, offset: .none, alignment: alignment,
            seed: 0
        ).grid(step: 0)
    }

    private static func check(
        _ error: PipelineError, _ passes: Pass..., planes: [Plane] = planes, output: Plane.ID = sample
    ) {
        #expect(throws: error) { try Pipeline(planes: planes, stages: [Stage(passes)], output: output) }
    }

    /// A pass that writes the sample, for others to follow.
    private static func first() throws -> Pass {
        Pass("first", .grid(try grid()), writes: [Write(sample, .cells())])
    }

    @Test("a plane is read before it is written")
    func readBeforeWritten() throws {
        let (grid, sample) = (try Self.grid(), Self.sample)
        for region in [Read.Region.window(), .cell(), .whole] {
            let pass = Pass("p", .grid(grid), reads: [Read(sample, region)], writes: [Write(sample, .cells())])
            Self.check(.readBeforeWritten(plane: "sample", pass: 0), pass)
        }
        Self.check(
            .readBeforeWritten(plane: "sums", pass: 1), try Self.first(),
            Pass("p", .one, reads: [Read(Self.sums, .whole)], writes: [Write(Self.low, .whole)]))
        // The output, and an output that is none.
        Self.check(.readBeforeWritten(plane: "low", pass: 1), try Self.first(), output: Self.low)
        Self.check(
            .readBeforeWritten(plane: "sums", pass: 1), Pass("p", .one, writes: [Write(Self.sums, .whole)]),
            output: Self.sums)
        // Noise is there before anything is.
        let noise = Read(sample, .window(), .noise(NoiseField(.initial)))
        let pass = Pass("p", .grid(grid), reads: [noise], writes: [Write(sample, .cells())])
        #expect(try Pipeline(planes: Self.planes, stages: [Stage([pass])], output: sample).writers == [[nil]])
    }

    @Test("what is given is written, or one pass writes a plane twice")
    func wrongWrites() throws {
        let grid = try Self.grid()
        Self.check(
            .givenPlaneWritten(plane: "picture", pass: 1), try Self.first(),
            Pass("p", .one, writes: [Write(Self.picture, .whole)]))
        Self.check(
            .givenPlaneWritten(plane: "text", pass: 1), try Self.first(),
            Pass("p", .one, writes: [Write(Self.text, .sum())]))
        let twice = [Write(Self.sample, .cells()), Write(Self.sample, .blend(.mean))]
        Self.check(.writtenTwice(plane: "sample", pass: 0), Pass("p", .grid(grid), writes: twice))
    }

    @Test("cells overlap, leave gaps or reach beyond the plane")
    func cells() throws {
        let overlapping = try Self.grid(20, 24, .explicit(width: 2, weights: .mean))
        let short = try Self.grid(16, 24), long = try Self.grid(24, 24)
        let some = Pass.Places.sample(try Self.grid(), [0, 2])
        for places in [.grid(overlapping), .grid(short), .grid(long), some] {
            Self.check(
                .cellsDoNotCover(plane: "sample", pass: 0), Pass("p", places, writes: [Write(Self.sample, .cells())]))
        }
        Self.check(
            .cellsDoNotCover(plane: "low", pass: 0),
            Pass("p", .grid(try Self.grid(40, 48)), writes: [Write(Self.low, .cells(Scale(up: 1)))]))
    }

    @Test("borders of windows or cells fall between positions of a plane, or windows reach beyond it")
    func scales() throws {
        let quarter = Scale(down: 4), odd = try Self.grid(tile: 7)
        let aligned = try Self.grid(tile: 8, .implicit(halo: 0), alignment: 4)
        Self.check(
            .scaleDoesNotFit(plane: "low", pass: 0), Pass("p", .grid(odd), writes: [Write(Self.low, .cells(quarter))]))
        let low = Pass("p", .grid(aligned), writes: [Write(Self.low, .cells(quarter))])
        for region in [Read.Region.window(quarter), .cell(quarter)] {
            let reader = Pass(
                "q", .grid(odd), reads: [Read(Self.low, region)], writes: [Write(Self.sample, .cells())])
            Self.check(.scaleDoesNotFit(plane: "low", pass: 1), low, reader)
        }
        let beyond = Pass(
            "q", .grid(aligned), reads: [Read(Self.low, .window())], writes: [Write(Self.sample, .cells())])
        Self.check(.scaleDoesNotFit(plane: "low", pass: 1), low, beyond)
        Self.check(
            .scaleDoesNotFit(plane: "low", pass: 0), Pass("p", .grid(odd), writes: [Write(Self.low, .blend(.mean))]))
        // The picture goes on beyond its border, and the same passes fit where the grid is aligned.
        let reader = Pass(
            "q", .grid(aligned), reads: [Read(Self.low, .window(quarter)), Read(Self.picture, .window())],
            writes: [Write(Self.sample, .cells())])
        _ = try Pipeline(planes: Self.planes, stages: [Stage([low, reader])], output: Self.sample)
    }

    @Test("a region or a merge does not go with the pass or the plane")
    func regions() throws {
        let grid = Pass.Places.grid(try Self.grid())
        func impossible(_ plane: String, _ pass: Pass) throws {
            Self.check(.impossibleRegion(plane: plane, pass: 1), try Self.first(), pass)
        }
        let low = [Write(Self.low, .whole)]
        try impossible("sample", Pass("p", .one, reads: [Read(Self.sample, .window())], writes: low))
        try impossible("sample", Pass("p", .one, reads: [Read(Self.sample, .cell())], writes: low))
        try impossible("text", Pass("p", grid, reads: [Read(Self.text, .window())], writes: low))
        let part = Read.Region.part { _ in Rect(y: 0, x: 0, height: 1, width: 1) }
        try impossible("sample", Pass("p", .one, reads: [Read(Self.sample, part)], writes: low))
        try impossible("sample", Pass("p", grid, writes: [Write(Self.sample, .whole)]))
        try impossible("sample", Pass("p", grid, writes: [Write(Self.sample, .sum())]))
        try impossible("sample", Pass("p", .one, writes: [Write(Self.sample, .cells())]))
        try impossible("sample", Pass("p", .one, writes: [Write(Self.sample, .blend(.mean))]))
        try impossible("sums", Pass("p", grid, writes: [Write(Self.sums, .blend(.mean))]))
        try impossible("sums", Pass("p", grid, writes: [Write(Self.sums, .cells())]))
    }

    @Test("planes have one name, or are not there")
    func planes() throws {
        Self.check(.samePlaneNames, try Self.first(), planes: Self.planes + [Plane("low", height: 1, width: 1)])
        Self.check(.noSuchPlane(9, pass: 0), Pass("p", .one, writes: [Write(9, .whole)]))
        Self.check(.noSuchPlane(-1, pass: 0), Pass("p", .one, reads: [Read(-1, .whole)], writes: []))
        Self.check(.noSuchPlane(5, pass: 1), try Self.first(), output: 5)
    }

    @Test("the coordinator's own work has several tiles, or is not about arrays")
    func localWork() throws {
        Self.check(
            .impossibleLocalWork(pass: 1), try Self.first(),
            Pass(local: "p", reads: [Read(Self.picture, .whole)], writes: [Write(Self.low, .whole)]))
        Self.check(
            .impossibleLocalWork(pass: 1), try Self.first(),
            Pass(local: "p", reads: [Read(Self.sample, .whole)], writes: [Write(Self.sums, .whole)]))
        var several = Pass(
            local: "p", reads: [Read(Self.sample, .whole)], writes: [Write(Self.low, .cells(Scale(down: 4)))])
        several.places = .grid(try Self.grid(tile: 8, .implicit(halo: 0), alignment: 4))
        Self.check(.impossibleLocalWork(pass: 1), try Self.first(), several)
    }
}
