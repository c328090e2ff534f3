import ArgumentParser
import Foundation
import Protocol

struct KeygenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keygen", abstract: "Make the keys of a coordinator, or of a worker.",
        discussion: """
            tilefarm keygen farm.keys                   makes the coordinator's keys
            tilefarm keygen n1.keys --for farm.keys     makes those of a worker, and lets it in

            Then `tilefarm upscale ... --bind tcp://*:5555 --keys farm.keys` and, on the worker's machine, \
            `tilefarm-worker --connect tcp://HOST:5555 --keys n1.keys`.
            """)

    @Argument(help: "The file to make, for its owner alone.")
    var file: String

    @Option(
        name: .customLong("for"),
        help: ArgumentHelp(
            "The coordinator's keys: makes a worker's, and adds it to their allow-list.", valueName: "file"))
    var coordinator: String?

    @Option(help: "What the coordinator calls the worker. (default: the file's name)")
    var name: String?

    func validate() throws {
        if name != nil, coordinator == nil {
            throw ValidationError("--name belongs to --for: a coordinator has no name")
        }
    }

    func run() throws {
        guard let coordinator else {
            try CoordinatorKeys.make(path: file, remarks: Wording.coordinatorKeys)
            print(
                """
                \(file): the coordinator's keys; for each worker say `tilefarm keygen NAME.keys --for \
                \(file.shellQuoted)`
                """
            )
            return
        }
        let name = name ?? URL(filePath: file).deletingPathExtension().lastPathComponent
        try WorkerKeys.make(path: file, name: name, for: coordinator, remarks: Wording.workerKeys)
        print(
            """
            \(file): the keys of worker \(name), which \(coordinator) now allows; move the file to the worker's machine
            """
        )
    }
}
