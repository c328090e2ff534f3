import Foundation

/// Text to the token ids of CLIP: byte-level byte-pair encoding (Radford et al., arXiv:2103.00020, section 2.4), id for
/// id as the `CLIPTokenizer` of transformers 5 answers, which is the `CLIPTokenizerFast` of transformers 4. (The slow
/// tokenizer of transformers 4 also split Chinese characters, or repaired the text with ftfy where that was installed;
/// pipelines that load it differ on such texts.)
public struct CLIPTokenizer: Sendable {
    /// A text of more UTF-8 bytes than this is refused, so that the work is bounded; 77 tokens are seldom more than
    /// 500.
    public static let textLimit = 1 << 16

    /// How many ids a text becomes: `model_max_length`, 77 for every published model.
    public let length: Int
    private let pairs: BytePairs
    private let begin, end, padding: Int
    /// Tokens that are looked for in the text as it is, before anything else, and in the normalised text.
    private let rawTokens, normalizedTokens: [AddedToken]

    /// A token that stands in the text by name, such as `<|endoftext|>`.
    private struct AddedToken {
        var content: [Unicode.Scalar]
        var id: Int
    }

    /// Reads a `tokenizer/` folder: `vocab.json` and `merges.txt`, or the `tokenizer.json` that holds both; which
    /// tokens are special stands in `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, where
    /// there are such files.
    /// - Throws: `CLIPTokenizerError`.
    public init(folder: URL) throws(CLIPTokenizerError) {
        let files = try TokenizerFiles(folder: folder)
        length = files.length
        pairs = try BytePairs(vocabulary: files.vocabulary, merges: files.merges, unknown: files.unknown, files: files)
        (begin, end, padding) = (
            try files.id(of: files.begin), try files.id(of: files.end), try files.id(of: files.padding)
        )
        func tokens(normalized: Bool) -> [AddedToken] {
            files.added.filter { $0.normalized == normalized }.map {
                AddedToken(content: normalized ? Self.normalized($0.content[...]) : $0.content, id: $0.id)
            }.filter { !$0.content.isEmpty }
        }
        (rawTokens, normalizedTokens) = (tokens(normalized: false), tokens(normalized: true))
    }

    /// - Returns:
    ///   - ids: `length` of them: begin, the text's first tokens, end, padding
    ///   - dropped: the part of the text, normalised, that did not fit; nil where all did
    /// - Throws: `CLIPTokenizerError.textTooLong`.
    public func encode(_ text: String) throws(CLIPTokenizerError) -> (ids: [Int], dropped: String?) {
        try checkLength(of: text)
        var ids = [begin]
        var dropped = String.UnicodeScalarView()
        let room = length - 1
        // Once a token has not fitted, none does: what follows it is kept as text.
        for piece in pieces(of: text) {
            if !dropped.isEmpty {
                dropped.append(contentsOf: piece.text)
            } else if let id = piece.id {
                if ids.count < room { ids.append(id) } else { dropped.append(contentsOf: piece.text) }
            } else {
                dropped.append(contentsOf: append(piece.text, to: &ids, room: room))
            }
        }
        ids.append(end)
        ids.append(contentsOf: repeatElement(padding, count: length - ids.count))
        return (ids, dropped.isEmpty ? nil : String(dropped))
    }

    /// How many tokens a text would become if there were room for all, without those that begin and end it.
    /// - Throws: `CLIPTokenizerError.textTooLong`.
    public func tokenCount(of text: String) throws(CLIPTokenizerError) -> Int {
        try checkLength(of: text)
        var ids: [Int] = []
        for piece in pieces(of: text) {
            if let id = piece.id { ids.append(id) } else { _ = append(piece.text, to: &ids, room: .max) }
        }
        return ids.count
    }

    private func checkLength(of text: String) throws(CLIPTokenizerError) {
        guard text.utf8.count <= Self.textLimit else {
            throw CLIPTokenizerError.textTooLong(bytes: text.utf8.count, limit: Self.textLimit)
        }
    }

    /// Tokens that stand in the text by name, and the normalised text between them.
    private func pieces(of text: String) -> [(text: ArraySlice<Unicode.Scalar>, id: Int?)] {
        Self.split(Array(text.unicodeScalars)[...], at: rawTokens).flatMap { raw in
            raw.id == nil ? Self.split(Self.normalized(raw.text)[...], at: normalizedTokens) : [raw]
        }
    }

    /// Appends the tokens of normalised text until there are `room` ids.
    /// - Returns: the text that is left over.
    private func append(_ text: ArraySlice<Unicode.Scalar>, to ids: inout [Int], room: Int) -> String.UnicodeScalarView
    {
        var left = String.UnicodeScalarView()
        for word in Self.words(of: text) {
            let bytes = Array(String(String.UnicodeScalarView(text[word])).utf8)
            let tokens = ids.count < room ? pairs.encode(bytes) : []
            let fitting = tokens.prefix(room - ids.count)
            ids.append(contentsOf: fitting.map(\.id))
            if tokens.isEmpty || fitting.count < tokens.count {
                let used = fitting.reduce(0) { $0 + $1.count }
                left.append(contentsOf: String(decoding: bytes[used...], as: UTF8.self).unicodeScalars)
                left.append(contentsOf: text[word.upperBound...])
                break
            }
        }
        return left
    }

    // MARK: text

    /// Normalization form C, then lower case letter by letter. White space separates words only, so that it is left as
    /// it is.
    private static func normalized(_ text: ArraySlice<Unicode.Scalar>) -> [Unicode.Scalar] {
        NormalizationFormC.normalize(text).flatMap(\.properties.lowercaseMapping.unicodeScalars)
    }

    /// The text between the tokens and the tokens, in order. Of several tokens at one place the longest counts.
    private static func split(_ text: ArraySlice<Unicode.Scalar>, at tokens: [AddedToken]) -> [(
        text: ArraySlice<Unicode.Scalar>, id: Int?
    )] {
        var pieces: [(text: ArraySlice<Unicode.Scalar>, id: Int?)] = []
        let byFirst = Dictionary(grouping: tokens) { $0.content[0] }
        var start = text.startIndex, i = start
        while i < text.endIndex {
            let found = byFirst[text[i], default: []].filter { text[i...].starts(with: $0.content) }.max {
                $0.content.count < $1.content.count
            }
            guard let found else {
                i += 1
                continue
            }
            if start < i { pieces.append((text[start..<i], nil)) }
            start = i + found.content.count
            pieces.append((text[i..<start], found.id))
            i = start
        }
        if start < text.endIndex { pieces.append((text[start...], nil)) }
        return pieces
    }

    private enum ScalarClass {
        case space, letter, number, other

        init(_ scalar: Unicode.Scalar) {
            switch scalar.properties.generalCategory {
            case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: self = .letter
            case .decimalNumber, .letterNumber, .otherNumber: self = .number
            default: self = scalar.properties.isWhitespace ? .space : .other
            }
        }
    }

    /// The matches of CLIP's regular expression
    /// `<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`,
    /// each cut again by GPT-2's as the byte-level pre-tokenizer does. That cuts nothing but the two names, where they
    /// were not taken for tokens before.
    private static func words(of text: ArraySlice<Unicode.Scalar>) -> [Range<Int>] {
        var words: [Range<Int>] = []
        var i = text.startIndex
        while i < text.endIndex {
            let rest = text[i...]
            if let name = names.first(where: { rest.starts(with: $0) }) {
                words += [i..<i + 2, i + 2..<i + name.count - 2, i + name.count - 2..<i + name.count]
                i += name.count
            } else if let contraction = contractions.first(where: { rest.starts(with: $0) }) {
                words.append(i..<i + contraction.count)
                i += contraction.count
            } else {
                let kind = ScalarClass(text[i])
                let start = i
                repeat { i += 1 } while i < text.endIndex && kind != .number && ScalarClass(text[i]) == kind
                if kind != .space { words.append(start..<i) }
            }
        }
        return words
    }

    private static let names = ["<|startoftext|>", "<|endoftext|>"].map { Array($0.unicodeScalars) }
    private static let contractions = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map { Array($0.unicodeScalars) }
}

/// Byte-pair encoding (Sennrich et al., arXiv:1508.07909) of words as bytes; of a word's last symbol the name ends in
/// `</w>`.
private struct BytePairs {
    /// The ids of a byte within and at the end of a word.
    private var inner, last: [UInt32]
    /// Two ids that become one; the lowest rank goes first.
    private var merges: [UInt64: Merge]
    /// The token that the merge of a rank makes.
    private var made: [UInt32]

    private struct Merge {
        var rank, id: UInt32
    }

    private static func pair(_ a: UInt32, _ b: UInt32) -> UInt64 { UInt64(a) << 32 | UInt64(b) }

    init(vocabulary: [String: UInt32], merges list: [(String, String)], unknown: String, files: TokenizerFiles)
        throws(CLIPTokenizerError)
    {
        let unknown = try files.id(of: unknown)
        let names = Self.byteNames
        inner = names.map { vocabulary[$0] ?? UInt32(unknown) }
        last = names.map { vocabulary[$0 + "</w>"] ?? UInt32(unknown) }
        merges = [:]
        merges.reserveCapacity(list.count)
        made = []
        made.reserveCapacity(list.count)
        for (a, b) in list {
            func id(_ token: String) throws(CLIPTokenizerError) -> UInt32 {
                guard let id = vocabulary[token] else {
                    throw CLIPTokenizerError.malformed(
                        file: files.mergesFile,
                        reason:
                            """
                            merge \(made.count + 1), \(a) and \(b), needs the token \(token), which the vocabulary lacks
                            """
                    )
                }
                return id
            }
            let result = try id(a + b)
            merges[Self.pair(try id(a), try id(b))] = Merge(rank: UInt32(made.count), id: result)
            made.append(result)
        }
    }

    /// GPT-2's names of the 256 bytes: Latin-1 where it is visible, else U+0100 and on.
    private static let byteNames: [String] = {
        var next: UInt32 = 0x100
        return (UInt32(0)...255).map { byte in
            switch byte {
            case 0x21...0x7e, 0xa1...0xac, 0xae...0xff: return String(Character(Unicode.Scalar(UInt8(byte))))
            default:
                defer { next += 1 }
                return Unicode.Scalar(next).map { String(Character($0)) } ?? ""
            }
        }
    }()

    /// The ids of a word and how many bytes each stands for. In n log n, through a heap of the merges that are
    /// possible.
    func encode(_ word: [UInt8]) -> [(id: Int, count: Int)] {
        var symbols = word.indices.map { i in
            (id: i == word.count - 1 ? last[Int(word[i])] : inner[Int(word[i])], count: 1, previous: i - 1, next: i + 1)
        }
        var heap = MinHeap()
        func offer(_ i: Int) {
            guard i >= 0, symbols[i].next < symbols.count,
                let merge = merges[Self.pair(symbols[i].id, symbols[symbols[i].next].id)]
            else { return }
            heap.insert(UInt64(merge.rank) << 32 | UInt64(i))  // by rank, then from the left
        }
        for i in symbols.indices { offer(i) }
        while let first = heap.removeMin() {
            let i = Int(first & 0xffff_ffff), id = made[Int(first >> 32)]
            let next = symbols[i].next
            // A symbol may have been merged since: what counts is that the pair there still makes the same.
            guard symbols[i].count > 0, next < symbols.count,
                merges[Self.pair(symbols[i].id, symbols[next].id)]?.id == id
            else { continue }
            symbols[i].id = id
            symbols[i].count += symbols[next].count
            symbols[i].next = symbols[next].next
            symbols[next].count = 0
            if symbols[i].next < symbols.count { symbols[symbols[i].next].previous = i }
            offer(symbols[i].previous)
            offer(i)
        }
        return symbols.filter { $0.count > 0 }.map { (Int($0.id), $0.count) }
    }
}

/// A binary heap.
private struct MinHeap {
    private var values: [UInt64] = []

    mutating func insert(_ value: UInt64) {
        values.append(value)
        var i = values.count - 1
        while i > 0, values[i] < values[(i - 1) / 2] {
            values.swapAt(i, (i - 1) / 2)
            i = (i - 1) / 2
        }
    }

    mutating func removeMin() -> UInt64? {
        guard let least = values.first else { return nil }
        values.swapAt(0, values.count - 1)
        values.removeLast()
        var i = 0
        while 2 * i + 1 < values.count {
            var child = 2 * i + 1
            if child + 1 < values.count, values[child + 1] < values[child] { child += 1 }
            guard values[child] < values[i] else { break }
            values.swapAt(i, child)
            i = child
        }
        return least
    }
}
