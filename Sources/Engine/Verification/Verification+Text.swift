import Foundation

// Cases of what becomes of a prompt.
extension Verification {
    /// in.ids (batch x tokens) -> out.last_hidden_state (batch x tokens x width) and out.pooled (batch x width).
    func clipText(_ folder: NetworkFolder) throws -> (String) throws -> [Double] {
        let network = try CLIPText(folder: folder, precision: precision)
        let workspace = Workspace()
        let shape = try file.shape(of: "in.ids"), all = try file.integers("in.ids")
        guard shape.count == 2, shape[1] > 0 else {
            throw VerificationError.wrongShape(
                file: file.url.path, tensor: "in.ids", shape: shape, expected: "batch x tokens")
        }
        return { name in
            try stride(from: 0, to: all.count, by: shape[1]).flatMap { start in
                let ids = Array(all[start..<start + shape[1]])
                let states = try network.encode(ids: ids, workspace: workspace)
                let span = states.span
                switch name {
                case "out.last_hidden_state": return (0..<states.count).map { Double(span[$0]) }
                case "out.pooled":
                    let position = network.configuration.pooledPosition(ids)
                    return (0..<states.channels).map { Double(span[position * states.channels + $0]) }
                default: throw unknown(name)
                }
            }
        }
    }

    /// A case of the tokenizer has no tensors: case.json is a list of {text, ids}.
    /// - Returns: nil if the folder is no such case; else one report, of how many ids are wrong.
    static func tokenizer(_ directory: URL) throws -> [TensorReport]? {
        let url = directory.appending(path: "case.json")
        guard let data = try? Data(contentsOf: url), let rows = try? JSON([UInt8](data)).array else { return nil }
        let tokenizer = try CLIPTokenizer(folder: directory.appending(path: "model"))
        guard !rows.isEmpty else { throw VerificationError.nothingExpected(file: url.path) }
        let wrong = try rows.reduce(0) { wrong, row in
            guard let text = row.object?["text"]?.string, let expected = row.object?["ids"]?.integers,
                expected.count == tokenizer.length
            else {
                throw VerificationError.malformed(
                    file: url.path, reason: "is not a list of {text, ids} with \(tokenizer.length) ids each")
            }
            return try wrong + zip(tokenizer.encode(text).ids, expected).filter { $0 != $1 }.count
        }
        return [TensorReport(name: "ids", relativeError: Double(wrong), tolerance: 0)]
    }
}
