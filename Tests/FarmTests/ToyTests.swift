import Coordinator
import Engine
import Protocol
import Testing

/// A method, a sampler and an operation that the program does not have: each is a file here, and a line of these.
@Suite("Toys", .serialized, .timeLimit(.minutes(5)))
struct ToyTests {
    private static let operations = OperationTable.standard.adding(Blur.self)
    private static let samplers = SamplerTable.standard.adding(Jump.self)
    private static let methods = MethodTable.standard.adding(BlurTwice.self)

    private let scratch: Scratch
    private let width = 20, height = 16

    init() throws { scratch = try Scratch() }

    private func request(_ options: [String]) throws -> RenderRequest {
        var request = try UpscaleOptions.request(options)
        request.input = try scratch.picture("in.png", width: width, height: height, bitDepth: 16)
        request.output = RenderRequest.Output(png: scratch.path("out.png"))
        return request
    }

    @Test("a new method of a new operation makes, on two workers, the picture that a loop makes")
    func method() async throws {
        var request = try request(["--seed", "5"])
        request.method = BlurTwice.name
        let farm = ToyFarm(methods: Self.methods, operations: Self.operations)
        let picture = try await farm.render(request, workers: 2)

        let once = blurred(try RGBImage(png: request.input).pixels)
        let mean = Float(once.reduce(0) { $0 + Double($1) } / Double(once.count))
        let expected = blurred(once).map { $0 + (0.5 - mean) }
        #expect(try picture == ToyFarm.stored(expected, width: width, height: height, in: scratch))
    }

    /// The whole picture after `Blur`, without tiles.
    private func blurred(_ pixels: [Float]) -> [Float] {
        pixels.indices.map { index in
            let (y, x, channel) = (index / 3 / width, index / 3 % width, index % 3)
            var sum: Float = 0
            for row in y - 1...y + 1 {
                for column in x - 1...x + 1 {
                    let (row, column) = (min(max(row, 0), height - 1), min(max(column, 0), width - 1))
                    sum += pixels[(row * width + column) * 3 + channel]
                }
            }
            return sum / 9
        }
    }

    @Test("a new sampler gives the same picture on one worker, on two, and with one tile after the other")
    func sampler() async throws {
        var request = try request(["--tile", "48", "--halo", "16", "--steps", "3", "--seed", "5"])
        request.sampler.name = Jump.name
        let farm = ToyFarm(samplers: Self.samplers)
        let one = try await farm.render(request, workers: 1)
        #expect(try await farm.render(request, workers: 2) == one)

        let model = try ModelFolder(url: DefaultModel.url)
        let plan = try MethodTable.standard.plan(
            request, PlanContext(model: model, inputHeight: height, inputWidth: width, samplers: Self.samplers))
        #expect(plan.pipeline.taskCount > 2 * plan.steps && plan.sampler[0].coefficients.noise > 0)
        let job = try SequentialJob(
            plan, InputImage(RGBImage(png: request.input)), model: model.load(precision: plan.precision))
        try job.run()
        #expect(try one == ToyFarm.stored(job.rows(), width: 4 * width, height: 4 * height, in: scratch))
    }

    @Test("workers that do not have the operation say so, and the job ends with their words")
    func unknownOperation() async throws {
        // A single tile, which three workers fail on.
        var request = try request(["--tile", "32"])
        request.method = BlurTwice.name
        let error = await #expect(throws: RunError.self) {
            try await ToyFarm(methods: Self.methods).render(request, workers: 3)
        }
        guard case .tileFailed("blur", tile: 0, let reason, let saved) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason.contains("a task of the operation \"blur\", which this version does not have"))
        #expect(saved == request.output.png + ".failed-tile")
    }
}
