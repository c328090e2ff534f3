import ArgumentParser
import Engine
import Foundation

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Compare this machine's arithmetic with reference cases; fails when one is outside its tolerance.")

    @Argument(help: "Case folders: case.json, case.safetensors and, for networks, model/.")
    var cases: [String]

    @Option(help: "Of the networks of latent models. The references are float32, and so are the tolerances.")
    var precision = Precision.float32

    func validate() throws {
        if cases.isEmpty { throw ValidationError("name at least one case folder") }
    }

    func run() throws {
        print("kernels: \(try KernelEnvironment.kernels())")
        var failures = 0, verified = 0
        for path in cases {
            let folder = URL(filePath: path)
            // What a shell makes of FOLDER/* has plain files in it too.
            var isFolder: ObjCBool = false
            if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), !isFolder.boolValue {
                print("skip \(folder.lastPathComponent): not a folder")
                continue
            }
            verified += 1
            for report in try Verification.run(caseDirectory: folder, precision: precision) {
                failures += report.passed ? 0 : 1
                let error = String(format: "%.2e", report.relativeError)
                print(
                    """
                    \(report.passed ? "ok  " : "FAIL") \(folder.lastPathComponent) \(report.name) \(error) (tolerance \
                    \(report.tolerance))
                    """
                )
            }
        }
        guard verified > 0 else { throw ValidationError("no case folder is among what was named") }
        guard failures == 0 else { throw VerificationFailed(count: failures) }
    }
}

struct VerificationFailed: Error, CustomStringConvertible {
    let count: Int

    var description: String { "\(count) tensor\(count == 1 ? " is" : "s are") outside the tolerance" }
}
