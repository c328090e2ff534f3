import Foundation

/// The options of a network's `config.json`. Whoever reads them says of each what it does with it; what nobody asked
/// for is an error, because the result could not be trusted.
struct ConfigurationOptions {
    let path: String
    private let object: [String: JSON]
    private var known: Set<String> = []

    /// - Throws: `ModelError` if the file is missing or no JSON object.
    init(file: URL) throws {
        path = file.path
        let data: Data
        do { data = try Data(contentsOf: file) } catch {
            throw ModelError.unreadable(file: path, reason: "it is missing or not readable")
        }
        do {
            guard let object = try JSON([UInt8](data)).object else {
                throw ModelError.malformed(file: path, option: "its JSON", reason: "is not an object")
            }
            self.object = object
        } catch let error as JSONError {
            throw ModelError.malformed(file: path, option: "its JSON", reason: error.description)
        }
    }

    /// The value of an option, nil if it is missing or null.
    /// - Throws: `ModelError.malformed` if it is something else than `read` can read.
    mutating func value<Value>(_ option: String, _ read: (JSON) -> Value?) throws -> Value? {
        known.insert(option)
        guard let value = object[option], value != .null else { return nil }
        guard let result = read(value) else { throw malformed(option, "is of the wrong type") }
        return result
    }

    /// An integer from 1 to `limit`.
    mutating func size(_ option: String, default missing: Int, limit: Int = 1 << 16) throws -> Int {
        let value = try value(option, \.integer) ?? missing
        guard (1...limit).contains(value) else { throw malformed(option, "\(value) is not between 1 and \(limit)") }
        return value
    }

    /// One value for each level: `value` as it stands in the file, or the same for all where the file has a single one.
    mutating func perLevel<Value>(
        _ option: String, default missing: Value, levels: Int, _ read: @escaping (JSON) -> Value?
    ) throws -> [Value] {
        let values =
            try value(option) { json -> [Value]? in
                guard let array = json.array else { return read(json).map { Array(repeating: $0, count: levels) } }
                let values = array.compactMap(read)
                return values.count == array.count ? values : nil
            } ?? Array(repeating: missing, count: levels)
        guard values.count == levels else { throw malformed(option, "has \(values.count) values for \(levels) levels") }
        return values
    }

    /// Refuses an option with other values than these; a missing one counts as the first.
    mutating func require(_ option: String, _ supported: JSON...) throws {
        known.insert(option)
        let value = object[option] ?? supported[0]
        let same = supported.contains { $0 == value || ($0.number != nil && $0.number == value.number) }
        guard same else {
            throw unsupported(option, value.plainText, supported.map(\.plainText).joined(separator: " or "))
        }
    }

    /// Options without meaning for inference.
    mutating func ignore(_ options: String...) { known.formUnion(options) }

    /// - Throws: `ModelError.unknownOption` for an option that has not been asked for. Names that begin with an
    ///   underscore are notes of the library.
    func refuseOthers() throws {
        if let option = object.keys.sorted().first(where: { !known.contains($0) && !$0.hasPrefix("_") }) {
            throw ModelError.unknownOption(file: path, option: option)
        }
    }

    func malformed(_ option: String, _ reason: String) -> ModelError {
        .malformed(file: path, option: option, reason: reason)
    }

    func unsupported(_ option: String, _ value: String, _ supported: String) -> ModelError {
        .unsupported(file: path, option: option, value: value, supported: supported)
    }

    func check(_ condition: Bool, _ option: String, _ reason: @autoclosure () -> String) throws {
        guard condition else { throw malformed(option, reason()) }
    }
}

extension JSON {
    /// For messages: a string without quotes.
    fileprivate var plainText: String { string ?? text }

    /// An array of nothing but strings.
    var strings: [String]? {
        guard let array else { return nil }
        let strings = array.compactMap(\.string)
        return strings.count == array.count ? strings : nil
    }
}
