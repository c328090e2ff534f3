import ArgumentParser
import Engine
import Foundation
import Logging
import Protocol

/// Who computes, and how the job is followed: what has no influence on the output.
struct FarmOptions: ParsableArguments {
    @Option(help: "Local worker processes to start; they share the cores. Default: one process that uses every core.")
    var workers: Int?

    @OptionGroup var door: DoorOptions
    var bind: String? { door.bind }

    @Option(help: "Admit only workers with these kernels (avx512, avx2, baseline), whose bytes are the same.")
    var kernels: String?

    @Option(help: "The log's format.")
    var logFormat = FarmLogHandler.Format.logfmt

    @Flag(help: .hidden)
    var echo = false

    /// Every step waits for the whole step before, to be compared with.
    @Flag(help: .hidden)
    var barrier = false

    /// 1: no second copies of late tiles, to be compared with.
    @Option(help: .hidden)
    var copies = 2

    var logger: Logger {
        Logger(label: "tilefarm") { [logFormat] label in FarmLogHandler(label: label, format: logFormat) }
    }

    func validate() throws {
        if let workers {
            guard (1...256).contains(workers) else {
                throw ValidationError("--workers \(workers): must be from 1 to 256")
            }
            if bind != nil {
                throw ValidationError("--workers starts local workers and --bind waits for others: choose one")
            }
        }
        if let kernels, KernelSet(rawValue: String(kernels.prefix { $0 != " " })) == nil {
            throw ValidationError(
                "--kernels \(kernels): must be one of \(KernelSet.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        guard (1...2).contains(copies) else { throw ValidationError("--copies \(copies): must be 1 or 2") }
    }
}

/// Where the output goes, and where the job is kept meanwhile.
struct OutputOptions: ParsableArguments {
    @Option(
        name: .shortAndLong,
        help: "The enlarged picture, a PNG of the input's kind. Replaced only when the whole picture is there.")
    var output: String

    @Option(
        help: ArgumentHelp(
            "Write a Deep Zoom pyramid too, with a page to view it: for pictures that few programs open.",
            valueName: "folder"))
    var deepzoom: String?

    @Option(
        help: ArgumentHelp(
            "Keep everything of the job in this folder, so that `tilefarm resume` can go on with it.",
            valueName: "folder"))
    var job: String?

    @Option(
        help: ArgumentHelp(
            "Time between checkpoints, for example 90s, 10m, 1h (with --job). Default: 10m.", valueName: "time"))
    var checkpointEvery: Seconds?

    @Option(
        help: ArgumentHelp(
            """
            Keep the canvas in files when it takes more memory than this, for example 2GiB. Default: half of the \
            machine's.
            """,
            valueName: "size"))
    var memory: ByteSize?

    @Option(
        help: "How the canvas is stored and sent: float32, or float16 for half the memory or disk, and less traffic.")
    var storage = CanvasElement.float32

    func validate() throws {
        if checkpointEvery != nil, job == nil { throw ValidationError("--checkpoint-every belongs to --job") }
        if memory != nil, job != nil {
            throw ValidationError(
                "--memory: a job with --job keeps its canvas in files in any case, leave --memory out")
        }
    }
}

extension CanvasElement: ExpressibleByArgument {}

extension FarmOptions {
    /// The settings that were typed, as a value.
    func settings(_ output: OutputOptions) -> FarmSettings {
        var settings = FarmSettings()
        door.place(into: &settings)
        settings.workers = workers
        settings.kernels = kernels
        settings.checkpointSeconds = output.checkpointEvery?.value
        settings.memoryBytes = output.memory?.bytes
        (settings.echoes, settings.hasBarrier, settings.sendsCopies) = (echo, barrier, copies > 1)
        return settings
    }

    /// Workers may be elsewhere this time; whoever says nothing about them means those of before.
    func settings(resuming former: FarmSettings) -> FarmSettings {
        var settings = former
        if workers != nil || bind != nil {
            settings.workers = workers
            door.place(into: &settings)
        }
        settings.kernels = kernels ?? former.kernels
        return settings
    }
}

/// 90s, 10m, 1.5h; a number alone is seconds.
struct Seconds: ExpressibleByArgument {
    let value: Double

    init?(argument: String) {
        let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600]
        let unit = argument.last.flatMap { units[$0] }
        guard let number = Double(unit == nil ? argument : String(argument.dropLast())), number > 0, number <= 1e6
        else { return nil }
        value = number * (unit ?? 1)
    }
}

/// 2GiB, 500MiB, 3G: powers of 1024; a number alone is bytes.
struct ByteSize: ExpressibleByArgument {
    let bytes: Int

    init?(argument: String) {
        let digits = argument.prefix { $0.isNumber || $0 == "." }
        let units = ["": 1.0, "k": 0x1p10, "m": 0x1p20, "g": 0x1p30, "t": 0x1p40]
        var unit = argument.dropFirst(digits.count).lowercased()
        for suffix in ["ib", "b"] where unit.hasSuffix(suffix) {
            unit.removeLast(suffix.count)
            break
        }
        guard let number = Double(digits), let factor = units[unit], number * factor >= 1, number * factor < 0x1p50
        else { return nil }
        bytes = Int(number * factor)
    }
}
