import ArgumentParser
import Engine
import Foundation
import Protocol

struct TileFarm: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tilefarm", abstract: "A render farm that enlarges pictures with diffusion models.",
        version: Version.number,
        subcommands: [
            UpscaleCommand.self, ResumeCommand.self, PlanCommand.self, SimulateCommand.self, ModelCommand.self,
            KeygenCommand.self, VerifyCommand.self, BenchCommand.self,
            CompareCommand.self,
        ])
}

@main
enum Main {
    static func main() async {
        // OpenBLAS chooses its kernels when it is loaded, which is before this line: a better choice needs a new start.
        KernelEnvironment.reexecIfNeeded()
        TerminationSignals.block()
        exit(await run())
    }

    /// Exit codes: 2 for what was typed wrongly, 1 for what failed, 130 after an interrupt.
    private static func run() async -> Int32 {
        do {
            var command = try TileFarm.parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
            return 0
        } catch {
            switch TileFarm.exitCode(for: error) {
            case .success:
                print(TileFarm.fullMessage(for: error))  // --help
                return 0
            case .validationFailure:
                complain(TileFarm.message(for: error) + " (see --help)")
                return 2
            default:
                complain(Wording.words(for: error))
                return Wording.isInterrupt(error) ? 130 : Wording.isUsage(error) ? 2 : 1
            }
        }
    }

    private static func complain(_ text: String) {
        try? FileHandle.standardError.write(contentsOf: Data("tilefarm: \(text)\n".utf8))
    }
}

extension FarmLogHandler.Format: ExpressibleByArgument {}
