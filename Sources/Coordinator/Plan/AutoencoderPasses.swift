import Engine

/// The way into the latents and the way out as passes.
struct AutoencoderPasses {
    let folder: PipelineFolder
    /// The canvas of the sampler's loop.
    let tiling: Tiling
    let picture: PictureGeometry
    let seed: UInt64
    /// The signal and the noise in the sample that the loop begins with.
    let start: (signal: Float, noise: Float)
    let element: CanvasElement
    /// The cost of a decoded tile; an encoded one costs half of it.
    let cost: Double

    private var factor: Int { folder.vaeConfiguration.factor }

    /// The planes of one way.
    private struct Planes {
        var features: Plane.ID?
        var statistics: Plane.ID?
    }

    func encode(_ sweeps: [AutoencoderSweep], to sample: Plane.ID, planes: inout [Plane]) -> [Pass] {
        let own = addPlanes(.encode, sweeps, to: &planes)
        return sweeps.indices.map { index in
            let sweep = sweeps[index], grid = sweep.grid
            let input =
                sweep.layers == .trunk
                ? Read(own.features ?? sample, .window())
                : Read(
                    LatentCanvas.picturePlane,
                    .part { [self] tile in try enlargement(of: grid.window(sweep.tiles[tile])).source },
                    sweeps.count > 1 ? .blob : .frame)
            let output = Write(sweep.layers == .detail ? own.features ?? sample : sample, .cells())
            return pass(.encode, index, sweeps, own, input: input, output: output)
        }
    }

    /// - Returns: the passes, and the plane of the pixels.
    func decode(
        _ sweeps: [AutoencoderSweep], from sample: Plane.ID, planes: inout [Plane]
    ) -> (passes: [Pass], pixels: Plane.ID) {
        let own = addPlanes(.decode, sweeps, to: &planes)
        planes.append(
            Plane(
                "pixels",
                .array(
                    height: tiling.canvasHeight * factor, width: tiling.canvasWidth * factor, channels: 3,
                    element: element)))
        let pixels = planes.count - 1
        let passes = sweeps.indices.map { index in
            let sweep = sweeps[index]
            let source = sweep.layers == .detail ? own.features ?? sample : sample
            let isShared = sweep.layers != .trunk && sweeps.count > 1
            let output =
                sweep.layers == .trunk
                ? Write(own.features ?? pixels, .cells()) : Write(pixels, .cells(Scale(up: factor)))
            return pass(
                .decode, index, sweeps, own, input: Read(source, .window(), isShared ? .blob : .frame), output: output)
        }
        return (passes, pixels)
    }

    private func addPlanes(
        _ direction: Autoencode.Direction, _ sweeps: [AutoencoderSweep], to planes: inout [Plane]
    ) -> Planes {
        let vae = folder.vaeConfiguration
        var own = Planes()
        if sweeps.contains(where: { $0.layers == .trunk }) {
            planes.append(
                Plane(
                    "features.\(direction)",
                    .array(
                        height: tiling.canvasHeight, width: tiling.canvasWidth,
                        channels: vae.featureChannels(direction), element: .float32)))
            own.features = planes.count - 1
        }
        let norms = sweeps.count { !$0.wantedNorms.isEmpty }
        if norms > 0 {
            planes.append(
                Plane("statistics.\(direction)", .values(count: 3 * vae.normNumGroups * norms, element: .float64)))
            own.statistics = planes.count - 1
        }
        return own
    }

    private func pass(
        _ direction: Autoencode.Direction, _ index: Int, _ sweeps: [AutoencoderSweep], _ own: Planes, input: Read,
        output: Write
    ) -> Pass {
        let sweep = sweeps[index], groups = folder.vaeConfiguration.normNumGroups
        var (reads, writes) = ([input], [output])
        if let statistics = own.statistics {
            if sweep.givenNorms > 0 { reads.append(Read(statistics, .leading(3 * groups * sweep.givenNorms))) }
            if !sweep.wantedNorms.isEmpty {
                writes = [Write(statistics, .sum(at: 3 * groups * sweep.wantedNorms.lowerBound))]
            }
        }
        let isAll = sweep.tiles.count == sweep.grid.count
        return Pass(
            "\(direction)", places: isAll ? .grid(sweep.grid) : .sample(sweep.grid, sweep.tiles), reads: reads,
            writes: writes, network: PipelineFolder.Part.vae.rawValue,
            cost: cost * (direction == .encode ? 0.5 : 1) * AutoencoderSweep.relativeCost(index, of: sweeps),
            affinity: sweep.layers == .trunk || sweeps.count == 1 ? nil : "\(direction)",
            work: .task { [self] tile in try operation(direction, sweep, sweep.tiles[tile]) })
    }

    private func operation(
        _ direction: Autoencode.Direction, _ sweep: AutoencoderSweep, _ tile: Int
    ) throws -> Autoencode {
        let vae = folder.vaeConfiguration, window = sweep.grid.window(tile)
        return Autoencode(
            direction: direction, layers: sweep.layers, canvasHeight: tiling.canvasHeight,
            canvasWidth: tiling.canvasWidth, window: window, cell: sweep.grid.cell(tile), factor: factor,
            channels: vae.latentChannels, featureChannels: vae.featureChannels(direction), groups: vae.normNumGroups,
            givenNorms: sweep.givenNorms, wantedNorms: sweep.wantedNorms,
            enlargement: direction == .encode && sweep.layers != .trunk ? try enlargement(of: window) : nil, seed: seed,
            signal: start.signal, noise: start.noise)
    }

    private func enlargement(of window: Rect) throws -> Enlargement {
        try picture.enlargement(of: window.scaled(by: factor))
    }
}
