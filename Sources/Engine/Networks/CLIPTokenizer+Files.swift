import Foundation

/// Why a folder is no CLIP tokenizer, or a text cannot be encoded.
public enum CLIPTokenizerError: Error, Equatable, Sendable {
    case missing(file: String)
    case unreadable(file: String, reason: String)
    case malformed(file: String, reason: String)
    case unknownOption(file: String, option: String)
    case unsupported(file: String, option: String, value: String, supported: String)
    case missingToken(file: String, token: String)
    case textTooLong(bytes: Int, limit: Int)
}

extension CLIPTokenizerError: CustomStringConvertible {
    public var description: String {
        let line =
            switch self {
            case .missing(let file):
                """
                \(file): is missing: download the model's tokenizer folder whole (vocab.json and merges.txt, or \
                tokenizer.json)
                """
            case .unreadable(let file, let reason):
                "\(file): cannot be read (\(reason)): download the model's tokenizer folder again"
            case .malformed(let file, let reason):
                "\(file): \(reason): download the model's tokenizer folder again"
            case .unknownOption(let file, let option):
                "\(file): option \(option) is not known, so the tokens could not be trusted: use a model without it"
            case .unsupported(let file, let option, let value, let supported):
                "\(file): \(option) is \(value), which is not supported: use a model with \(supported)"
            case .missingToken(let file, let token):
                """
                \(file): the token \(token) is not in the vocabulary: check that the files of the tokenizer folder \
                belong together
                """
            case .textTooLong(let bytes, let limit):
                """
                a prompt of \(bytes) bytes is too long: give at most \(limit) (a model reads the first 75 tokens alone)
                """
            }
        return line.replacing("\n", with: " ")  // names come from the files
    }
}

/// The contents of a tokenizer folder, by the rules of transformers' `from_pretrained`.
struct TokenizerFiles {
    struct AddedToken {
        var content: [Unicode.Scalar]
        var id: Int
        /// Whether it is looked for in the normalised text.
        var normalized: Bool
    }

    private(set) var vocabulary: [String: UInt32]
    let merges: [(String, String)]
    /// The files that they are from.
    let vocabularyFile, mergesFile: String
    private(set) var length = 77
    private(set) var begin = "<|startoftext|>", end = "<|endoftext|>", unknown = "<|endoftext|>",
        padding = "<|endoftext|>"
    private(set) var added: [AddedToken] = []

    private static let sizeLimit = 64 << 20  // bytes
    private static let addedLimit = 10_000
    private static let lengths = 3...4096

    init(folder: URL) throws(CLIPTokenizerError) {
        let whole: [String: JSON]?
        if let json = try Self.object(folder, "vocab.json") {
            vocabularyFile = folder.appending(path: "vocab.json").path
            mergesFile = folder.appending(path: "merges.txt").path
            vocabulary = try Self.vocabulary(json, file: vocabularyFile)
            guard let text = try Self.bytes(folder, "merges.txt") else {
                throw CLIPTokenizerError.missing(file: mergesFile)
            }
            merges = try Self.merges(text, file: mergesFile)
            whole = nil
        } else if let json = try Self.object(folder, "tokenizer.json") {
            vocabularyFile = folder.appending(path: "tokenizer.json").path
            mergesFile = vocabularyFile
            guard let model = json["model"]?.object, model["type"] == .string("BPE"),
                let names = model["vocab"]?.object,
                let list = model["merges"]?.array
            else {
                throw CLIPTokenizerError.malformed(
                    file: vocabularyFile, reason: "model is not a BPE with vocab and merges")
            }
            vocabulary = try Self.vocabulary(names, file: vocabularyFile)
            merges = try Self.merges(list, file: mergesFile)
            whole = json
        } else {
            throw CLIPTokenizerError.missing(file: folder.appending(path: "vocab.json").path)
        }

        let configFile = folder.appending(path: "tokenizer_config.json").path
        var config = try Self.object(folder, "tokenizer_config.json") ?? [:]
        try Self.check(config, file: configFile)
        if let value = config["model_max_length"], let number = value.number, number < 1e9 {
            guard let length = value.integer, Self.lengths.contains(length) else {
                throw CLIPTokenizerError.unsupported(
                    file: configFile, option: "model_max_length", value: "\(number)",
                    supported: "a number of tokens in \(Self.lengths)")
            }
            self.length = length
        }

        // The tokens by their ids, then the named ones that were not among them; of two with one content the latter
        // counts.
        var tokens: [Token] = []
        var sources: [String: String] = [:]  // of options that are not from `configFile`
        if let listed = config["added_tokens_decoder"] {
            tokens = try Self.listed(listed, file: configFile)
        } else {
            let mapFile = folder.appending(path: "special_tokens_map.json").path
            if let map = try Self.object(folder, "special_tokens_map.json") {
                for (key, value) in map {
                    guard Self.named.contains(key) || key == "additional_special_tokens" else {
                        throw CLIPTokenizerError.unknownOption(file: mapFile, option: key)
                    }
                    config[key] = value
                    sources[key] = mapFile
                }
            }
            tokens = try Self.added(folder, whole)
        }
        let earlier = Set(tokens.map(\.content))
        for key in Self.named {
            let token: Token
            if let value = config[key], value != .null {
                token = try Token(value, option: key, file: sources[key] ?? configFile)
                switch key {
                case "bos_token": begin = token.content
                case "eos_token": end = token.content
                case "unk_token": unknown = token.content
                case "pad_token": padding = token.content
                default: break
                }
            } else {
                switch key {
                case "bos_token": token = Token(begin)
                case "eos_token": token = Token(end)
                case "unk_token": token = Token(unknown)
                case "pad_token": token = Token(padding)
                default: continue
                }
            }
            if !earlier.contains(token.content) { tokens.append(token) }
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            for value in config[key]?.array ?? [] {
                let token = try Token(value, option: key, file: sources[key] ?? configFile)
                if !tokens.contains(where: { $0.content == token.content }) { tokens.append(token) }
            }
        }
        guard tokens.count <= Self.addedLimit else {
            throw CLIPTokenizerError.malformed(file: configFile, reason: "more than \(Self.addedLimit) added tokens")
        }
        try add(tokens)
    }

    func id(of token: String) throws(CLIPTokenizerError) -> Int {
        guard let id = vocabulary[token] else {
            throw CLIPTokenizerError.missingToken(file: vocabularyFile, token: token)
        }
        return Int(id)
    }

    /// Tokens that the vocabulary lacks follow it.
    private mutating func add(_ tokens: [Token]) throws(CLIPTokenizerError) {
        var next = (vocabulary.values.max() ?? 0) + 1
        var places: [String: Int] = [:]
        for token in tokens {
            if vocabulary[token.content] == nil {
                vocabulary[token.content] = next
                next += 1
            }
            let entry = AddedToken(
                content: Array(token.content.unicodeScalars), id: try id(of: token.content),
                normalized: token.normalized)
            if let place = places[token.content] {
                added[place] = entry
            } else {
                places[token.content] = added.count
                added.append(entry)
            }
        }
    }

    // MARK: the files

    private static func bytes(_ folder: URL, _ name: String) throws(CLIPTokenizerError) -> [UInt8]? {
        let url = folder.appending(path: name)
        guard FileManager.default.fileExists(atPath: url.path) else { return nil }
        do {
            let size = try url.resolvingSymlinksInPath().resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0
            guard size <= sizeLimit else {
                throw CLIPTokenizerError.malformed(
                    file: url.path, reason: "\(size) bytes are more than any tokenizer's \(sizeLimit)")
            }
            return [UInt8](try Data(contentsOf: url))
        } catch let error as CLIPTokenizerError {
            throw error
        } catch {
            throw CLIPTokenizerError.unreadable(file: url.path, reason: error.localizedDescription)
        }
    }

    private static func object(_ folder: URL, _ name: String) throws(CLIPTokenizerError) -> [String: JSON]? {
        guard let bytes = try bytes(folder, name) else { return nil }
        let file = folder.appending(path: name).path
        do {
            guard let object = try JSON(bytes).object else {
                throw CLIPTokenizerError.malformed(file: file, reason: "not a JSON object")
            }
            return object
        } catch let error as JSONError {
            throw CLIPTokenizerError.malformed(file: file, reason: error.description)
        } catch let error as CLIPTokenizerError {
            throw error
        } catch {
            throw CLIPTokenizerError.unreadable(file: file, reason: "\(error)")
        }
    }

    private static func vocabulary(_ json: [String: JSON], file: String) throws(CLIPTokenizerError) -> [String: UInt32]
    {
        var vocabulary: [String: UInt32] = [:]
        vocabulary.reserveCapacity(json.count)
        for (token, value) in json {
            guard let id = value.integer, let id = UInt32(exactly: id), id <= Int32.max else {
                throw CLIPTokenizerError.malformed(
                    file: file, reason: "the id of token \(token) is not an integer from 0 to \(Int32.max)")
            }
            vocabulary[token] = id
        }
        return vocabulary
    }

    /// A comment, then two tokens a line.
    private static func merges(_ bytes: [UInt8], file: String) throws(CLIPTokenizerError) -> [(String, String)] {
        var merges: [(String, String)] = []
        for (number, line) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated()
        {
            if line.isEmpty || line.starts(with: "#version".utf8) { continue }
            let parts = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
            guard parts.count == 2, let a = String(validating: parts[0], as: UTF8.self),
                let b = String(validating: parts[1], as: UTF8.self)
            else {
                throw CLIPTokenizerError.malformed(
                    file: file, reason: "line \(number + 1) is not two tokens with a space between them")
            }
            merges.append((a, b))
        }
        return merges
    }

    /// ["a", "b"] or "a b".
    private static func merges(_ list: [JSON], file: String) throws(CLIPTokenizerError) -> [(String, String)] {
        var merges: [(String, String)] = []
        merges.reserveCapacity(list.count)
        for value in list {
            let parts =
                value.array?.compactMap(\.string) ?? value.string?.split(
                    separator: " ", omittingEmptySubsequences: false
                ).map { String($0) } ?? []
            guard parts.count == 2 else {
                throw CLIPTokenizerError.malformed(file: file, reason: "merge \(merges.count + 1) is not two tokens")
            }
            merges.append((parts[0], parts[1]))
        }
        return merges
    }

    // MARK: special tokens

    /// In the order in which transformers adds them.
    private static let named = [
        "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    ]

    /// A token as a file describes it.
    private struct Token {
        var content: String
        var normalized: Bool

        /// One whose name alone is known.
        init(_ content: String) { (self.content, normalized) = (content, false) }

        init(_ json: JSON, option: String, file: String) throws(CLIPTokenizerError) {
            if let content = json.string {
                (self.content, normalized) = (content, false)
                return
            }
            guard let fields = json.object, let content = fields["content"]?.string, !content.isEmpty else {
                throw CLIPTokenizerError.malformed(file: file, reason: "\(option) is not a token")
            }
            self.content = content
            normalized = fields["normalized"]?.bool ?? false
            for key in ["lstrip", "rstrip", "single_word"] where fields[key]?.bool == true {
                throw CLIPTokenizerError.unsupported(
                    file: file, option: "\(key) of \(option)", value: "true", supported: "false")
            }
        }
    }

    /// `added_tokens_decoder`: {"49407": {"content": ...}}
    private static func listed(_ json: JSON, file: String) throws(CLIPTokenizerError) -> [Token] {
        var tokens: [(id: Int, token: Token)] = []
        for (key, value) in json.object ?? [:] {
            guard let id = Int(key) else {
                throw CLIPTokenizerError.malformed(
                    file: file, reason: "added_tokens_decoder has \(key) in place of an id")
            }
            tokens.append((id, try Token(value, option: "added_tokens_decoder \(key)", file: file)))
        }
        return tokens.sorted { $0.id < $1.id }.map(\.token)
    }

    /// `added_tokens.json`, {"<token>": 49408}, and the list of a `tokenizer.json`.
    private static func added(_ folder: URL, _ whole: [String: JSON]?) throws(CLIPTokenizerError) -> [Token] {
        var tokens: [(id: Int, token: Token)] = []
        for (content, value) in try object(folder, "added_tokens.json") ?? [:] {
            var token = Token(content)
            token.normalized = true
            tokens.append((value.integer ?? 0, token))
        }
        for value in whole?["added_tokens"]?.array ?? [] {
            tokens.append(
                (
                    value.object?["id"]?.integer ?? 0,
                    try Token(value, option: "added_tokens", file: folder.appending(path: "tokenizer.json").path)
                ))
        }
        return tokens.sorted { ($0.id, $0.token.content) < ($1.id, $1.token.content) }.map(\.token)
    }

    private static func check(_ config: [String: JSON], file: String) throws(CLIPTokenizerError) {
        /// With the values that change nothing; nil where any does.
        let known: [String: [JSON]?] = [
            "tokenizer_class": [.string("CLIPTokenizer"), .string("CLIPTokenizerFast")],
            "do_lower_case": [.bool(true)], "add_prefix_space": [.bool(false)], "split_special_tokens": [.bool(false)],
            "padding_side": [.string("right")], "truncation_side": [.string("right")],
            "model_max_length": nil, "added_tokens_decoder": nil, "additional_special_tokens": nil,
            "extra_special_tokens": nil,
            // What reading and decoding are about, and where the files came from.
            "errors": nil, "name_or_path": nil, "special_tokens_map_file": nil, "clean_up_tokenization_spaces": nil,
            "backend": nil,
            "is_local": nil, "local_files_only": nil, "processor_class": nil, "tokenizer_file": nil, "use_fast": nil,
        ]
        for (key, value) in config.sorted(by: { $0.key < $1.key }) where !named.contains(key) && value != .null {
            guard let values = known[key] else { throw CLIPTokenizerError.unknownOption(file: file, option: key) }
            if let values, !values.contains(value) {
                throw CLIPTokenizerError.unsupported(
                    file: file, option: key, value: value.text, supported: values.map(\.text).joined(separator: " or "))
            }
        }
    }
}
