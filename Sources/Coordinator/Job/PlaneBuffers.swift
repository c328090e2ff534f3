import Engine

/// The buffers of one plane. Without checkpoints there is one, changed in place. A checkpoint freezes the one that the
/// passes before it have written: those after it write another.
package struct PlaneBuffers {
    package let buffers: [Canvas]
    /// From which pass on which buffer is written.
    private var turns: [(from: Int, buffer: Int)] = [(0, 0)]

    /// - Parameter buffers: one, or `Pipeline.buffersOfRewrittenPlane` where the plane goes on being written after a
    ///   checkpoint
    package init(_ buffers: [Canvas]) { self.buffers = buffers }

    /// Goes on from a checkpoint: `buffer` holds what the passes before `pass` have written, and stays as it is.
    mutating func resume(at pass: Int, buffer: Int) {
        turns = [(0, buffer)] + (buffers.count > 1 ? [(pass, (buffer + 1) % buffers.count)] : [])
    }

    /// The number of the buffer that a pass writes; what it has written is read there.
    package func number(writtenBy pass: Int) -> Int { turns.last { $0.from <= pass }?.buffer ?? 0 }

    func written(by pass: Int) -> Canvas { buffers[number(writtenBy: pass)] }

    /// From `pass` on, which nobody has written in yet, another buffer is written than `held` and `kept`. It may be
    /// that way already: a checkpoint was tried before and came to nothing, and nobody has written since.
    /// - Parameters:
    ///   - held: the buffer that holds what the passes before `pass` write
    ///   - kept: the one that the last checkpoint has
    package mutating func turn(at pass: Int, holding held: Int, keeping kept: Int?) {
        guard turns.last?.buffer == held, let free = buffers.indices.first(where: { $0 != held && $0 != kept }) else {
            return
        }
        // Tiles of the present turn's first pass may still be to cut, out of what the turn before has written.
        turns = turns.suffix(2) + [(pass, free)]
    }
}
