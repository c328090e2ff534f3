import ArgumentParser
import Engine
import Protocol

@main
struct TileFarm: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "tilefarm")
}

