import Coordinator
import Engine

/// Blurs the picture twice, and makes it so bright that its mean after the first time would be a half. No network is
/// asked.
enum BlurTwice: Method {
    static let name = "blur-twice"

    static func isDefault(for model: ModelFolder) -> Bool { false }

    static func plan(_ request: RenderRequest, _ context: PlanContext) throws -> JobPlan {
        let picture = try PictureGeometry(context, scale: 1)
        let (height, width) = (picture.outputHeight, picture.outputWidth)
        let tiling = try Tiling(
            canvasHeight: height, canvasWidth: width, tile: request.tiling.tile ?? 8, overlap: .implicit(halo: 1),
            offset: .random, alignment: 1, seed: request.seed)

        let planes = [
            Plane("picture", .picture(height: height, width: width)),
            Plane("blurred", .array(height: height, width: width, channels: 3, element: .float32)),
            Plane("sum", .values(count: 1, element: .float64)),
            Plane("pixels", .array(height: height, width: width, channels: 3, element: .float32)),
        ]
        let (first, second) = (tiling.grid(step: 0), tiling.grid(step: 1))
        let passes = [
            Pass(
                "blur", places: .grid(first), reads: [Read(0, .window())],
                writes: [Write(1, .cells()), Write(2, .sum())],
                work: .task { tile in
                    Blur(
                        canvasHeight: height, canvasWidth: width, window: first.window(tile), cell: first.cell(tile),
                        givesSum: true)
                }),
            Pass(
                "blur again", places: .grid(second), reads: [Read(1, .window()), Read(2, .whole, .blob)],
                writes: [Write(3, .cells())],
                work: .task { tile in
                    Blur(
                        canvasHeight: height, canvasWidth: width, window: second.window(tile),
                        cell: second.cell(tile), takesSum: true)
                }),
        ]
        return try JobPlan(
            pipeline: Pipeline(planes: planes, stages: [Stage(passes)], output: 3), picture: picture, tiling: tiling,
            sampler: context.sampler(request, schedule: context.model.schedule, defaultSteps: 1), seed: request.seed,
            precision: .float32)
    }
}
