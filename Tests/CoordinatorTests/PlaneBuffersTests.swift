import Coordinator
import Engine
import Testing

@Suite("Plane buffers")
struct PlaneBuffersTests {
    @Test(
        """
        every pass reads what the one before it has written, and no checkpoint is written in before the next is safe, \
        though some never are
        """,
        arguments: 0..<50)
    func turns(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        let all = try (0..<Pipeline.buffersOfRewrittenPlane).map { _ in
            Canvas(height: 1, width: 1, channels: 1, values: try StoredValues(.float32, count: 1))
        }
        var buffers = PlaneBuffers(all)
        /// Which buffer each pass has written in, from its first tile on.
        var wrote: [Int: Int] = [:]
        var safe: (pass: Int, buffer: Int)?, writing: (pass: Int, buffer: Int)?, awaited: Int?
        var low = 0, high = 0  // the passes that have tiles to cut or merge
        while low < 60 {
            switch Int.random(in: 0..<5, using: &random) {
            case 0 where high < low + 2:
                high += 1
            case 1 where low < high:
                // The last tile of the lowest pass is merged.
                wrote[low] = wrote[low] ?? buffers.number(writtenBy: low)
                low += 1
                if awaited == low {
                    writing = (low, try #require(wrote[low - 1]))
                    awaited = nil
                }
            case 2 where awaited == nil && writing == nil:
                let pass = (wrote.keys.max() ?? -1) + 1
                guard pass > (safe?.pass ?? 0), pass >= low else { continue }
                buffers.turn(
                    at: pass, holding: buffers.number(writtenBy: pass - 1), keeping: safe?.buffer)
                awaited = pass
                if pass == low, let buffer = wrote[pass - 1] {
                    writing = (pass, buffer)
                    awaited = nil
                }
            case 3 where writing != nil:
                // It is on the disk, or could not be brought there.
                if Bool.random(using: &random) { safe = writing }
                writing = nil
            default:
                for pass in low..<max(high, low + 1) where pass == 0 || wrote[pass - 1] != nil {
                    let number = buffers.number(writtenBy: pass)
                    #expect(wrote[pass] == nil || wrote[pass] == number, "a pass writes one canvas")
                    for kept in [safe, writing].compactMap({ $0 }) {
                        #expect(
                            number != kept.buffer || pass < kept.pass,
                            "the checkpoint before pass \(kept.pass) is left alone")
                    }
                    wrote[pass] = number
                    if pass > 0 {
                        #expect(
                            buffers.number(writtenBy: pass - 1) == wrote[pass - 1],
                            "pass \(pass) reads what pass \(pass - 1) wrote")
                    }
                }
            }
        }
    }
}
