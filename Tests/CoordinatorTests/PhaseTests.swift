import Coordinator
import Engine
import Foundation
import Protocol
import Testing

/// Jobs of several kinds of work: texts and the autoencoder's tiles around the sampler's steps.
@Suite("Phases")
struct PhaseTests {
    /// A job of a text step, two gathering steps, three of the sampler's from what was written before, and a last one
    /// in any order.
    static func scheduler(_ tiling: Tiling) -> Scheduler {
        Scheduler(steps: 7) { step in
            switch step {
            case 0: .init(.barrier(count: 2, inOrder: false), kind: 0)
            case 1, 2: .init(.barrier(count: 9, inOrder: true), kind: 1, keys: Array(20..<29))
            case 3, 4, 5: .init(denoising: tiling.grid(step: step - 3), of: tiling, readsCanvas: true, kind: 2)
            default: .init(.barrier(count: 5, inOrder: false), kind: 3)
            }
        }
    }

    @Test(
        "no phase begins before the last tile of the one before is merged, sums are merged in their order, and windows are cut before they are overwritten"
    )
    func order() throws {
        let tilings: [Tiling] = try [.implicit(halo: 2), .none, .explicit(width: 3, weights: .mean)].map {
            try Tiling(canvasHeight: 20, canvasWidth: 33, tile: 8, overlap: $0, offset: .random, alignment: 1, seed: 4)
        }
        for (number, tiling) in tilings.enumerated() {
            var random = SplitMix64(state: UInt64(number))
            var scheduler = Self.scheduler(tiling)
            var sent: [(worker: Int, tile: Scheduler.Tile)] = []
            var merged: [Scheduler.Tile] = [], cut: Set<Scheduler.Tile> = []
            var finished: [Int] = [], isFinished = false
            func take(_ commands: [Scheduler.Command]) {
                for command in commands {
                    switch command {
                    case .cutAndSend(let tile, let worker):
                        sent.append((worker, tile))
                        cut.insert(tile)
                        if ![4, 5].contains(tile.step) || !tiling.writesDisjointCells {
                            #expect(
                                finished.count == tile.step, "step \(tile.step) began after \(finished.count) steps")
                        }
                    case .merge(let tile):
                        merged.append(tile)
                        if (3...5).contains(tile.step), tiling.writesDisjointCells {
                            let grid = tiling.grid(step: tile.step - 3)
                            for reader in grid.tilesReading(grid.cell(tile.index)) {
                                #expect(
                                    cut.contains(.init(step: tile.step, index: reader)),
                                    "a cell was written before its readers were cut")
                            }
                        }
                    case .finishedStep(let step): finished.append(step)
                    case .finishedJob: isFinished = true
                    case .resend(let tile, let worker, _): sent.append((worker, tile))
                    case .accept, .drop: break
                    default: Issue.record("\(command)")
                    }
                }
            }
            for worker in 0..<3 { take(scheduler.handle(.joined(worker, lanes: 2, credit: 4), at: 0)) }
            var now = 0.0
            while !sent.isEmpty {
                let (worker, tile) = sent.remove(at: Int.random(in: 0..<sent.count, using: &random))
                now += 0.01
                take(scheduler.handle(.answered(worker, tile), at: now))
            }
            #expect(isFinished && finished == Array(0..<7) && Set(merged).count == scheduler.totalTiles)
            for step in [1, 2] { #expect(merged.filter { $0.step == step }.map(\.index) == Array(0..<9)) }
        }
    }

    @Test(
        "a sticky step's tiles go to the workers that answered the same numbers before, and to others when those are gone"
    )
    func sticky() throws {
        var scheduler = Scheduler(steps: 3) { _ in Scheduler.Step(.barrier(count: 8, inOrder: true), keys: Array(0..<8))
        }
        var holders: [[Int: Int]] = [[:], [:], [:]]
        var sent: [(worker: Int, tile: Scheduler.Tile)] = []
        func take(_ commands: [Scheduler.Command]) {
            for command in commands {
                switch command {
                case .cutAndSend(let tile, let worker), .resend(let tile, let worker, _):
                    sent.append((worker, tile))
                    holders[tile.step][tile.index] = worker
                default: break
                }
            }
        }
        // The worker that joins last gets the last tiles.
        for worker in [2, 0, 1] { take(scheduler.handle(.joined(worker, lanes: 2, credit: 3), at: 0)) }
        while let next = sent.first, next.tile.step < 2 {
            sent.removeFirst()
            take(scheduler.handle(.answered(next.worker, next.tile), at: 1))
        }
        #expect(holders[0] == holders[1] && Set(holders[0].values).count == 3)
        sent.removeAll { $0.worker == 2 }
        take(scheduler.handle(.left(2, reason: "killed"), at: 2))
        while !sent.isEmpty {
            let next = sent.removeFirst()
            take(scheduler.handle(.answered(next.worker, next.tile), at: 3))
        }
        #expect(scheduler.isOver && holders[2].count == 8 && !holders[2].values.contains(2))
        #expect(holders[2].filter { holders[1][$0.key] != 2 } == holders[1].filter { $0.value != 2 })
    }

    @Test(
        "deaths, failures, returns, expired leases and late answers of earlier phases leave every tile merged once, and sums in their order",
        arguments: 0..<20)
    func faults(seed: UInt64) throws {
        let tiling = try Tiling(
            canvasHeight: 20, canvasWidth: 33, tile: 8, overlap: .implicit(halo: 2), offset: .random, alignment: 1,
            seed: seed)
        var random = SplitMix64(state: seed)
        var scheduler = Self.scheduler(tiling)
        var sent: [(worker: Int, tile: Scheduler.Tile)] = [], old: [(worker: Int, tile: Scheduler.Tile)] = []
        var merged: [Scheduler.Tile] = [], isFinished = false, now = 0.0, workers = 0
        func take(_ commands: [Scheduler.Command]) {
            for command in commands {
                switch command {
                case .cutAndSend(let tile, let worker), .resend(let tile, let worker, _): sent.append((worker, tile))
                case .merge(let tile): merged.append(tile)
                case .finishedJob: isFinished = true
                case .gaveUp(let tile, let reason): Issue.record("gave up \(tile): \(reason)")
                default: break
                }
            }
        }
        func join() {
            workers += 1
            take(scheduler.handle(.joined(workers, lanes: 2, credit: 4), at: now))
        }
        for _ in 0..<3 { join() }
        var turns = 0
        while !isFinished, turns < 20_000 {
            turns += 1
            now += 0.01
            guard let index = sent.indices.randomElement(using: &random) else {
                // Everything was lost with its workers.
                join()
                continue
            }
            let (worker, tile) = sent[index]
            switch Int.random(in: 0..<20, using: &random) {
            case 0:
                sent.removeAll { $0.worker == worker }
                take(scheduler.handle(.left(worker, reason: "killed"), at: now))
                join()
            case 1:
                sent.remove(at: index)
                take(scheduler.handle(.returned(worker, tile), at: now))
            case 2 where merged.count % 7 == 0:
                sent.remove(at: index)
                take(scheduler.handle(.failed(worker, tile, reason: "misfortune"), at: now))
            case 3:
                now += 200
                take(scheduler.handle(.tick, at: now))
            case 4:
                if let late = old.randomElement(using: &random) {
                    take(scheduler.handle(.answered(late.worker, late.tile), at: now))
                }
            default:
                sent.remove(at: index)
                old.append((worker, tile))
                take(scheduler.handle(.answered(worker, tile), at: now))
            }
        }
        #expect(isFinished && merged.count == scheduler.totalTiles && Set(merged).count == merged.count)
        for step in [1, 2] { #expect(merged.filter { $0.step == step }.map(\.index) == Array(0..<9)) }
        #expect(
            merged.map { $0.step >= 3 && $0.step <= 5 ? 3 : $0.step }
                == merged.map { $0.step >= 3 && $0.step <= 5 ? 3 : $0.step }.sorted())
    }

    static func pipeline(_ name: String) throws -> ModelFolder {
        let cases = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(
            path: "EngineTests/Cases")
        return try ModelFolder(url: cases.appending(path: "pipeline-\(name)/model"))
    }

    @Test(
        "a latent job encodes text, encodes pictures if it begins with one, denoises, and decodes norm by norm; every task fits its frames"
    )
    func latentPlan() throws {
        for (name, arguments) in [("upscale", []), ("img2img", ["--scale", "8", "--strength", "0.5"])] {
            let folder = try Self.pipeline(name)
            let plan = try UpscaleOptions.plan(
                ["--steps", "4"] + arguments, folder: folder, inputHeight: 70, inputWidth: 90)
            let latent = try #require(plan.latent)
            let norms = latent.autoencoder.norms(.decode, .detail).count
            #expect(latent.decoding.count == norms + 2, "the trunk, every norm, the pixels")
            #expect(plan.phases.first == .encodeText && plan.phases.last == .decode(pass: norms + 1))
            #expect(plan.steps == (name == "upscale" ? 4 : 2))
            #expect(latent.encoding.isEmpty == (name == "upscale"))
            let canvas = Rect(y: 0, x: 0, height: plan.tiling.canvasHeight, width: plan.tiling.canvasWidth)
            for phase in plan.phases.indices {
                for tile in 0..<plan.step(phase).count {
                    let work = try plan.work(phase: phase, tile: tile)
                    #expect(work.answerByteCount <= plan.largestFrame)
                    if case .autoencode(let request) = work {
                        #expect(canvas.contains(request.window) && request.window.contains(request.cell))
                    }
                    if case .denoise(let request) = work {
                        #expect(request.sampleIsNoise == (name == "upscale" && plan.phases[phase] == .denoise(0)))
                    }
                }
            }
        }
    }

    @Test(
        "windows that no frame could carry are refused when the plan is made, and the option is named; those that the canvas cuts short are not"
    )
    func windowTooLarge() throws {
        let folder = try Self.pipeline("img2img")
        func plan(_ options: [String], side: Int) throws -> RenderPlan {
            try UpscaleOptions.plan(
                ["--scale", "1", "--steps", "1"] + options, folder: folder, inputHeight: side, inputWidth: side)
        }
        let latent = try #require(try plan([], side: 512).latent)
        // Pixels and features of a window, 4 bytes a value, in 256 MiB.
        let values = max(
            3 * latent.factor * latent.factor, latent.featureChannels(.decode), latent.featureChannels(.encode))
        let most = Int((Double(64 << 20) / Double(values)).squareRoot())
        try #require((65...1000).contains(most), "the case's autoencoder does not reach the limit")
        for tile in [most + 1, 1024] {
            #expect(
                throws: CommandError.self,
                performing: { try plan(["--vae-tile", "\(tile)"], side: 1100 * latent.factor) })
        }
        _ = try plan(["--vae-tile", "1024"], side: 60 * latent.factor)
        let large = try plan(["--vae-tile", "\(most)"], side: 1100 * latent.factor)
        #expect(large.largestFrame <= WireLimits.tensorBytes)
    }

    @Test(
        "statistics of a canvas of many tiles come from some that are spread over it, and a huge canvas leaves the attention to its windows"
    )
    func passes() throws {
        let folder = try Self.pipeline("img2img")
        let autoencoder = try #require(folder.pipeline).vaeConfiguration
        let tiling = AutoencoderTiling()
        let large = try AutoencoderPass.passes(.decode, tiling, autoencoder, height: 256, width: 256)
        #expect(
            large.first?.layers == .trunk && large[1].tiles.count == tiling.statisticsTiles
                && large.last?.tiles.count == large.last?.grid.count)
        #expect(
            Set(large[1].tiles).count == tiling.statisticsTiles
                && large[1].tiles.allSatisfy { $0 < large[1].grid.count })
        let huge = try AutoencoderPass.passes(.decode, tiling, autoencoder, height: 2000, width: 300)
        #expect(huge.allSatisfy { $0.layers == .all } && huge.count == autoencoder.decoderNorms + 1)
        let small = try AutoencoderPass.passes(.decode, tiling, autoencoder, height: 64, width: 40)
        #expect(small.count == 1 && small[0].givenNorms == 0 && small[0].layers == .all)
    }
}
