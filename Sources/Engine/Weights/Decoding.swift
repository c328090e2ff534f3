import Foundation

/// A key of any name, for objects whose keys are data.
struct AnyKey: CodingKey {
    var stringValue: String
    var intValue: Int? { nil }
    init(_ stringValue: String) { self.stringValue = stringValue }
    init?(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}

extension DecodingError {
    private var context: Context {
        switch self {
        case .typeMismatch(_, let context), .valueNotFound(_, let context), .keyNotFound(_, let context), .dataCorrupted(let context): context
        @unknown default: Context(codingPath: [], debugDescription: "not as expected")
        }
    }

    /// Where in the document.
    var path: [String] { context.codingPath.map(\.stringValue) }

    /// What is wrong there, in one line.
    var reason: String {
        let place = path.dropFirst().joined(separator: ".")
        return (place.isEmpty ? "" : "\(place): ") + context.debugDescription.replacing("\n", with: " ")
    }
}

extension NSError {
    /// Foundation's message without line breaks.
    var oneLine: String {
        ((userInfo[NSDebugDescriptionErrorKey] as? String) ?? localizedDescription).replacing("\n", with: " ")
    }
}
