import ArgumentParser
import Engine
import Foundation
import Protocol

@main
struct TileFarm: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tilefarm", abstract: "A render farm that enlarges pictures with diffusion models.",
        subcommands: [UpscaleCommand.self, PlanCommand.self, VerifyCommand.self, BenchCommand.self, CompareCommand.self])

    /// Exit codes: 2 for what was typed wrongly, 1 for what failed, 130 after an interrupt.
    static func main() async {
        // OpenBLAS chooses its kernels when it is loaded, which is before this line: a better choice needs a new start.
        KernelEnvironment.reexecIfNeeded()
        TerminationSignals.block()
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            switch exitCode(for: error) {
            case .success:
                exit(withError: error)  // --help
            case .validationFailure:
                complain(message(for: error) + " (see --help)")
                Foundation.exit(2)
            default:
                complain("\(error)")
                if case CommandError.cancelled = error { Foundation.exit(130) }
                Foundation.exit(1)
            }
        }
    }

    private static func complain(_ text: String) {
        FileHandle.standardError.write(Data("tilefarm: \(text)\n".utf8))
    }
}

extension FarmLogHandler.Format: ExpressibleByArgument {}
