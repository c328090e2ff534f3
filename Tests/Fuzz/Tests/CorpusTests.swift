import Engine
import Foundation
import Testing

/// Inputs that the fuzzers have found worth keeping, read again: a short run of what `make fuzz` does for hours,
/// without its eye on coverage.
@Suite("Fuzzing", .serialized)
struct CorpusTests {
    private static let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()

    private static func inputs(_ target: FuzzTarget) throws -> [(name: String, bytes: [UInt8])] {
        let folder = folder.appending(path: "Corpus/\(target.rawValue)")
        return try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted().map { name in
            (name, [UInt8](try Data(contentsOf: folder.appending(path: name))))
        }
    }

    @Test(
        "every input of the corpora, findings among them, is read or refused with a documented error",
        arguments: FuzzTarget.allCases)
    func corpus(target: FuzzTarget) throws {
        let inputs = try Self.inputs(target)
        try #require(inputs.count > 10)
        for (name, bytes) in inputs { #expect(throws: Never.self, "\(name)") { try target.read(bytes) } }
    }

    @Test("the seeds that stand for messages are messages")
    func seeds() throws {
        // What they show is that they are refused.
        let refused: Set = [
            "worker-frame-missing", "worker-previous", "coordinator-element", "coordinator-unknown",
            "coordinator-source",
        ]
        let seeds = try Self.inputs(.messages).filter { $0.name.contains("-") }
        #expect(seeds.count >= 40)
        for (name, bytes) in seeds { #expect(try readMessage(bytes) == !refused.contains(name), "\(name)") }
    }

    @Test("so are twenty thousand inputs that differ from them a little", arguments: FuzzTarget.allCases)
    func mutations(target: FuzzTarget) throws {
        let inputs = try Self.inputs(target).map(\.bytes)
        var random = SplitMix64(state: 11)
        for _ in 0..<20_000 {
            let input = Self.mutation(of: inputs, using: &random)
            do { try target.read(input) } catch {
                Issue.record("\(error) on \(Data(input).base64EncodedString())")
                return
            }
        }
    }

    /// A few of libFuzzer's ways: bits and bytes changed, parts removed, repeated, and taken from another input.
    private static func mutation(of inputs: [[UInt8]], using random: inout SplitMix64) -> [UInt8] {
        func range(_ bytes: [UInt8]) -> Range<Int> {
            let start = Int.random(in: 0...bytes.count, using: &random)
            return start..<Int.random(in: start...min(bytes.count, start + 64), using: &random)
        }
        var input = inputs[.random(in: 0..<inputs.count, using: &random)]
        for _ in 0...Int.random(in: 0...3, using: &random) where !input.isEmpty {
            let at = Int.random(in: 0..<input.count, using: &random)
            switch Int.random(in: 0...5, using: &random) {
            case 0: input[at] ^= 1 << UInt8.random(in: 0...7, using: &random)
            case 1: input[at] = [0, 1, 0x7F, 0x80, 0xFF][.random(in: 0...4, using: &random)]
            case 2: input[at] = .random(in: 0...255, using: &random)
            case 3: input.removeSubrange(range(input))
            case 4: input.insert(contentsOf: input[range(input)], at: at)
            case _:
                let other = inputs[.random(in: 0..<inputs.count, using: &random)]
                input.insert(contentsOf: other[range(other)], at: at)
            }
        }
        return input
    }
}
