import Engine

/// How pictures are cut for the autoencoder, in latents. `docs/stable-diffusion.md` has the measurements.
package struct AutoencoderTiling: Sendable, Hashable {
    /// Side of a window.
    package var tile = 64
    /// Context around each cell.
    package var halo = 8
    /// Canvases of up to so many latents have the layers at their own resolution done in one piece: the attention then
    /// sees everything. Beyond, it sees a window.
    package var wholeLimit = 256 * 256
    /// Up to so many tiles make up the group norms' statistics: all tiles of a canvas that has no more, exactly; or so
    /// many spread over it.
    package var statisticsTiles = 16

    package init() {}
}

/// One visit of tiles on the way through the autoencoder.
package struct AutoencoderSweep: Sendable {
    package var layers: Autoencode.Layers
    package var grid: TileGrid
    /// Which tiles of the grid are visited.
    package var tiles: [Int]
    /// The layers' first norms, by the sums of the sweeps before; the others are the tile's own.
    package var givenNorms = 0
    /// The norm whose sums are gathered, or none in the sweep that answers.
    package var wantedNorms = 0..<0

    /// The cost of a tile, about, beside one that goes all the way: workers keep what they have computed from sweep to
    /// sweep.
    static func relativeCost(_ index: Int, of sweeps: [AutoencoderSweep]) -> Double {
        let sweep = sweeps[index]
        // The layers at the latents' resolution are an eighth of a decoder.
        if sweep.layers == .trunk {
            let window = sweeps.first { $0.layers == .detail }?.grid.window(0) ?? sweep.grid.window(0)
            return 0.125 * Double(sweep.grid.window(0).area) / Double(window.area)
        }
        let gathering = sweeps.filter { !$0.wantedNorms.isEmpty }
        let part = 1 / Double(gathering.count + 1)
        guard sweep.wantedNorms.isEmpty, let sample = gathering.first?.tiles.count else { return part }
        return (part * Double(sample) + Double(sweep.tiles.count - sample)) / Double(sweep.tiles.count)
    }

    /// The sweeps of one way over a canvas of `height` x `width` latents.
    ///
    /// One norm's statistics after the other, each with all norms before it as they will be in the end: statistics that
    /// were taken under other ones do not fit, and a network of thirty norms multiplies the misfit.
    /// - Throws: `TilingError`.
    package static func sweeps(
        _ direction: Autoencode.Direction, _ tiling: AutoencoderTiling, _ autoencoder: AutoencoderKLConfiguration,
        height: Int, width: Int
    ) throws -> [AutoencoderSweep] {
        func grid(_ tile: Int, halo: Int) throws -> TileGrid {
            try Tiling(
                canvasHeight: height, canvasWidth: width, tile: tile, overlap: .implicit(halo: halo), offset: .none,
                alignment: 1, seed: 0
            ).grid(step: 0)
        }
        let tiles = try grid(tiling.tile, halo: tiling.halo)
        let all = Array(0..<tiles.count)
        // One window has the canvas's own statistics.
        guard tiles.count > 1 else { return [AutoencoderSweep(layers: .all, grid: tiles, tiles: all)] }
        let isWhole =
            height * width <= tiling.wholeLimit && max(height, width) <= TaskLimits.windowSide
            && 4 * height * width * autoencoder.featureChannels(direction) <= TaskLimits.tensorBytes
        let layers: Autoencode.Layers = isWhole ? .detail : .all
        let norms = autoencoder.norms(direction, layers).count
        let count = min(tiles.count, tiling.statisticsTiles)
        let sample = (0..<count).map { $0 * tiles.count / count }
        var sweeps = (0..<norms).map {
            AutoencoderSweep(layers: layers, grid: tiles, tiles: sample, givenNorms: $0, wantedNorms: $0..<$0 + 1)
        }
        sweeps.append(AutoencoderSweep(layers: layers, grid: tiles, tiles: all, givenNorms: norms))
        guard isWhole else { return sweeps }
        let whole = AutoencoderSweep(layers: .trunk, grid: try grid(max(height, width), halo: 0), tiles: [0])
        return direction == .decode ? [whole] + sweeps : sweeps + [whole]
    }
}

extension AutoencoderKLConfiguration {
    /// Channels of what stands between the layers at the latents' resolution and the others.
    package func featureChannels(_ direction: Autoencode.Direction) -> Int {
        direction == .encode ? encoderFeatureChannels : decoderFeatureChannels
    }
}
