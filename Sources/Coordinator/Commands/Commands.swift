import Engine
import Foundation

/// The model that `--model` names, or the one that comes with the program, its weights checked by their headers.
/// - Throws: `ModelFolderError`, `SafetensorsError`, `ModelError`.
func modelFolder(_ path: String?) throws -> ModelFolder {
    let folder = try ModelFolder(url: path.map { URL(filePath: $0) } ?? DefaultModel.url)
    try folder.checkWeights()
    return folder
}

/// Prints a report as JSON, its keys in alphabetical order.
func printJSON(_ report: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    print(String(decoding: try encoder.encode(report), as: UTF8.self))
}
