import Glibc

/// A fault of a PNG file, read or written. `description` is one line: the file, the reason, the remedy.
public enum PNGError: Error, Equatable, CustomStringConvertible {
    // Reading
    case missing(path: String)
    case isDirectory(path: String)
    case notAFile(path: String)
    case unreadable(path: String, reason: String)
    case empty(path: String)
    /// `seems` names the format its first bytes belong to, where known.
    case notPNG(path: String, seems: String?)
    case noPixels(path: String, width: Int, height: Int)
    case tooManyPixels(path: String, width: Int, height: Int, limit: Int)
    /// The header promises more than the file's bytes can unpack to.
    case implausibleSize(path: String, width: Int, height: Int, bytes: Int)
    case rowTooLarge(path: String, width: Int, bytes: Int, limit: Int)
    case interlacedTooLarge(path: String, bytes: Int, limit: Int)
    case truncated(path: String)
    case corrupt(path: String, reason: String)
    /// Every row has been read already.
    case noMoreRows(path: String)

    // Writing
    case invalidSize(path: String, width: Int, height: Int)
    case directoryMissing(path: String, directory: String)
    case outputIsDirectory(path: String)
    case outputNotAFile(path: String)
    /// There is something else where a Deep Zoom pyramid should be.
    case notAPyramid(path: String)
    case notWritable(path: String, reason: String)
    /// `needed` is the most bytes the file can take, where its size is known.
    case noSpace(path: String, needed: Int?)
    case writeFailed(path: String, reason: String)
    case wrongRowCount(path: String, written: Int, height: Int)

    public var description: String {
        switch self {
        case .missing(let path):
            "\(path): no such file; check the name"
        case .isDirectory(let path):
            "\(path): is a directory; name a PNG file"
        case .notAFile(let path):
            "\(path): is not a regular file; save the image to disk first"
        case .unreadable(let path, let reason):
            "\(path): cannot be read (\(reason)); check the file's permissions and its disk"
        case .empty(let path):
            "\(path): is empty; export or copy it again"
        case .notPNG(let path, .some(let seems)):
            "\(path): is not a PNG but seems to be \(seems); convert it to PNG"
        case .notPNG(let path, .none):
            "\(path): is not a PNG; convert it to PNG"
        case .noPixels(let path, let width, let height):
            "\(path): has no pixels (\(width)x\(height)); export it again"
        case .tooManyPixels(let path, let width, let height, let limit):
            "\(path): has \(width)x\(height) pixels, more than the limit of \(limit); cut it into parts"
        case .implausibleSize(let path, let width, let height, let bytes):
            "\(path): promises \(width)x\(height) pixels, which its \(bytes) bytes cannot hold; copy or export it again"
        case .rowTooLarge(let path, let width, let bytes, let limit):
            """
            \(path): has rows of \(width) pixels, each \(megabytes(bytes)) of memory, the limit is \
            \(megabytes(limit)); cut it into parts
            """
        case .interlacedTooLarge(let path, let bytes, let limit):
            """
            \(path): is interlaced and would take \(megabytes(bytes)) of memory, the limit is \(megabytes(limit)); \
            save it without interlacing
            """
        case .truncated(let path):
            "\(path): ends too early; copy or export it again"
        case .corrupt(let path, let reason):
            "\(path): is damaged (\(reason)); copy or export it again"
        case .noMoreRows(let path):
            "\(path): all rows have been read; open it again to read it again"
        case .invalidSize(let path, let width, let height):
            "\(path): a PNG cannot have \(width)x\(height) pixels; choose sides from 1 to \(Int32.max)"
        case .directoryMissing(let path, let directory):
            "\(path): there is no directory \(directory); make it or choose another output"
        case .outputIsDirectory(let path):
            "\(path): is a directory; name a file in it"
        case .outputNotAFile(let path):
            "\(path): is not a regular file and will not be replaced; choose another output"
        case .notAPyramid(let path):
            """
            \(path): holds something else than a Deep Zoom pyramid and will not be replaced; choose a new or empty \
            directory
            """
        case .notWritable(let path, let reason):
            "\(path): cannot be written (\(reason)); choose another output or change the permissions"
        case .noSpace(let path, .none):
            "\(path): no space left on its disk; free some or choose another output"
        case .noSpace(let path, .some(let needed)):
            """
            \(path): no space left on its disk, the file may need \(megabytes(needed)); free some or choose another \
            output
            """
        case .writeFailed(let path, let reason):
            "\(path): writing failed (\(reason)); check the disk or choose another output"
        case .wrongRowCount(let path, let written, let height):
            "\(path): got \(written) rows instead of \(height); the file was not made"
        }
    }
}

private func megabytes(_ bytes: Int) -> String {
    bytes < 1_000_000 ? "\(bytes) bytes" : "\(bytes / 1_000_000 + (bytes % 1_000_000 == 0 ? 0 : 1)) MB"
}

/// The system's words for an `errno`.
func reason(of code: Int32) -> String {
    String(cString: strerror(code))
}
