import Foundation

/// The machine that a worker runs on.
enum Machine {
    static let name: String = {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "unknown" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }()

    static var memoryBytes: Int { Int(clamping: ProcessInfo.processInfo.physicalMemory) }
    static var cores: Int { max(ProcessInfo.processInfo.activeProcessorCount, 1) }
}
