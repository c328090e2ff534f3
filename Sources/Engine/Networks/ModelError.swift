/// A fault of a model folder, or of a model's inputs.
public enum ModelError: Error, Equatable, Sendable {
    case unreadable(file: String, reason: String)
    case malformed(file: String, option: String, reason: String)
    case unknownOption(file: String, option: String)
    case unsupported(file: String, option: String, value: String, supported: String)
    case wrongShape(what: String, shape: [Int], expected: String)
    case wrongClass(label: Int?, count: Int?)
    case wrongStatistics(String)
}

extension ModelError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .unreadable(let file, let reason):
            "\(file): cannot be read (\(reason)): give a model folder in the diffusers layout, with safetensors weights"
        case .malformed(let file, let option, let reason):
            "\(file): \(option): \(reason): download or export the model again"
        case .unknownOption(let file, let option):
            "\(file): option \(option) is not known, so the result could not be trusted: use a model without it"
        case .unsupported(let file, let option, let value, let supported):
            "\(file): \(option) is \(value), which is not supported: use a model with \(supported)"
        case .wrongShape(let what, let shape, let expected):
            """
            \(what) of height x width x channels \(shape.map { String($0) }.joined(separator: " x ")) cannot be used: \
            it must be \(expected)
            """
        case .wrongClass(let label, let count):
            "class label \(label.map(String.init) ?? "none") cannot be used: "
                + (count.map { "this model needs one from 0 to \($0 - 1)" } ?? "this model has no classes")
        case .wrongStatistics(let reason):
            "statistics of a canvas cannot be used: \(reason): use the same version of tilefarm on every machine"
        }
    }
}
