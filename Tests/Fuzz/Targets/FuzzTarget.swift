/// Code that reads bytes which others have written. A fuzzer feeds each of them with inputs of its own making.
enum FuzzTarget: String, CaseIterable, Sendable {
    case messages, safetensors, settings, png

    /// Reads an input as the farm would. Errors that the readers document are answers, as good as a result.
    /// - Throws: what must not happen: an error of any other type, or a `Contradiction`. Traps are for the fuzzer to
    ///   see.
    func read(_ input: [UInt8]) throws {
        switch self {
        case .messages: try readMessage(input)
        case .safetensors: try readSafetensors(input)
        case .settings: try readSettings(input)
        case .png: try readPNG(input)
        }
    }
}

/// Something was read, and what was read contradicts itself.
struct Contradiction: Error, CustomStringConvertible {
    let description: String
}

func expect(_ condition: Bool, _ what: @autoclosure () -> String) throws(Contradiction) {
    if !condition { throw Contradiction(description: what()) }
}
