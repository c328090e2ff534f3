import Engine
import Protocol

/// Errors that the program's user can do something about, in words: the options are known here and nowhere else.
package enum Wording {
    @Sendable
    package static func words(for error: any Error) -> String {
        switch error {
        case ModelFileError.unwritable(let path, let reason):
            "model cache \(path) cannot be written: \(reason); choose another folder with --cache"
        case ModelFileError.diskFull(let path, let needed, let free):
            "model cache \(path) has \(free >> 20) MiB free, the model needs \(needed >> 20); "
                + "make room or choose another folder with --cache"
        case let error as OtherModel:
            "the model in \(error.folder) is not the job's (\(error.wanted.short)); leave --model out to fetch that"
        case let error as KeyFileError: words(for: error)
        default: "\(error)"
        }
    }

    private static func words(for error: KeyFileError) -> String {
        switch error {
        case .unreadable: "\(error); `tilefarm keygen` makes them"
        case .badLine: "\(error); mend it or make new keys with `tilefarm keygen`"
        case .missing: "\(error); make new keys with `tilefarm keygen`"
        case .otherRole(let path, _, _):
            "\(error); make them with `tilefarm keygen FILE --for \(path.shellQuoted)`"
        case .openToOthers, .exists, .badName, .nameTaken, .notWritten: "\(error)"
        }
    }

    /// Why a coordinator did not let this worker in.
    /// - Parameter keys: those of this worker, if it has any
    @Sendable
    package static func words(for failure: HandshakeFailure, keys: WorkerKeys?) -> String {
        switch (failure, keys) {
        case (.denied, let keys):
            "the coordinator's allow-list does not have this worker's key"
                + "\(keys.map { " \($0.pair.publicKey)" } ?? ""): add it there"
        case (.otherMechanism, nil):
            "the coordinator admits only workers with keys: make some with "
                + "`tilefarm keygen FILE --for COORDINATOR-FILE` and give them with --keys"
        case (.otherMechanism, _):
            "the coordinator has no keys, and this worker talks to nobody else: "
                + "start the coordinator with --keys, or this worker without"
        case (.closed, let keys?), (.cryptographic, let keys?):
            "the coordinator is not the one that \(keys.path) is for, or of another kind: compare the keys"
        case (.closed, nil), (.cryptographic, nil):
            "what listens there ended the handshake: it admits only workers with --keys, or is no tilefarm coordinator"
        case (.protocolError, _):
            "what listens there is no tilefarm coordinator: check the address"
        }
    }
}
