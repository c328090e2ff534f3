/// Why a model's files could not be read, fetched or kept.
public enum ModelFileError: Error, Hashable, CustomStringConvertible {
    case unreadable(path: String, reason: String)
    case unwritable(path: String, reason: String)
    case diskFull(path: String, needed: Int, free: Int)
    /// The file is not what it was when the model was opened.
    case changed(path: String)
    /// A request for bytes that no file of the model has.
    case noSuchBytes(file: Int, offset: Int, length: Int)
    /// A piece that was not asked for.
    case unexpectedPiece(file: Int, offset: Int, length: Int)
    /// The bytes that arrived are not those that the manifest names.
    case damaged(file: String)
    case manifest(ManifestError)

    public var description: String {
        switch self {
        case .unreadable(let path, let reason):
            "model file \(path) cannot be read: \(reason)"
        case .unwritable(let path, let reason):
            "model cache \(path) cannot be written: \(reason); choose another folder for the cache"
        case .diskFull(let path, let needed, let free):
            """
            model cache \(path) has \(free >> 20) MiB free, the model needs \(needed >> 20); make room or choose \
            another folder for the cache
            """
        case .changed(let path):
            "model file \(path) was changed after the job began; leave models alone while they are in use"
        case .noSuchBytes(let file, let offset, let length):
            "\(length) bytes at \(offset) of model file \(file) were asked for; there are none"
        case .unexpectedPiece(let file, let offset, let length):
            "\(length) bytes at \(offset) of model file \(file) arrived; they were not asked for"
        case .damaged(let file):
            "model file \(file) arrived with another SHA-256 than the coordinator announced"
        case .manifest(let error):
            error.description
        }
    }
}
