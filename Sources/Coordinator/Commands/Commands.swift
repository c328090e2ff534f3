import Engine
import Foundation

/// The model that `--model` names, or the one that comes with the program.
/// - Throws: `ModelFolderError`.
func modelFolder(_ path: String?) throws -> ModelFolder {
    try ModelFolder(url: path.map { URL(filePath: $0) } ?? DefaultModel.url)
}

/// Prints a report as JSON, its keys in alphabetical order.
func printJSON(_ report: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    print(String(decoding: try encoder.encode(report), as: UTF8.self))
}
