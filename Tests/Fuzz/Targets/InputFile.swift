import Foundation

/// Where files stay in memory, where there is such a place: a fuzzer writes thousands a second.
let memoryFolder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : FileManager.default.temporaryDirectory.path

/// A file without a name, for the readers that take a path.
final class InputFile {
    private let descriptor: Int32

    /// - Parameter bytes: what the file holds.
    init(_ bytes: [UInt8]) throws {
        var name = Array("\(memoryFolder)/tilefarm-fuzz-XXXXXX".utf8CString)
        descriptor = mkstemp(&name)
        unlink(name)
        var done = 0
        while done < bytes.count {
            let written = bytes.withUnsafeBytes {
                write(descriptor, $0.baseAddress.map { $0 + done }, bytes.count - done)
            }
            guard written > 0 else { throw Contradiction(description: "no memory for the input's file") }
            done += written
        }
    }

    deinit { close(descriptor) }

    var path: String { "/proc/self/fd/\(descriptor)" }
    var url: URL { URL(filePath: path) }
}
