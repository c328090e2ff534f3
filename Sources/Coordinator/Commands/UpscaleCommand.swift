import ArgumentParser
import Engine
import Foundation
import Logging
import Protocol

struct UpscaleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "upscale", abstract: "Enlarge a picture on local workers, or on workers from anywhere (--bind).")

    @OptionGroup var options: UpscaleOptions
    @OptionGroup var output: OutputOptions
    @OptionGroup var farm: FarmOptions

    func run() async throws {
        var job = RenderJob(options: options, output: output, farm: farm)
        // Before the folder is made: what was typed wrongly leaves nothing behind.
        let parts = try job.check()
        if let path = output.job {
            job.folder = try JobFolder.create(path, input: options.input)
            job.typed = Array(
                CommandLine.arguments.dropFirst().drop { $0 != Self.configuration.commandName }.dropFirst())
        }
        try await job.run(parts, farm.logger)
    }
}

struct ResumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume",
        abstract: "Go on with a job (upscale --job) after a crash or an interrupt, from its last checkpoint.")

    @Argument(help: "The job's folder.")
    var job: String

    @OptionGroup var farm: FarmOptions

    func run() async throws {
        let (folder, description) = try JobFolder.open(job)
        let door = self.farm.door.fromHere
        // As it was typed, where it was typed: paths may be relative.
        guard FileManager.default.changeCurrentDirectoryPath(description.workingDirectory) else {
            throw JobFolderError.changed(
                path: job, what: "the folder \(description.workingDirectory), which its paths start from, is")
        }
        let command: UpscaleCommand
        do { command = try UpscaleCommand.parse(description.arguments) } catch {
            throw JobFolderError.damaged(
                path: job, reason: "its arguments are not understood: \(UpscaleCommand.message(for: error))")
        }
        if description.isFinished {
            folder.clean()
            throw JobFolderError.finished(path: job, output: command.output.output)
        }
        // Workers may be elsewhere this time; whoever says nothing about them means those of before.
        var farm = command.farm
        if self.farm.workers != nil || self.farm.bind != nil { (farm.workers, farm.door) = (self.farm.workers, door) }
        farm.kernels = self.farm.kernels ?? farm.kernels
        var resumed = RenderJob(options: command.options, output: command.output, farm: farm)
        resumed.folder = folder
        resumed.description = description
        try await resumed.run(resumed.parts(input: folder.path(JobFolder.inputName)), self.farm.logger)
    }
}
