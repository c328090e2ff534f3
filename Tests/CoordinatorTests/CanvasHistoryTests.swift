import Coordinator
import Engine
import Testing

@Suite("Canvas history")
struct CanvasHistoryTests {
    @Test(
        "every phase reads what the one before it has written, and no checkpoint is written in before the next is safe, though some never are",
        arguments: 0..<50)
    func turns(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        let canvases = try (0..<3).map { _ in
            Canvas(height: 1, width: 1, channels: 1, values: try StoredValues(.float32, count: 1))
        }
        var history = CanvasHistory(canvases)
        /// Which canvas each phase has written in, from its first tile on.
        var wrote: [Int: Int] = [:]
        var safe: (phase: Int, canvas: Int)?, writing: (phase: Int, canvas: Int)?, awaited: Int?
        var low = 0, high = 0  // the phases that have tiles to cut or merge
        while low < 60 {
            switch Int.random(in: 0..<5, using: &random) {
            case 0 where high < low + 2:
                high += 1
            case 1 where low < high:
                // The last tile of the lowest phase is merged.
                wrote[low] = wrote[low] ?? history.number(writtenBy: low)
                low += 1
                if awaited == low {
                    writing = (low, try #require(wrote[low - 1]))
                    awaited = nil
                }
            case 2 where awaited == nil && writing == nil:
                let phase = (wrote.keys.max() ?? -1) + 1
                guard phase > (safe?.phase ?? 0), phase >= low else { continue }
                history.turn(at: phase, keeping: safe?.canvas)
                awaited = phase
                if phase == low, let canvas = wrote[phase - 1] {
                    writing = (phase, canvas)
                    awaited = nil
                }
            case 3 where writing != nil:
                // It is on the disk, or could not be brought there.
                if Bool.random(using: &random) { safe = writing }
                writing = nil
            default:
                for phase in low..<max(high, low + 1) where phase == 0 || wrote[phase - 1] != nil {
                    let number = history.number(writtenBy: phase)
                    #expect(wrote[phase] == nil || wrote[phase] == number, "a phase writes one canvas")
                    for kept in [safe, writing].compactMap({ $0 }) {
                        #expect(
                            number != kept.canvas || phase < kept.phase,
                            "the checkpoint before phase \(kept.phase) is left alone")
                    }
                    wrote[phase] = number
                    if phase > 0 {
                        #expect(
                            history.number(writtenBy: phase - 1) == wrote[phase - 1],
                            "phase \(phase) reads what phase \(phase - 1) wrote")
                    }
                }
            }
        }
    }
}
