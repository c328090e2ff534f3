import Foundation

/// How a job cuts its canvas, step after step.
///
/// The default is FSTD (Fast Seamless Tiled Diffusion, arXiv 2308.16582, Algorithm 2) in the covering form: at every
/// step the cut lines are drawn anew, the cells between them are disjoint and cover the canvas, and each window is
/// wider than its cell by a halo of context. The published form and the usual baselines stand beside it, to be compared
/// with.
public struct Tiling: Sendable, Hashable {
    /// How tiles meet.
    public enum Overlap: Sendable, Hashable {
        /// FSTD with disjoint covering cells; `halo` pixels around a cell are read and thrown away.
        case implicit(halo: Int)
        /// FSTD as published and as its code does it: offsets 0..<range towards the far edge, zero at every fourth
        /// step, the strip at the near edge keeps the prediction of the step before, Gaussian blend where the clamped
        /// tiles overlap.
        case reference
        /// Windows overlap by `width` pixels at fixed places, predictions are blended: with `.mean` MultiDiffusion
        /// (arXiv 2302.08113), with `.gaussian` Mixture of Diffusers (arXiv 2302.02412).
        case explicit(width: Int, weights: BlendWeights)
        /// Disjoint tiles at fixed places, no context: the baseline that shows seams.
        case none
    }

    /// Where the cut lines of a step lie.
    public enum Offset: Sendable, Hashable {
        /// Drawn anew from the job's seed at every step.
        case random
        /// Half the range at every second step, none at the others.
        case fixed
        /// The same lines at every step.
        case none
    }

    public let canvasHeight: Int
    public let canvasWidth: Int
    /// Window side in canvas pixels; an axis shorter than this has one window of its own length.
    public let tile: Int
    public let overlap: Overlap
    public let offset: Offset
    /// Exclusive bound of the offsets in pixels; nil chooses one for each axis (see `range(length:)`).
    public let offsetRange: Int?
    /// Offsets, and so all windows, stand at multiples of this (the model's total downsampling and the phase of its
    /// conditioning): a network is not equivariant to smaller shifts. `reference` ignores it, as the paper does.
    public let alignment: Int
    public let seed: UInt64

    /// - Throws: `TilingError` when the canvas is not a multiple of the alignment, or when tile, halo, overlap or range
    ///   do not fit.
    public init(
        canvasHeight: Int, canvasWidth: Int, tile: Int, overlap: Overlap, offset: Offset, offsetRange: Int? = nil,
        alignment: Int, seed: UInt64
    ) throws(TilingError) {
        guard alignment > 0, canvasHeight > 0, canvasWidth > 0, canvasHeight % alignment == 0,
            canvasWidth % alignment == 0
        else {
            throw .unalignedCanvas(height: canvasHeight, width: canvasWidth, alignment: alignment)
        }
        guard tile >= alignment, tile % alignment == 0 else { throw .unalignedTile(tile, alignment: alignment) }
        switch overlap {
        case .implicit(let halo):
            guard halo >= 0, halo % alignment == 0 else { throw .unalignedHalo(halo, alignment: alignment) }
            guard halo < tile - halo else { throw .haloTooWide(halo, tile: tile) }
        case .explicit(let width, _):
            guard width >= 0, width % alignment == 0 else { throw .unalignedOverlap(width, alignment: alignment) }
            guard width < tile else { throw .overlapTooWide(width, tile: tile) }
        case .reference, .none:
            break
        }
        if let offsetRange, offsetRange < 1 || offsetRange > tile { throw .offsetRange(offsetRange, tile: tile) }
        self.canvasHeight = canvasHeight
        self.canvasWidth = canvasWidth
        self.tile = tile
        self.overlap = overlap
        self.offset = offset
        self.offsetRange = offsetRange
        self.alignment = alignment
        self.seed = seed
    }

    /// Whether a tile writes its own cell and nobody else's, so that steps need no barrier. Otherwise the predictions
    /// of a whole step are blended before the sampler's step is taken.
    public var writesDisjointCells: Bool {
        switch overlap {
        case .implicit, .none: true
        case .reference, .explicit: false
        }
    }

    /// Whether some steps have places that no window covers.
    public var leavesGaps: Bool { overlap == .reference }

    /// How predictions are weighted where windows overlap (`reference` and `explicit`).
    public var blendWeights: BlendWeights {
        switch overlap {
        case .explicit(_, let weights): weights
        case .reference, .implicit, .none: .gaussian
        }
    }

    /// The grid of a step, a function of the seed and the step alone.
    public func grid(step: Int) -> TileGrid {
        TileGrid(
            rows: axis(length: canvasHeight, step: step, axis: 0),
            columns: axis(length: canvasWidth, step: step, axis: 1))
    }

    private func axis(length: Int, step: Int, axis: Int) -> TileAxis {
        switch overlap {
        case .implicit(let halo):
            return .covering(
                length: length, tile: tile, halo: halo, shift: shift(length: length, step: step, axis: axis))
        case .none:
            return .covering(length: length, tile: tile, halo: 0, shift: shift(length: length, step: step, axis: axis))
        case .explicit(let width, _):
            return .overlapping(length: length, tile: tile, overlap: width)
        case .reference:
            return .published(
                length: length, tile: tile, offset: step % 4 == 0 ? 0 : shift(length: length, step: step, axis: axis))
        }
    }

    /// The exclusive bound of the offsets along an axis.
    ///
    /// Without a wish the cut lines move as far as they can without costing one more tile, when that is at least a
    /// quarter of a cell; else over a whole cell. The published default is half a tile (32 of 64 latents).
    private func range(length: Int) -> Int {
        switch overlap {
        case .reference:
            return offsetRange ?? max(tile / 2, 1)
        case .explicit:
            return 1
        case .implicit, .none:
            var halo = 0
            if case .implicit(let width) = overlap { halo = width }
            let stride = tile - 2 * halo
            if let offsetRange { return min(offsetRange, stride) }
            let slack = TileAxis.slack(length: length, tile: tile, halo: halo)
            return slack >= stride / 4 ? min(slack + 1, stride) : stride
        }
    }

    private func shift(length: Int, step: Int, axis: Int) -> Int {
        let unit = overlap == .reference ? 1 : alignment
        let places = (range(length: length) + unit - 1) / unit
        switch offset {
        case .none:
            return 0
        case .fixed:
            return step % 2 == 1 ? places / 2 * unit : 0
        case .random:
            let counter = SIMD4<UInt32>(
                UInt32(axis), 0, 0, NoiseField(.offset, step: UInt16(truncatingIfNeeded: step)).word)
            let word = Philox4x32.block(counter: counter, key: seed).x
            return Int((UInt64(word) * UInt64(clamping: places)) >> 32) * unit
        }
    }
}

/// How overlapping predictions are weighted, along one axis; a tile's weight is the product over both.
public enum BlendWeights: String, Sendable, Hashable, CaseIterable, Codable {
    /// MultiDiffusion (arXiv 2302.08113): every tile counts the same.
    case mean
    /// Mixture of Diffusers (arXiv 2302.02412): a Gaussian about the tile's middle with variance 0.01 of the squared
    /// width.
    case gaussian

    /// The weight of each of `count` positions across a window.
    public func weights(count: Int) -> [Float] {
        switch self {
        case .mean:
            return Array(repeating: 1, count: count)
        case .gaussian:
            let middle = Float(count - 1) / 2
            return (0..<count).map { position in
                let distance = (Float(position) - middle) / Float(count)
                return exp(-distance * distance / (2 * 0.01))
            }
        }
    }
}

/// Why a canvas cannot be cut as asked.
public enum TilingError: Error, Equatable, CustomStringConvertible {
    case unalignedCanvas(height: Int, width: Int, alignment: Int)
    case unalignedTile(Int, alignment: Int)
    case unalignedHalo(Int, alignment: Int)
    case unalignedOverlap(Int, alignment: Int)
    case haloTooWide(Int, tile: Int)
    case overlapTooWide(Int, tile: Int)
    case offsetRange(Int, tile: Int)

    public var description: String {
        switch self {
        case .unalignedCanvas(let height, let width, let alignment):
            "the canvas of \(width)x\(height) is not a multiple of the model's alignment, \(alignment): pad it first"
        case .unalignedTile(let tile, let alignment):
            "a tile of \(tile) is not a positive multiple of the model's alignment, \(alignment): "
                + "try \(nearest(tile, alignment))"
        case .unalignedHalo(let halo, let alignment):
            "a halo of \(halo) is not a multiple of the model's alignment, \(alignment): "
                + "try \(nearest(halo, alignment))"
        case .unalignedOverlap(let width, let alignment):
            "an overlap of \(width) is not a multiple of the model's alignment, \(alignment): "
                + "try \(nearest(width, alignment))"
        case .haloTooWide(let halo, let tile):
            "a halo of \(halo) leaves nothing of a tile of \(tile) to write: choose a halo below \(tile / 2)"
        case .overlapTooWide(let width, let tile):
            "an overlap of \(width) does not leave a tile of \(tile) room to advance: choose less than \(tile)"
        case .offsetRange(let range, let tile):
            "an offset range of \(range) is outside 1...\(tile): choose a range no larger than the tile"
        }
    }

    /// The multiple of the alignment that is nearest, and not 0.
    package func nearest(_ value: Int, _ alignment: Int) -> Int {
        let below = value / alignment * alignment
        return max(
            alignment, value - below > alignment / 2 && below <= .max - alignment ? below + alignment : below)
    }
}
