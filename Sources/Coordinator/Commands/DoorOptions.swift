import ArgumentParser
import Foundation
import Protocol

/// Where workers come in, and which: what every command that waits for them has in common.
struct DoorOptions: ParsableArguments {
    @Option(
        help: "Wait for workers at this endpoint, for example tcp://127.0.0.1:5555, instead of starting local ones.")
    var bind: String?

    @Option(
        help: ArgumentHelp(
            """
            The coordinator's keys, made with `tilefarm keygen`: admits the workers on its allow-list alone, and \
            encrypts.
            """,
            valueName: "file"))
    var keys: String?

    @Flag(help: "Let --bind listen beyond this machine, without keys or encryption: for a network that you trust.")
    var insecure = false

    func validate() throws {
        if insecure, bind == nil { throw ValidationError("--insecure belongs to --bind") }
        if keys != nil, bind == nil { throw ValidationError("--keys belongs to --bind") }
        if keys != nil, insecure {
            throw ValidationError("--keys and --insecure exclude each other: with keys the farm is closed")
        }
        guard let bind else { return }
        do {
            let endpoint = try Endpoint(bind)
            if !endpoint.isLoopback, keys == nil, !insecure {
                throw ValidationError(
                    "--bind \(bind): anybody who reaches this address could join or read the job; give --keys FILE "
                        + "(`tilefarm keygen` makes it), bind to 127.0.0.1, or say --insecure on a network that you "
                        + "trust"
                )
            }
            if bind.hasPrefix("inproc://") {
                throw ValidationError("--bind \(bind): no other program can reach it; use tcp://127.0.0.1:PORT")
            }
            // Others than TCP have no addresses to keep out.
            if keys != nil, !bind.hasPrefix("tcp://") {
                throw ValidationError("--keys belongs to a tcp:// endpoint, not to \(bind)")
            }
        } catch let error as ValidationError { throw error } catch { throw ValidationError("\(error)") }
    }

    /// Where workers come in, its paths as they are seen from this folder: for whoever goes to another.
    func place(into settings: inout FarmSettings) {
        let here = FileManager.default.currentDirectoryPath + "/", ipc = "ipc://"
        settings.keys = keys.map { $0.hasPrefix("/") ? $0 : here + $0 }
        settings.bind = bind
        settings.isInsecure = insecure
        // @: no file. *: any.
        if let bind, bind.hasPrefix(ipc), let first = bind.dropFirst(ipc.count).first, !"/@*".contains(first) {
            settings.bind = ipc + here + bind.dropFirst(ipc.count)
        }
    }
}
