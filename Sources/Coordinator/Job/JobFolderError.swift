import Engine
import Foundation

/// A fault of a job folder.
package enum JobFolderError: Error, Equatable {
    case missing(path: String)
    case hasJob(path: String)
    case notEmpty(path: String)
    case inUse(path: String)
    case unusable(path: String, reason: String)
    case otherVersion(path: String, format: Int)
    case damaged(path: String, reason: String)
    case changed(path: String, what: JobChange)
    case finished(path: String, output: String)
    case cannotWrite(path: String, code: Int32)
    /// A path of the request is that of a file that the folder has for itself.
    case claimed(path: String, by: RequestPath)

    /// Room may come.
    var isDiskFull: Bool { if case .cannotWrite(_, let code) = self { isFull(code) } else { false } }
}

/// A path that a request names.
package enum RequestPath: Sendable, Hashable { case input, output, pyramid }

/// A part that is not what a job was started with.
package enum JobChange: Sendable, Hashable {
    case input
    /// The model's folder, nil for the model that comes with the program.
    case model(String?)
    /// The plan that this version of the program makes of the request.
    case plan
}
