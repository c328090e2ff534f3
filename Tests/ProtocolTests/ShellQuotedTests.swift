import Foundation
import Protocol
import Testing

@Suite("Quoting for the shell") struct ShellQuotedTests {
    @Test("a text that is quoted is one word of the shell's, and the same text; plain ones stay as they are")
    func words() throws {
        let signs = (0x20...0x7e as ClosedRange<UInt8>).map { String(decoding: [$0], as: UTF8.self) }
        let texts =
            ["/home/me/job", "my job", "it's", "''", "$HOME", "`id`", "a\\b", "~", "naïve café", "", "-"] + signs
            + signs.map { "a\($0)b" }
        let shell = Process(), output = Pipe()
        shell.executableURL = URL(filePath: "/bin/sh")
        shell.arguments = ["-c", "printf '%s\\n' " + texts.map(\.shellQuoted).joined(separator: " ")]
        shell.standardOutput = output
        try shell.run()
        let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        shell.waitUntilExit()
        #expect(said == texts.map { $0 + "\n" }.joined())
        for plain in ["/home/me/job", "../job-1_2.x", "naïve"] { #expect(plain.shellQuoted == plain) }
    }
}
