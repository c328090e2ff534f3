import Engine
import Foundation
import Protocol
import Testing

@Suite("Digests")
struct DigestTests {
    @Test(
        "SHA-256 gives the vectors of its standard (FIPS 180-2, appendix B)",
        arguments: [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
            ),
            (
                String(repeating: "a", count: 1_000_000),
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
            ),
        ])
    func vectors(text: String, hex: String) {
        #expect(ContentDigest(of: Array(text.utf8)).hex == hex)
        #expect(ContentDigest(of: Data(text.utf8)).hex == hex)
        #expect(Frame(copying: Array(text.utf8)).blobID.bytes == ContentDigest(of: Array(text.utf8)).bytes)
    }

    @Test("a file's digest is that of its bytes, whatever their number")
    func files() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "tilefarm-digest-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        for count in [0, 1, 55, 56, 63, 64, 65, 1 << 20, (1 << 20) + 1, (3 << 20) - 7] {
            let bytes = Data((0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) })
            try bytes.write(to: URL(filePath: path))
            #expect(try ContentDigest(file: path) == ContentDigest(of: bytes), "\(count) bytes")
        }
    }
}
