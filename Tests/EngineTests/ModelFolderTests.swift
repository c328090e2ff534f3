import Engine
import Foundation
import Testing

private let network = """
    {"_class_name": "UNet2DModel", "in_channels": 24, "out_channels": 12}
    """
private let scheduler = """
    {"_class_name": "DDIMScheduler", "_diffusers_version": "0.35.1", "beta_end": 0.012, \
    "beta_schedule": "scaled_linear", "beta_start": 0.00085,
     "clip_sample": false, "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995, "num_train_timesteps": 1000,
     "prediction_type": "v_prediction", "rescale_betas_zero_snr": true, "sample_max_value": 1.0, \
    "set_alpha_to_one": true, "steps_offset": 0,
     "thresholding": false, "timestep_spacing": "trailing", "trained_betas": null}
    """
private let superResolution = """
    {"task": "super-resolution", "scale": 4, "space_to_depth": 2, "residual_scale": 4.0, "conditioning": "bicubic"}
    """
private let weights = "diffusion_pytorch_model.safetensors"

/// Opens a folder with these files; nil takes one of the usual away.
private func open(_ changes: [String: String?]) throws -> ModelFolder {
    let usual: [String: String?] = [
        "config.json": network, weights: "weights", "scheduler_config.json": scheduler,
        "tilefarm.json": superResolution,
    ]
    return try withTemporaryFolder { folder in
        for (name, text) in usual.merging(changes, uniquingKeysWith: { $1 }) {
            let file = folder.appending(path: name)
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try text.map { try Data($0.utf8).write(to: file) }
        }
        return try ModelFolder(url: folder)
    }
}

private func changed(_ text: String, _ key: String, to value: String) -> String {
    text.replacing("{\"", with: "{\"\(key)\": \(value), \"", maxReplacements: 1)
}

@Suite struct ModelFolderTests {
    @Test("a super-resolution model is understood, with the files that a worker needs")
    func superResolutionModel() throws {
        let folder = try open([:])
        #expect(folder.architecture == .unet2D)
        #expect(folder.network.path == folder.url.path)
        #expect(
            folder.superResolution
                == SuperResolutionConfiguration(scale: 4, spaceToDepth: 2, residualScale: 4, conditioning: .bicubic))
        var schedule = NoiseScheduleConfiguration()
        schedule.betaSchedule = .scaledLinear
        (schedule.betaStart, schedule.betaEnd) = (0.00085, 0.012)
        schedule.predictionType = .velocity
        schedule.timestepSpacing = .trailing
        schedule.zeroTerminalSNR = true
        schedule.clipRange = nil
        #expect(folder.schedule == schedule)
        #expect(folder.files.map(\.name) == ["config.json", weights, "scheduler_config.json", "tilefarm.json"])
        #expect(folder.files.map(\.size) == [network, "weights", scheduler, superResolution].map(\.utf8.count))
    }

    @Test("a network alone has the defaults of diffusers and no task")
    func bareNetwork() throws {
        let folder = try ModelFolder(url: try caseFolder("unet2d-ddpm-cifar").appending(path: "model"))
        #expect(folder.schedule == NoiseScheduleConfiguration())
        #expect(folder.superResolution == nil)
        #expect(folder.files.map(\.name) == ["config.json", weights])
    }

    @Test("a pipeline's network and scheduler are found in their folders")
    func pipeline() throws {
        let index =
            """
            {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], \
            "unet": ["diffusers", "UNet2DModel"]}
            """
        // As google/ddpm-cifar10-32 has it.
        let old = """
            {"_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02, \
            "beta_schedule": "linear", "beta_start": 0.0001,
             "clip_sample": true, "num_train_timesteps": 1000, "trained_betas": null, "variance_type": "fixed_large"}
            """
        let folder = try open([
            "model_index.json": index, "unet/config.json": network, "unet/" + weights: "w",
            "scheduler/scheduler_config.json": old,
            "config.json": nil, weights: nil, "scheduler_config.json": nil, "tilefarm.json": nil,
        ])
        #expect(folder.network.lastPathComponent == "unet")
        #expect(folder.schedule.variance == .large)
        #expect(folder.schedule.clipRange == 1)
        #expect(
            folder.files.map(\.name) == [
                "model_index.json", "unet/config.json", "unet/" + weights, "scheduler/scheduler_config.json",
            ])
    }

    @Test(
        "whatever cannot be used is a named error of one line with the file in it",
        arguments: [
            ("missingConfiguration", ["config.json": nil]),
            ("malformed", ["config.json": "{"]),
            ("malformed", ["config.json": "[]"]),
            ("malformed", ["config.json": "\u{0}"]),
            ("malformed", ["tilefarm.json": String(repeating: " ", count: 1 << 21)]),
            ("unknownArchitecture", ["config.json": "{}"]),
            ("unknownArchitecture", ["config.json": #"{"_class_name": "UNet3D\nModel"}"#]),
            (
                "unknownArchitecture",
                ["model_index.json": #"{"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"]}"#]
            ),
            ("missingConfiguration", ["model_index.json": #"{"unet": ["diffusers", "UNet2DModel"]}"#]),
            ("missingWeights", [weights: nil]),
            ("pickledWeights", [weights: nil, "diffusion_pytorch_model.bin": "x"]),
            ("malformed", [weights: nil, weights + ".index.json": "{}"]),
            ("missingShard", [weights: nil, weights + ".index.json": #"{"weight_map": {"a": "a.safetensors"}}"#]),
            ("unsupportedSetting", ["scheduler_config.json": "{}"]),
            ("unsupportedSetting", ["scheduler_config.json": scheduler.replacing("DDIM", with: "Euler")]),
            (
                "unsupportedSetting",
                [
                    "scheduler_config.json": scheduler.replacing(
                        "\"thresholding\": false", with: "\"thresholding\": true")
                ]
            ),
            (
                "unsupportedSetting",
                [
                    "scheduler_config.json": scheduler.replacing(
                        "\"trained_betas\": null", with: "\"trained_betas\": [0.1]")
                ]
            ),
            ("unsupportedSetting", ["scheduler_config.json": scheduler.replacing("scaled_linear", with: "sigmoid")]),
            ("unsupportedSetting", ["scheduler_config.json": scheduler.replacing("v_prediction", with: "flow")]),
            (
                "unsupportedSetting",
                ["scheduler_config.json": changed(scheduler, "variance_type", to: "\"learned_range\"")]
            ),
            (
                "unsupportedSetting",
                ["scheduler_config.json": scheduler.replacing("\"steps_offset\": 0", with: "\"steps_offset\": \"x\"")]
            ),
            ("unknownSetting", ["scheduler_config.json": changed(scheduler, "use_flow_sigmas", to: "true")]),
            (
                "impossibleSchedule",
                ["scheduler_config.json": scheduler.replacing("\"beta_end\": 0.012", with: "\"beta_end\": 12")]
            ),
            ("impossibleSchedule", ["scheduler_config.json": scheduler.replacing("1000", with: "100000000000")]),
            ("malformed", ["tilefarm.json": superResolution.replacing("}", with: ",\"scale\": 4}")]),
            ("unknownSetting", ["tilefarm.json": changed(superResolution, "gamma", to: "2.2")]),
            (
                "unsupportedSetting",
                ["tilefarm.json": superResolution.replacing("super-resolution", with: "inpainting")]
            ),
            ("unsupportedSetting", ["tilefarm.json": superResolution.replacing("bicubic", with: "lanczos")]),
            ("unsupportedSetting", ["tilefarm.json": superResolution.replacing("4.0", with: "0")]),
            (
                "unsupportedSetting",
                ["tilefarm.json": superResolution.replacing("\"scale\": 4", with: "\"scale\": 4.5")]
            ),
            ("unsupportedSetting", ["tilefarm.json": superResolution.replacing("\"scale\": 4, ", with: "")]),
            (
                "wrongChannels",
                ["tilefarm.json": superResolution.replacing("\"space_to_depth\": 2", with: "\"space_to_depth\": 1")]
            ),
        ] as [(String, [String: String?])])
    func unusable(expected: String, changes: [String: String?]) throws {
        let error = try #require(throws: ModelFolderError.self) { try open(changes) }
        #expect(caseName(error) == expected, "\(error)")
        #expect(error.description.contains("/tilefarm-"))
        #expect(!error.description.contains("\n"))
    }

    @Test("settings that are off do no harm, known or not")
    func unknownButOff() throws {
        let text = changed(changed(scheduler, "use_flow_sigmas", to: "false"), "shift_terminal", to: "null")
        #expect(try open(["scheduler_config.json": text]).schedule == (try open([:])).schedule)
    }

    @Test("a missing folder, or a file in its place, is a named error")
    func missing() throws {
        #expect(throws: ModelFolderError.missingFolder("/no/such/folder")) {
            try ModelFolder(url: URL(filePath: "/no/such/folder"))
        }
        let file = try caseFolder("schedules").appending(path: "case.json")
        #expect(throws: ModelFolderError.missingFolder(file.path)) { try ModelFolder(url: file) }
    }

    @Test("links may not lead out of the folder, except to the blobs of a hub's cache")
    func links() throws {
        try withTemporaryFolder { root in
            let snapshot = root.appending(path: "model/snapshots/1")
            let blobs = root.appending(path: "model/blobs")
            for folder in [snapshot, blobs] {
                try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            }
            try Data(network.utf8).write(to: blobs.appending(path: "a"))
            try Data("weights".utf8).write(to: blobs.appending(path: "b"))
            try Data(scheduler.utf8).write(to: root.appending(path: "outside.json"))
            func link(_ name: String, _ target: String) throws {
                try FileManager.default.createSymbolicLink(
                    atPath: snapshot.appending(path: name).path, withDestinationPath: target)
            }
            try link("config.json", "../../blobs/a")
            try link(weights, "../../blobs/b")
            #expect(try ModelFolder(url: snapshot).files.map(\.size) == [network.utf8.count, 7])
            try link("scheduler_config.json", "../../../outside.json")
            let error = try #require(throws: ModelFolderError.self) { try ModelFolder(url: snapshot) }
            #expect(caseName(error) == "outsideFolder")
        }
    }
}
