import Foundation
import Synchronization

/// Tiles of the autoencoder that wait for the statistics of their next norm: to go on from there is cheaper than to
/// begin again. Nothing but time depends on what is kept.
final class KeptAutoencoderTiles: Sendable {
    /// Names a tile: equal places hold equal values for equal statistics.
    struct Place: Equatable {
        /// The input that the tile began with.
        var input: BlobID
        var direction: Autoencode.Direction
        var window, cell: Rect
        var enlargement: Enlargement?

        init(_ request: Autoencode, input: BlobID) {
            self.input = input
            (direction, window, cell) = (request.direction, request.window, request.cell)
            enlargement = request.enlargement
        }
    }

    /// A tile that no lane works on; the memory it holds is its own.
    private struct Kept: @unchecked Sendable {
        var place: Place
        var tile: AutoencoderTile
    }

    private let tiles = Mutex<[Kept]>([])
    /// Bytes that may be held: a part of the machine's memory, since networks and lanes have theirs.
    private let limit = PipelineFolder.keptTileBytes(machine: Int(clamping: ProcessInfo.processInfo.physicalMemory))

    /// The tile that was left at this place, if it was normalised by the first of `given`.
    func take(_ place: Place, given: CanvasStatistics?) -> AutoencoderTile? {
        let found = tiles.withLock { tiles -> Kept? in
            guard let index = tiles.firstIndex(where: { $0.place == place }) else { return nil }
            return tiles.remove(at: index)
        }
        guard let found else { return nil }
        guard let past = found.tile.statistics else { return found.tile }
        guard let given, given.groups == past.groups, given.norms.lowerBound == past.norms.lowerBound,
            given.values.starts(with: past.values)
        else {
            return nil
        }
        return found.tile
    }

    func keep(_ tile: AutoencoderTile, at place: Place) {
        tiles.withLock { tiles in
            tiles.removeAll { $0.place == place }
            let kept = Kept(place: place, tile: tile)
            // Passes come in the same order: where not all fit, the same ones should stay, so the newcomer goes.
            if tiles.reduce(tile.byteCount, { $0 + $1.tile.byteCount }) <= limit { tiles.append(kept) }
        }
    }

    func removeAll() { tiles.withLock { $0 = [] } }
}
