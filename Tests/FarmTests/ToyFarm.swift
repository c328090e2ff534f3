import Coordinator
import Engine
import Foundation
import Logging
import Protocol
import Testing
import Worker

/// A coordinator and its workers as threads of this process, on a port of the loopback.
struct ToyFarm {
    var methods = MethodTable.standard
    var samplers = SamplerTable.standard
    var operations = OperationTable.standard

    /// Renders and returns the picture. Every worker does some of the tasks.
    /// - Throws: `RunError`, and what is wrong with the request.
    func render(_ request: RenderRequest, workers: Int) async throws -> RGBImage {
        let logger = Logger(label: "toys") { _ in SwiftLogNoOpLogHandler() }
        let words = Farm.FarmWords(tooLittleMemory: { "\($0) bytes, \($1) lanes, \($2)" }, mixedKernels: "mixed")
        var settings = FarmSettings()
        settings.bind = "tcp://127.0.0.1:\(try freePort())"
        var run = RenderRun(request: request, settings: settings, words: words)
        (run.methods, run.samplers, run.endsAtSignals) = (methods, samplers, false)
        let parts = try run.check(jobFolder: nil)

        var hands: [(link: FarmLink, thread: OSThread)] = []
        defer {
            for hand in hands { hand.link.drain(reason: "the test is over") }
            for hand in hands { hand.thread.join() }
        }
        let meeting = Meeting(of: workers)
        for number in 1...workers {
            var worker = WorkerSettings(
                endpoint: try Endpoint(settings.bind ?? ""), name: "toy-\(number)", lanes: 1,
                kernels: try KernelEnvironment.kernels(),
                model: .folder(DefaultModel.url) { folder, precision in
                    PatientModel(try ModelSource.load(folder, precision: precision), meeting)
                })
            worker.operations = operations
            let link = try FarmLink(worker, logger: logger)
            hands.append((link, try OSThread(name: "toy-\(number)") { _ = link.run() }))
        }
        try await run.run(parts, logger)
        #expect(meeting.isComplete)
        return try RGBImage(png: request.output.png)
    }

    /// Numbers as a picture of 16 bits has them.
    static func stored(_ pixels: [Float], width: Int, height: Int, in scratch: Scratch) throws -> RGBImage {
        let path = scratch.path("\(UUID().uuidString).png")
        let writer = try PNGWriter(path: path, width: width, height: height, bitDepth: 16, grey: false, alpha: false)
        for y in 0..<height {
            try writer.writeRow(rgb: pixels.span.extracting(y * width * 3..<(y + 1) * width * 3), alpha: Span())
        }
        try writer.finish()
        return try RGBImage(png: path)
    }
}

/// A place where workers wait for each other.
private final class Meeting: @unchecked Sendable {
    private let count: Int
    private let condition = NSCondition()
    private var arrived: Set<ObjectIdentifier> = []

    init(of count: Int) { self.count = count }

    var isComplete: Bool { condition.withLock { arrived.count == count } }

    func arrive(_ model: PatientModel) {
        let deadline = Date(timeIntervalSinceNow: 30)
        condition.withLock {
            arrived.insert(ObjectIdentifier(model))
            condition.broadcast()
            while arrived.count < count, condition.wait(until: deadline) {}
        }
    }
}

/// A worker's model that does no task before every worker has one.
private final class PatientModel: TaskPerformer {
    private let model: any TaskModel
    private let meeting: Meeting

    init(_ model: any TaskModel, _ meeting: Meeting) { (self.model, self.meeting) = (model, meeting) }

    func perform(_ task: FarmTask, _ tensors: any TaskTensors, workspace: Workspace) throws -> String? {
        meeting.arrive(self)
        return try task.task.operation.perform(on: model, tensors, workspace: workspace)
    }
}
