import Engine
import Foundation
import Testing

@Suite("CLIP tokenizer") struct CLIPTokenizerTests {
    @Test("every character comes back from its parts in Normalization Form C")
    func compositions() {
        for value in UInt32(0x80)...0x3ffff {
            guard let scalar = Unicode.Scalar(value) else { continue }
            let whole = String(Character(scalar))
            let expected = Array(whole.precomposedStringWithCanonicalMapping.unicodeScalars)
            #expect(NormalizationFormC.normalize([scalar]) == expected, "U+\(String(value, radix: 16))")
            #expect(NormalizationFormC.normalize(whole.decomposedStringWithCanonicalMapping.unicodeScalars) == expected, "parts of U+\(String(value, radix: 16))")
        }
    }

    @Test("marks are sorted by class, and what stands between keeps a mark from its letter", arguments: [
        ("a\u{301}\u{316}", "\u{e1}\u{316}"), ("a\u{302}\u{301}", "\u{1ea5}"), ("a\u{301}\u{302}", "\u{e1}\u{302}"),
        ("\u{ac00}\u{11a8}", "\u{ac01}"), ("\u{1100}\u{1161}\u{11a8}", "\u{ac01}"), ("\u{300e6}\u{301}", "\u{300e6}\u{301}"),
        ("\u{301}a", "\u{301}a"), ("\u{958}", "\u{915}\u{93c}"), ("\u{b47}\u{300}\u{b3e}", "\u{b47}\u{300}\u{b3e}"),
    ])
    func composes(text: String, expected: String) {
        #expect(NormalizationFormC.normalize(text.unicodeScalars) == Array(expected.unicodeScalars))
    }
}
