import Engine
import Testing

/// Tiles with the statistics of the whole canvas.
extension AutoencoderKLTests {
    /// Cells that cover a canvas, and around each a window that is wider by `halo`.
    private func tiles(_ height: Int, _ width: Int, cell: Int, halo: Int) -> [(window: Rect, cell: Rect)] {
        stride(from: 0, to: height, by: cell).flatMap { y in
            stride(from: 0, to: width, by: cell).map { x in
                let (top, left) = (max(0, y - halo), max(0, x - halo))
                let (endY, endX) = (min(height, y + cell), min(width, x + cell))
                let window = Rect(
                    y: top, x: left, height: min(height, endY + halo) - top, width: min(width, endX + halo) - left)
                return (window, Rect(y: y - top, x: x - left, height: endY - y, width: endX - x))
            }
        }
    }

    @Test("tiles normalised by statistics that were summed norm by norm make the picture of the whole, exactly")
    func exact() throws {
        let vae = try Self.load("vae-bare")  // without attention, all that a pixel depends on is near it
        let (height, width) = (16, 24)
        let latent = latent(height, width, 3), workspace = Workspace()
        let tiles = tiles(height, width, cell: 8, halo: 12)
        var statistics: CanvasStatistics?
        for norm in 0..<vae.configuration.decoderNorms {
            var sums: CanvasStatistics?
            for (window, cell) in tiles {
                let part = try vae.decoderStatistics(
                    crop(latent, window), cell: cell, given: statistics, norms: norm..<norm + 1, workspace: workspace)
                if sums == nil { sums = part } else { try sums?.add(part) }
            }
            let found = try #require(sums)
            statistics = try CanvasStatistics(
                groups: found.groups, norms: 0..<norm + 1, values: (statistics?.values ?? []) + found.values)
        }
        let whole = try vae.decode(latent, workspace: workspace)
        let factor = vae.configuration.factor
        var largest: Float = 0, alone: Float = 0
        for (window, cell) in tiles {
            let there = crop(
                whole,
                Rect(
                    y: (window.y + cell.y) * factor, x: (window.x + cell.x) * factor, height: cell.height * factor,
                    width: cell.width * factor))
            let inside = Rect(
                y: cell.y * factor, x: cell.x * factor, height: cell.height * factor, width: cell.width * factor)
            let image = crop(try vae.decode(crop(latent, window), statistics: statistics, workspace: workspace), inside)
            let without = crop(try vae.decode(crop(latent, window), workspace: workspace), inside)
            largest = max(largest, relativeError(image, there))
            alone = max(alone, relativeError(without, there))
        }
        #expect(largest < 1e-5)
        #expect(alone > 100 * largest)  // or the statistics would not have mattered
    }

    /// The layers that can be done in tiles, of a network with attention: by tiles kept from norm to norm, and by calls
    /// that begin anew each time.
    enum Detail: CaseIterable {
        case decoder, encoder

        func norms(_ vae: AutoencoderKL) -> Range<Int> {
            switch self {
            case .decoder: vae.configuration.decoderTrunkNorms..<vae.configuration.decoderNorms
            case .encoder: 0..<vae.configuration.encoderFeatureNorms
            }
        }

        /// Context that keeps the windows' edges from the cells, in positions of the input.
        func halo(_ vae: AutoencoderKL) -> Int {
            switch self {
            case .decoder: vae.configuration.decoderFeatureHalo
            case .encoder: vae.configuration.encoderFeatureHalo * vae.configuration.factor
            }
        }

        func tile(_ vae: AutoencoderKL, _ input: Activation, _ cell: Rect, _ workspace: Workspace) throws
            -> AutoencoderTile
        {
            switch self {
            case .decoder: try .decoding(vae, features: input, cell: cell, workspace: workspace)
            case .encoder: try .encoding(vae, image: input, cell: cell, workspace: workspace)
            }
        }

        func sums(
            _ vae: AutoencoderKL, _ input: Activation, _ cell: Rect, given: CanvasStatistics?, _ norms: Range<Int>
        ) throws -> CanvasStatistics {
            switch self {
            case .decoder:
                try vae.decoderStatistics(
                    features: input, cell: cell, given: given, norms: norms, workspace: Workspace())
            case .encoder:
                try vae.encoderStatistics(input, cell: cell, given: given, norms: norms, workspace: Workspace())
            }
        }

        func result(_ vae: AutoencoderKL, _ input: Activation, _ statistics: CanvasStatistics?) throws -> Activation {
            switch self {
            case .decoder: try vae.decode(features: input, statistics: statistics, workspace: Workspace())
            case .encoder: try vae.encoderFeatures(input, statistics: statistics, workspace: Workspace())
            }
        }

        /// The place in the result of one in the input.
        func scaled(_ rect: Rect, _ vae: AutoencoderKL) -> Rect {
            let factor = vae.configuration.factor
            switch self {
            case .decoder: return rect.scaled(by: factor)
            case .encoder:
                return Rect(
                    y: rect.y / factor, x: rect.x / factor, height: rect.height / factor, width: rect.width / factor)
            }
        }
    }

    /// For `height` x `width` latents.
    private func input(_ detail: Detail, _ vae: AutoencoderKL, _ height: Int, _ width: Int) throws -> Activation {
        switch detail {
        case .decoder: try vae.decoderFeatures(latent(height, width, 4), workspace: Workspace())
        case .encoder: latent(height * vae.configuration.factor, width * vae.configuration.factor, 3)
        }
    }

    private func equal(_ a: Activation, _ b: Activation) -> Bool {
        (a.height, a.width, a.channels) == (b.height, b.width, b.channels)
            && a.span.indices.allSatisfy { a.span[$0] == b.span[$0] }
    }

    @Test("a decoding in two parts has the bits of one")
    func decoderParts() throws {
        let vae = try Self.load("vae-old-names"), workspace = Workspace(), latent = latent(6, 9, 4)
        let features = try vae.decoderFeatures(latent, workspace: workspace)
        #expect(
            equal(
                try vae.decode(features: features, workspace: workspace), try vae.decode(latent, workspace: workspace)))
    }

    @Test(
        """
        with the layers at the latents' resolution done on the whole canvas, tiles make the others' result as if whole
        """,
        arguments: Detail.allCases)
    func exactWithAttention(detail: Detail) throws {
        let vae = try Self.load("vae-old-names"), workspace = Workspace()
        let input = try input(detail, vae, 16, 24)
        let tiles = try tiles(input.height, input.width, cell: input.height / 2, halo: detail.halo(vae)).map {
            (window: $0.window, cell: $0.cell, tile: try detail.tile(vae, crop(input, $0.window), $0.cell, workspace))
        }
        for _ in detail.norms(vae) {
            var sums = try tiles[0].tile.sums()
            for other in tiles.dropFirst() { try sums.add(other.tile.sums()) }
            for (_, _, tile) in tiles { try tile.advance(by: sums, workspace: workspace) }
        }
        let whole = try detail.result(vae, input, nil)
        for (window, cell, tile) in tiles {
            let there = Rect(y: window.y + cell.y, x: window.x + cell.x, height: cell.height, width: cell.width)
            #expect(
                relativeError(crop(try tile.result(), detail.scaled(cell, vae)), crop(whole, detail.scaled(there, vae)))
                    < 1e-5)
        }
    }

    @Test(
        "a tile that is kept from norm to norm has the sums and the bits of one that begins anew each time",
        arguments: Detail.allCases)
    func keptTile(detail: Detail) throws {
        let vae = try Self.load("vae-old-names"), workspace = Workspace(),
            unit = detail == .decoder ? 1 : vae.configuration.factor
        let input = try input(detail, vae, 7, 9), cell = Rect(y: 1, x: 2, height: 4, width: 5).scaled(by: unit)
        let tile = try detail.tile(vae, input, cell, workspace)
        #expect(throws: ModelError.self) { try tile.result() }
        var statistics: CanvasStatistics?
        for norm in detail.norms(vae) {
            #expect(tile.norm == norm)
            let sums = try tile.sums()
            #expect(try sums == detail.sums(vae, input, cell, given: statistics, norm..<norm + 1))
            if statistics == nil { statistics = sums } else { try statistics?.append(sums) }
            try tile.advance(by: sums, workspace: workspace)
            #expect(tile.statistics == statistics)
            // Other tiles of the lane come between.
            _ = try detail.tile(vae, input, cell, workspace).advance(by: try #require(statistics), workspace: workspace)
        }
        let expected = try detail.result(vae, input, statistics)
        #expect(equal(try tile.result(), expected))
        #expect(throws: ModelError.self) { try tile.sums() }

        let late = try detail.tile(vae, input, cell, workspace)
        try late.advance(by: try #require(statistics), workspace: workspace)
        #expect(equal(try late.result(), expected))

        let other = try detail.sums(vae, input, cell, given: nil, detail.norms(vae).dropFirst())
        #expect(throws: ModelError.self) {
            try detail.tile(vae, input, cell, workspace).advance(by: other, workspace: workspace)
        }
        let outside = Rect(y: 4, x: 0, height: 4, width: 9).scaled(by: unit)
        #expect(throws: ModelError.self) { try detail.tile(vae, input, outside, workspace) }
    }

    @Test("another lane goes on with a tile, of whose memory the first lane keeps nothing", arguments: Detail.allCases)
    func detached(detail: Detail) throws {
        let vae = try Self.load("vae-old-names"), unit = detail == .decoder ? 1 : vae.configuration.factor
        let input = try input(detail, vae, 7, 9), cell = Rect(y: 1, x: 2, height: 4, width: 5).scaled(by: unit),
            norms = detail.norms(vae)
        let statistics = try detail.sums(vae, input, cell, given: nil, norms)
        // Before the first norm of a residual block, where it holds one activation, and before the second.
        for done in [2, 3] {
            let (first, second) = (Workspace(), Workspace())
            let tile = try detail.tile(vae, input, cell, first)
            let size = 3 * statistics.groups, middle = norms.lowerBound + done
            try tile.advance(
                by: CanvasStatistics(
                    groups: statistics.groups, norms: norms.lowerBound..<middle,
                    values: Array(statistics.values[..<(done * size)])),
                workspace: first)
            let before = first.allocatedBytes
            tile.detach(from: first)
            #expect(first.allocatedBytes <= before - tile.byteCount)
            try tile.advance(
                by: CanvasStatistics(
                    groups: statistics.groups, norms: middle..<norms.upperBound,
                    values: Array(statistics.values[(done * size)...])),
                workspace: second)
            _ = try detail.tile(vae, input, cell, first).advance(by: statistics, workspace: first)
            #expect(equal(try tile.result(), try detail.result(vae, input, statistics)))
        }
    }

    @Test("an encoding in two parts has the bits of one")
    func encoderParts() throws {
        let vae = try Self.load("vae-old-names")
        let image = latentImage(vae), workspace = Workspace()
        let features = try vae.encoderFeatures(image, workspace: workspace)
        #expect(features.channels == vae.configuration.encoderFeatureChannels)
        let parts = try vae.encode(features: features, workspace: workspace),
            whole = try vae.encode(image, workspace: workspace)
        #expect(whole.span.indices.allSatisfy { whole.span[$0] == parts.span[$0] })
    }

    @Test("the encoder's tiles make the latents of the whole in the same way")
    func exactEncoder() throws {
        let vae = try Self.load("vae-bare")
        let (height, width) = (32, 48)
        let image = latent(height, width, 3), workspace = Workspace()
        let tiles = tiles(height, width, cell: 16, halo: 20)
        var statistics: CanvasStatistics?
        for norm in 0..<vae.configuration.encoderNorms {
            let parts = try tiles.map {
                try vae.encoderStatistics(
                    crop(image, $0.window), cell: $0.cell, given: statistics, norms: norm..<norm + 1,
                    workspace: workspace)
            }
            var sums = parts[0]
            for part in parts.dropFirst() { try sums.add(part) }
            statistics = try CanvasStatistics(
                groups: sums.groups, norms: 0..<norm + 1, values: (statistics?.values ?? []) + sums.values)
        }
        let whole = try vae.encode(image, workspace: workspace)
        for (window, cell) in tiles {
            func halved(_ rect: Rect) -> Rect {
                Rect(y: rect.y / 2, x: rect.x / 2, height: rect.height / 2, width: rect.width / 2)
            }
            let there = crop(
                whole, halved(Rect(y: window.y + cell.y, x: window.x + cell.x, height: cell.height, width: cell.width)))
            let here = crop(
                try vae.encode(crop(image, window), statistics: statistics, workspace: workspace), halved(cell))
            #expect(relativeError(here, there) < 1e-5)
        }
    }
}
