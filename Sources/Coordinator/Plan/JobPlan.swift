import Engine
import Protocol

/// A method's plan for a request: the pipeline, and what people and machines are told of it beforehand.
package struct JobPlan: Sendable {
    package let pipeline: Pipeline
    package var picture: PictureGeometry
    /// How the canvas of the sampler's loop is cut.
    package var tiling: Tiling
    package var sampler: StepSampler
    package var seed: UInt64
    package var precision: Precision
    /// Memory and work of a latent model's networks; nil for the small networks of pixels.
    package var needs: NetworkNeeds?
    package let sizes: PipelineSizes

    /// - Throws: `PipelineError` where operations do not fit what their passes read and write.
    package init(
        pipeline: Pipeline, picture: PictureGeometry, tiling: Tiling, sampler: StepSampler, seed: UInt64,
        precision: Precision, needs: NetworkNeeds? = nil
    ) throws {
        self.pipeline = pipeline
        self.picture = picture
        self.tiling = tiling
        self.sampler = sampler
        self.seed = seed
        self.precision = precision
        self.needs = needs
        sizes = try PipelineSizes(pipeline)
    }

    /// Steps of the sampler's loop.
    package var steps: Int { sampler.count }

    /// A digest of everything that decides the output's bytes, but for the input and the model.
    package func digest() throws -> String {
        var encoding = CanonicalEncoding("tilefarm plan")
        for length in [picture.inputHeight, picture.inputWidth, picture.outputHeight, picture.outputWidth] {
            encoding.add(length)
        }
        encoding.add(precision.rawValue)
        for pass in pipeline.passes {
            encoding.add(pass.name)
            encoding.add(pass.count)
            for axis in [pass.grid?.rows, pass.grid?.columns] {
                for span in (axis?.windows ?? []) + (axis?.cells ?? []) {
                    encoding.add(span.lowerBound)
                    encoding.add(span.upperBound)
                }
            }
            if case .sample(_, let tiles) = pass.places { for tile in tiles { encoding.add(tile) } }
            guard case .task(let operation) = pass.work, pass.count > 0 else { continue }
            // Tiles differ in their places alone.
            encoding.add(try operation(0).encoded())
        }
        for plane in pipeline.planes { if case .text(let text) = plane.content { encoding.add(text) } }
        return encoding.digest
    }

    /// Looks whether tasks can be sent: better now than at the first tile.
    /// - Throws: `RequestError.impossibleTask`, and what the passes' operations throw.
    func checkTasks() throws {
        for pass in pipeline.passes {
            guard case .task(let operation) = pass.work, pass.count > 0 else { continue }
            for tile in Set([0, pass.count / 2]) {
                let operation = try operation(tile)
                do throws(FieldError) { _ = try operation.encoded() } catch {
                    throw RequestError.impossibleTask(pass: pass.name, error)
                }
            }
        }
    }

    // MARK: Bytes

    /// Planes that take memory or disk, with the number of their buffers.
    /// - Parameter hasCheckpoints: whether planes that go on being written are kept at checkpoints
    package func arrays(hasCheckpoints: Bool) -> [(plane: Plane.ID, buffers: Int)] {
        pipeline.planes.indices.filter { pipeline.planes[$0].arrayBytes > 0 }.map {
            ($0, hasCheckpoints && pipeline.isRewritten($0) ? Pipeline.buffersOfRewrittenPlane : 1)
        }
    }

    /// Bytes of all buffers of all planes.
    package func arrayBytes(hasCheckpoints: Bool) -> Int {
        arrays(hasCheckpoints: hasCheckpoints).reduce(0) { $0 + $1.buffers * pipeline.planes[$1.plane].arrayBytes }
    }

    /// Bytes that the coordinator holds as a rule: what it keeps, where that is in memory, and the windows and answers
    /// of the tiles that are out. A straggler can make answers wait, a pass's at the most.
    package func coordinatorBytes(lanes: Int, kept: Int) -> Int {
        let tile = sizes.tileBytes.max() ?? 0
        return kept + 2 * lanes * tile + (32 << 20)
    }

    /// Bytes that a worker's process holds at most on a machine of `machine` bytes; nil for the small networks of
    /// pixels. One network at a time is in memory.
    package func workerBytes(lanes: Int, machine: Int) -> Int? {
        guard let needs else { return nil }
        return needs.parts.map { part, need in
            let kept = part == .vae && needs.keepsTiles ? PipelineFolder.keptTileBytes(machine: machine) : 0
            return need.bytes(lanes: lanes) + kept
        }.max()
    }
}

/// Memory and work of a latent model's networks at a plan's windows.
package struct NetworkNeeds: Sendable {
    package var parts: [PipelineFolder.Part: PipelineFolder.Need] = [:]
    /// Whether workers keep the autoencoder's tiles between passes.
    package var keepsTiles = false
}

/// How large the picture is before and after, and how it comes out of the output plane.
package struct PictureGeometry: Sendable {
    package var inputHeight, inputWidth: Int
    package var outputHeight, outputWidth: Int
    /// The factor of the output plane's values, which are then added to the upsampled input; nil where they are the
    /// picture.
    package var residualGain: Float?
    let upsampler: BicubicUpsampler

    /// - Throws: `RequestError.outputTooLarge`, `ResampleError`.
    package init(_ context: PlanContext, scale: Double, residualGain: Float? = nil) throws {
        (inputHeight, inputWidth) = (context.inputHeight, context.inputWidth)
        let (height, width) = (Double(inputHeight) * scale, Double(inputWidth) * scale)
        guard height <= Double(TaskLimits.imageSide), width <= Double(TaskLimits.imageSide) else {
            throw RequestError.outputTooLarge(width: Int(width), height: Int(height), most: TaskLimits.imageSide)
        }
        (outputHeight, outputWidth) = (max(Int(height.rounded()), inputHeight), max(Int(width.rounded()), inputWidth))
        self.residualGain = residualGain
        upsampler = try BicubicUpsampler(
            inputHeight: inputHeight, inputWidth: inputWidth, outputHeight: outputHeight, outputWidth: outputWidth)
    }

    /// The part of the input that a window of the output depends on, as a task names it.
    func enlargement(of window: Rect) throws -> Enlargement {
        Enlargement(
            inputHeight: inputHeight, inputWidth: inputWidth, outputHeight: outputHeight, outputWidth: outputWidth,
            source: try upsampler.sourceRect(for: window))
    }
}

func roundUp(_ value: Int, _ multiple: Int) -> Int { (value + multiple - 1) / multiple * multiple }
