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
        let settings = farm.settings(output)
        var run = RenderRun(request: options.request(output), settings: settings, words: Wording.farm)
        // Before the folder is made: what was typed wrongly leaves nothing behind.
        let parts = try run.check(jobFolder: output.job)
        if let path = output.job { run.folder = try JobFolder.create(path, input: options.input) }
        try await run.run(parts, farm.logger)
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
        if description.isFinished {
            folder.clean()
            throw JobFolderError.finished(path: job, output: description.request.output.png)
        }
        var run = RenderRun(
            request: description.request, settings: farm.settings(resuming: description.farm), words: Wording.farm)
        run.folder = folder
        run.description = description
        try await run.run(run.parts(input: folder.path(JobFolder.inputName)), farm.logger)
    }
}
