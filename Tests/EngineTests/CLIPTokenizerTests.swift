import Engine
import Foundation
import Testing

@Suite("CLIP tokenizer") struct CLIPTokenizerTests {
    @Test("every character comes back from its parts in Normalization Form C")
    func compositions() {
        // Where characters have parts, and every 97th of the rest.
        let blocks: [ClosedRange<UInt32>] = [
            0x80...0x33ff, 0xac00...0xaeff, 0xf900...0xfaff, 0x11000...0x11fff, 0x16100...0x16fff, 0x1d100...0x1d1ff,
            0x2f800...0x2fa1f,
        ]
        for value in blocks.joined() + Array(stride(from: UInt32(0x80), to: 0x3ffff, by: 97)) {
            guard let scalar = Unicode.Scalar(value) else { continue }
            let whole = String(Character(scalar))
            let expected = Array(whole.precomposedStringWithCanonicalMapping.unicodeScalars)
            #expect(NormalizationFormC.normalize([scalar]) == expected, "U+\(String(value, radix: 16))")
            #expect(
                NormalizationFormC.normalize(whole.decomposedStringWithCanonicalMapping.unicodeScalars) == expected,
                "parts of U+\(String(value, radix: 16))")
        }
    }

    @Test(
        "marks are sorted by class, and what stands between keeps a mark from its letter",
        arguments: [
            ("a\u{301}\u{316}", "\u{e1}\u{316}"), ("a\u{302}\u{301}", "\u{1ea5}"), ("a\u{301}\u{302}", "\u{e1}\u{302}"),
            ("\u{ac00}\u{11a8}", "\u{ac01}"), ("\u{1100}\u{1161}\u{11a8}", "\u{ac01}"),
            ("\u{300e6}\u{301}", "\u{300e6}\u{301}"),
            ("\u{301}a", "\u{301}a"), ("\u{958}", "\u{915}\u{93c}"), ("\u{b47}\u{300}\u{b3e}", "\u{b47}\u{300}\u{b3e}"),
        ])
    func composes(text: String, expected: String) {
        #expect(NormalizationFormC.normalize(text.unicodeScalars) == Array(expected.unicodeScalars))
    }
}

// MARK: files

extension CLIPTokenizerTests {
    @Test("texts become the ids that transformers gives them", arguments: ["tokenizer", "tokenizer-sd2"])
    func agrees(name: String) throws {
        let reports = try Verification.run(caseDirectory: try caseFolder(name))
        #expect(reports.count == 1)
        for report in reports {
            #expect(report.passed && report.relativeError == 0, "\(report.relativeError) ids are wrong")
        }
    }

    @Test("what does not fit into 77 tokens is told")
    func dropped() throws {
        let tokenizer = try CLIPTokenizer(folder: try caseFolder("tokenizer/model"))
        let (ids, dropped) = try tokenizer.encode(String(repeating: "the ", count: 75) + "Castle  on\tthe hill ")
        #expect(ids.count == 77)
        #expect(dropped == "castle  on\tthe hill ")
        #expect(try tokenizer.encode(String(repeating: "the ", count: 75) + " \n").dropped == nil)
        #expect(try tokenizer.encode("").dropped == nil)
        #expect(try tokenizer.encode(String(repeating: "the ", count: 74) + "qzx qz").dropped?.hasSuffix(" qz") == true)
    }

    @Test("all tokens of a text are counted, those that do not fit too, and what is said of a prompt has the counts")
    func counted() throws {
        let tokenizer = try CLIPTokenizer(folder: try caseFolder("tokenizer/model"))
        #expect(try tokenizer.tokenCount(of: "") == 0)
        #expect(try tokenizer.tokenCount(of: String(repeating: "the ", count: 200) + "<|endoftext|>") == 201)
        let text = "Castle on the hill, don't! <|startoftext|> 3 towers"
        let short = try tokenizer.encode(text).ids
        let count = try tokenizer.tokenCount(of: text)
        // After the begin and the text's tokens comes the first end, which pads too.
        #expect(count > 10 && short.firstIndex(of: short[76]) == count + 1)
        #expect(try tokenizer.tokenCount(of: String(repeating: text + " ", count: 9)) == 9 * count)
        #expect(throws: CLIPTokenizerError.self) {
            try tokenizer.tokenCount(of: String(repeating: "a", count: 1 << 20))
        }
        let cut = PromptCut(tokens: 122, used: 75, dropped: "castle with dragons")
        for words in ["122", "75 tokens", "castle with dragons"] { #expect(cut.description.contains(words)) }
        #expect(cut.description.hasPrefix("the prompt is longer"))
    }

    @Test(
        "huge texts end soon, or are refused",
        arguments: ["a", "e\u{301}\u{316}", "'", "한", "<", " ", "\u{316}\u{301}"])
    func huge(piece: String) throws {
        let tokenizer = try CLIPTokenizer(folder: try caseFolder("tokenizer/model"))
        let start = ContinuousClock.now
        #expect(
            try tokenizer.encode(String(repeating: piece, count: CLIPTokenizer.textLimit / piece.utf8.count)).ids.count
                == 77)
        #expect(ContinuousClock.now - start < .seconds(10))
        #expect(
            throws: CLIPTokenizerError.textTooLong(
                bytes: 10_000_000 / piece.utf8.count * piece.utf8.count, limit: CLIPTokenizer.textLimit)
        ) {
            try tokenizer.encode(String(repeating: piece, count: 10_000_000 / piece.utf8.count))
        }
    }

    /// A copy of the small tokenizer whose files are changed; nil removes one.
    private func withTokenizer<Result>(_ changes: [String: String?], _ body: (URL) throws -> Result) throws -> Result {
        try withTemporaryFolder { folder in
            let copy = folder.appending(path: "tokenizer")
            try FileManager.default.copyItem(at: try caseFolder("tokenizer/model"), to: copy)
            for (name, content) in changes {
                let file = copy.appending(path: name)
                if let content {
                    try Data(content.utf8).write(to: file)
                } else {
                    try FileManager.default.removeItem(at: file)
                }
            }
            return try body(copy)
        }
    }

    @Test(
        "broken files are errors of one line that name the file",
        arguments: [
            ("vocab.json", nil), ("merges.txt", nil), ("vocab.json", "[]"), ("vocab.json", "{\"a\": 1.5}"),
            ("vocab.json", "{\"a\": -1}"),
            ("vocab.json", "{\"a\": 99999999999}"), ("vocab.json", "{\"a\": 1"), ("merges.txt", "zz qq\n"),
            ("vocab.json", "\u{0}"),
            ("merges.txt", "#version: 0.2\na b c\n"), ("merges.txt", "ab\n"), ("merges.txt", "q\u{301} z\n"),
            ("merges.txt", "a \n"),
            ("special_tokens_map.json", "{\"pad_token\": 3}"), ("special_tokens_map.json", "{\"surprise\": \"a\"}"),
            ("special_tokens_map.json", "{\"pad_token\": {\"content\": \"!\", \"lstrip\": true}}"),
            ("tokenizer_config.json", "{\"surprise\": 1}"),
            ("tokenizer_config.json", "{\"tokenizer_class\": \"T5Tokenizer\"}"),
            ("tokenizer_config.json", "{\"model_max_length\": 1}"),
            ("tokenizer_config.json", "{\"model_max_length\": 5000}"),
            ("tokenizer_config.json", "{\"do_lower_case\": false}"),
            ("tokenizer_config.json", "{\"added_tokens_decoder\": {\"x\": {\"content\": \"!\"}}}"),
        ] as [(String, String?)])
    func broken(file: String, content: String?) throws {
        try withTokenizer([file: content]) { folder in
            let error = try #require(throws: CLIPTokenizerError.self) { try CLIPTokenizer(folder: folder) }
            #expect(error.description.contains(file) && !error.description.contains("\n"), "\(error)")
        }
    }

    @Test("tokenizer.json, which transformers 5 saves alone, gives the same ids")
    func whole() throws {
        let folder = try caseFolder("tokenizer/model")
        let vocabulary = try JSONSerialization.jsonObject(with: Data(contentsOf: folder.appending(path: "vocab.json")))
        let merges = try String(contentsOf: folder.appending(path: "merges.txt"), encoding: .utf8).split(
            separator: "\n"
        ).dropFirst()
            .map { $0.split(separator: " ").map { String($0) } }
        let json = try JSONSerialization.data(withJSONObject: [
            "model": ["type": "BPE", "vocab": vocabulary, "merges": merges]
        ])
        let whole = String(decoding: json, as: UTF8.self)
        try withTokenizer(["vocab.json": nil, "merges.txt": nil, "tokenizer.json": whole]) { copy in
            let (a, b) = (try CLIPTokenizer(folder: folder), try CLIPTokenizer(folder: copy))
            for text in ["a photo of the castle", "rock'n'roll 123 東京"] {
                #expect(try a.encode(text).ids == b.encode(text).ids)
            }
        }
    }

    @Test("without the files about special tokens they are those of CLIP")
    func plain() throws {
        try withTokenizer(["tokenizer_config.json": nil, "special_tokens_map.json": nil]) { folder in
            let ids = try CLIPTokenizer(folder: folder).encode("<|endoftext|>").ids
            #expect(ids[0] + 1 == ids[1] && ids[1...].allSatisfy { $0 == ids[1] })
        }
    }
}
