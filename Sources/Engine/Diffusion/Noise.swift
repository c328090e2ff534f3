/// A use of a job's noise: each is another, independent field of normals over the canvas.
public struct NoiseField: Sendable, Hashable {
    public enum Purpose: UInt8, Sendable {
        /// x_T, where sampling starts.
        case initial = 1
        /// The noise that a stochastic sampler adds at a step.
        case sampler = 2
        /// Where the cut lines of a step lie.
        case offset = 3
        /// Noises the low-resolution pixels to their noise level, over the pixels of the input; step 0.
        case lowResolution = 4
        /// Draws from the distribution that an autoencoder's encoder answers, over the latents; step 0.
        case posterior = 5
    }

    public var purpose: Purpose
    public var stage: UInt8
    /// The index of the sampler's loop; 0 for the initial noise.
    public var step: UInt16

    public init(_ purpose: Purpose, stage: UInt8 = 0, step: UInt16 = 0) {
        self.purpose = purpose
        self.stage = stage
        self.step = step
    }

    /// All of it as a number: purpose << 24 | stage << 16 | step.
    public var word: UInt32 { UInt32(purpose.rawValue) << 24 | UInt32(stage) << 16 | UInt32(step) }

    /// - Returns: nil where there is no such purpose.
    public init?(word: UInt32) {
        guard let purpose = Purpose(rawValue: UInt8(word >> 24)) else { return nil }
        self.init(purpose, stage: UInt8(truncatingIfNeeded: word >> 16), step: UInt16(truncatingIfNeeded: word))
    }
}

/// Standard normal noise as a function of place: any window of a canvas, made by any worker in any order, holds the
/// values that the whole canvas has there.
///
/// The four normals of a Philox block stand side by side in a row: counter = (x / 4, y, channel, field), key = the
/// job's seed, lane x mod 4. So no number of channels wastes any, and a window at most six columns of a row. Only
/// additions, multiplications, divisions by powers of two and square roots are used, each rounded by itself: the bits
/// are the same on every processor.
public enum Noise {
    /// Fills `values` with the noise of `window`: height x width x channels.
    public static func fill(
        _ values: inout MutableSpan<Float>, window: Rect, channels: Int, seed: UInt64, field: NoiseField
    ) {
        precondition(
            window.height >= 0 && window.width >= 0 && channels >= 0
                && values.count == window.height * window.width * channels,
            "noise of \(window.height) x \(window.width) x \(channels) does not fill \(values.count) values")
        guard !values.isEmpty else { return }
        let firstBlock = window.x >> 2
        let before = window.x & 3
        let blocks = (window.x &+ window.width &+ 3) >> 2 &- firstBlock
        // Of one row of one channel; each of a block's four places in an array of its own.
        let zeros = [UInt32](repeating: 0, count: blocks)
        var (a, b, c, d) = (zeros, zeros, zeros, zeros)
        var normals = [Float](repeating: 0, count: 4 * blocks)
        for y in 0..<window.height {
            for channel in 0..<channels {
                let counter = SIMD4(
                    UInt32(truncatingIfNeeded: firstBlock), UInt32(truncatingIfNeeded: window.y &+ y),
                    UInt32(truncatingIfNeeded: channel), field.word)
                Philox4x32.fill(&a, &b, &c, &d, counter: counter, key: seed)
                var span = normals.mutableSpan
                BoxMuller.fill(&span, at: 0, blocks, radii: a, angles: b)
                BoxMuller.fill(&span, at: 2 * blocks, 3 * blocks, radii: c, angles: d)
                for place in 0..<4 {
                    // Of the first block and the last only a part may lie in the window.
                    let first = place < before ? 1 : 0
                    let end = (window.width + before - place + 3) >> 2
                    var target = (y * window.width + 4 * first + place - before) * channels + channel
                    for block in first..<max(first, end) {
                        values[target] = span[place * blocks + block]
                        target += 4 * channels
                    }
                }
            }
        }
    }
}
