import Foundation
import Protocol
import Testing

@Suite struct NameTests {
    @Test(
        """
        what can be a worker's name comes over the wire as it is, with any character; blanks, controls and line ends \
        are in none
        """
    )
    func names() throws {
        for value in 0...0x30FF as ClosedRange<UInt32> {
            guard let scalar = Unicode.Scalar(value) else { continue }
            let name = "a\(scalar)b"
            guard Hello.isName(name) else {
                #expect(
                    scalar.properties.isWhitespace || scalar.properties.generalCategory == .control,
                    "U+\(String(value, radix: 16))")
                continue
            }
            let hello = Hello(
                session: 1, name: name, host: "h", lanes: 1, kernels: "k", memoryBytes: 0, credit: 2, blobBytes: 0)
            #expect(
                try WorkerMessage(frames: WorkerMessage.hello(hello).frames()) == .hello(hello),
                "U+\(String(value, radix: 16))")
        }
        for bad in ["", " ", "a b", "a\u{85}b", "a\u{2028}b", "a\u{a0}b", String(repeating: "x", count: 129)] {
            #expect(!Hello.isName(bad))
        }
        #expect(Hello.isName(String(repeating: "x", count: 128)))
    }
}
