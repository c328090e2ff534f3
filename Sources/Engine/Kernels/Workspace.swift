/// The memory of one compute lane. Activations are taken from it and fall back to it when nobody holds them any more,
/// so that a lane allocates for its first tile and then no more.
public final class Workspace {
    private var floats: [AlignedBuffer<Float>] = []
    private var doubles: [AlignedBuffer<Double>] = []
    private var scratch = AlignedBuffer<Float>(count: 0)

    private var shape = (height: 0, width: 0)

    public init() {}

    /// Tells what windows come next. A lane that serves pictures of many sizes keeps memory for one size alone.
    package func prepare(height: Int, width: Int) {
        guard shape != (height, width) else { return }
        shape = (height, width)
        floats = []
        doubles = []
        scratch = AlignedBuffer(count: 0)
    }

    /// An activation with unspecified values.
    package func activation(height: Int, width: Int, channels: Int) -> Activation {
        Activation(
            height: height, width: width, channels: channels,
            values: Self.take(height * width * channels, from: &floats),
            moments: Self.take(Activation.momentCount(channels), from: &doubles))
    }

    /// `count` unspecified values.
    package func buffer(_ count: Int) -> AlignedBuffer<Float> { Self.take(count, from: &floats) }

    /// Memory for the duration of one kernel: at least `count` unspecified values.
    package func scratch(_ count: Int) -> AlignedBuffer<Float> {
        if scratch.count < count { scratch = AlignedBuffer(count: count) }
        return scratch
    }

    /// Never gives the memory of `activation` again, which then belongs to whoever holds it.
    package func forget(_ activation: Activation) {
        floats.removeAll { $0 === activation.values }
        doubles.removeAll { $0 === activation.momentBuffer }
    }

    /// Bytes that it holds, free or not.
    package var allocatedBytes: Int {
        floats.reduce(0) { $0 + $1.count * 4 } + doubles.reduce(0) { $0 + $1.count * 8 } + scratch.count * 4
    }

    /// The sizes that a network asks for are the same for every tile, so only exact fits are given again.
    private static func take<Element>(_ count: Int, from pool: inout [AlignedBuffer<Element>]) -> AlignedBuffer<Element>
    {
        for i in pool.indices where pool[i].count == count {
            if isKnownUniquelyReferenced(&pool[i]) { return pool[i] }
        }
        let buffer = AlignedBuffer<Element>(count: count)
        pool.append(buffer)
        return buffer
    }
}
