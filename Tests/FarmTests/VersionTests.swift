import Protocol
import Testing

@Suite("Version", .serialized)
struct VersionTests {
    @Test("both programs say their version, which is one", arguments: ["tilefarm", "tilefarm-worker"])
    func version(name: String) throws {
        let program = try RunningProgram(name, ["--version"])
        #expect(program.waitForExit(seconds: 30) == 0, "\(program.standardError)")
        #expect(program.standardOutput == Version.number + "\n" && program.standardError.isEmpty)
        #expect(Version.number.wholeMatch(of: /\d+\.\d+\.\d+/) != nil)
    }
}
