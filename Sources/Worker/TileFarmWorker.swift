import ArgumentParser
import Engine
import Protocol

@main
struct TileFarmWorker: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "tilefarm-worker")
}

