import Engine
import Foundation
import Testing

/// Folders as hubs have them, with weights that are never looked at.
private enum Hub {
    static let unet = """
        {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.10.0.dev0", "act_fn": "silu", \
        "attention_head_dim": [5, 10, 20, 20],
         "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": false, "cross_attention_dim": 1024,
         "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"], \
        "downsample_padding": 1,
         "dual_cross_attention": false, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 4, \
        "layers_per_block": 2,
         "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "num_class_embeds": null, \
        "only_cross_attention": false,
         "out_channels": 4, "sample_size": 96,
         "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"], \
        "use_linear_projection": true,
         "upcast_attention": true}
        """
    static let upscalerUNet = """
        {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.8.0", "act_fn": "silu", \
        "attention_head_dim": 8,
         "block_out_channels": [256, 512, 512, 1024], "center_input_sample": false, "cross_attention_dim": 1024,
         "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], \
        "downsample_padding": 1,
         "dual_cross_attention": false, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 7, \
        "layers_per_block": 2,
         "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "num_class_embeds": 1000,
         "only_cross_attention": [true, true, true, false], "out_channels": 4, "sample_size": 128,
         "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], \
        "use_linear_projection": true}
        """
    static func vae(_ widths: String) -> String {
        let levels = widths.split(separator: ",").count
        func types(_ name: String) -> String { Array(repeating: "\"\(name)\"", count: levels).joined(separator: ", ") }
        return """
            {"_class_name": "AutoencoderKL", "_diffusers_version": "0.8.0", "act_fn": "silu", \
            "block_out_channels": [\(widths)],
             "down_block_types": [\(types("DownEncoderBlock2D"))], "in_channels": 3, "latent_channels": 4, \
            "layers_per_block": 2,
             "norm_num_groups": 32, "out_channels": 3, "sample_size": 768, \
            "up_block_types": [\(types("UpDecoderBlock2D"))]}
            """
    }
    static let text =
        #"{"architectures": ["CLIPTextModel"], "hidden_size": 1024, "num_hidden_layers": 23, "hidden_act": "gelu"}"#
    static let velocity = """
        {"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012, \
        "beta_schedule": "scaled_linear", "beta_start": 0.00085,
         "clip_sample": false, "num_train_timesteps": 1000, "prediction_type": "v_prediction", \
        "set_alpha_to_one": false, "skip_prk_steps": true,
         "steps_offset": 1, "trained_betas": null}
        """
    static let lowResolution = """
        {"_class_name": "DDPMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.02, \
        "beta_schedule": "scaled_linear", "beta_start": 0.0001,
         "clip_sample": true, "num_train_timesteps": 1000, "prediction_type": "epsilon", "trained_betas": null, \
        "variance_type": "fixed_small"}
        """
    static let index = """
        {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.8.0", \
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
         "requires_safety_checker": false, "safety_checker": [null, null], "scheduler": ["diffusers", "DDIMScheduler"],
         "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
         "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
        """
    static let upscalerIndex = """
        {"_class_name": "StableDiffusionUpscalePipeline", "_diffusers_version": "0.8.0", \
        "low_res_scheduler": ["diffusers", "DDPMScheduler"],
         "max_noise_level": 250, "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", \
        "CLIPTextModel"],
         "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], \
        "vae": ["diffusers", "AutoencoderKL"]}
        """

    static let imageToImage: [String: String?] = [
        "model_index.json": index, "unet/config.json": unet, "unet/diffusion_pytorch_model.safetensors": "u",
        "vae/config.json": vae("128, 256, 512, 512"), "vae/diffusion_pytorch_model.safetensors": "v",
        "text_encoder/config.json": text,
        "text_encoder/model.safetensors": "t", "tokenizer/vocab.json": "{}", "tokenizer/merges.txt": "",
        "tokenizer/tokenizer_config.json": "{}",
        "scheduler/scheduler_config.json": velocity,
    ]
    static let upscaler: [String: String?] = imageToImage.merging([
        "model_index.json": upscalerIndex, "unet/config.json": upscalerUNet, "vae/config.json": vae("128, 256, 512"),
        "low_res_scheduler/scheduler_config.json": lowResolution,
    ]) { $1 }

    /// Opens a folder with these files; nil takes one away.
    static func open(_ files: [String: String?], _ changes: [String: String?] = [:]) throws -> ModelFolder {
        try withTemporaryFolder { folder in
            for (name, text) in files.merging(changes, uniquingKeysWith: { $1 }) {
                let file = folder.appending(path: name)
                try FileManager.default.createDirectory(
                    at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
                try text.map { try Data($0.utf8).write(to: file) }
            }
            return try ModelFolder(url: folder)
        }
    }
}

@Suite struct PipelineFolderTests {
    @Test("a Stable Diffusion folder is understood as an image-to-image model, with the files that a worker needs")
    func imageToImage() throws {
        let folder = try Hub.open(Hub.imageToImage)
        #expect(folder.architecture == .imageToImage)
        let pipeline = try #require(folder.pipeline)
        #expect(pipeline.kind == .imageToImage)
        #expect(pipeline.scalingFactor == 0.18215)
        #expect(pipeline.vaeConfiguration.factor == 8)
        #expect(pipeline.lowResolutionSchedule == nil)
        #expect(folder.schedule == pipeline.schedule)
        #expect(folder.schedule.predictionType == .velocity)
        #expect(folder.schedule.timestepSpacing == .leading)
        #expect(folder.schedule.stepsOffset == 1)
        #expect(folder.schedule.clipRange == nil)
        #expect(!folder.schedule.finalAlphaIsOne)
        #expect(folder.network.lastPathComponent == "unet")
        #expect(
            folder.files.map(\.name) == [
                "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
                "vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json", "text_encoder/model.safetensors",
                "tokenizer/vocab.json",
                "tokenizer/merges.txt", "tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json",
            ])
    }

    @Test("an x4 upscaler's folder is understood, with its own schedule for the low-resolution pixels")
    func upscaler() throws {
        let folder = try Hub.open(Hub.upscaler)
        #expect(folder.architecture == .upscale)
        let pipeline = try #require(folder.pipeline)
        #expect(pipeline.scalingFactor == 0.08333)  // of the pipeline: the first release's VAE says nothing
        #expect(pipeline.maximumNoiseLevel == 250)
        #expect(pipeline.vaeConfiguration.factor == 4)
        #expect(pipeline.unetConfiguration.onlyCrossAttention == [true, true, true, false])
        let low = try #require(pipeline.lowResolutionSchedule)
        #expect(low.betaSchedule == .scaledLinear)
        #expect((low.betaStart, low.betaEnd) == (0.0001, 0.02))
        #expect(folder.files.map(\.name).last == "low_res_scheduler/scheduler_config.json")
    }

    @Test(
        "a part that is missing, of another kind, or of another model is a named error of one line",
        arguments: [
            (
                "missingPart",
                [
                    "model_index.json": Hub.index.replacing(
                        "\"vae\": [\"diffusers\", \"AutoencoderKL\"]", with: "\"vae\": [null, null]")
                ]
            ),
            ("missingPart", ["unet/config.json": nil]),
            ("missingPart", ["vae/config.json": nil]),
            ("missingPart", ["text_encoder/config.json": nil]),
            ("missingPart", ["tokenizer/merges.txt": nil]),
            ("missingPart", ["scheduler/scheduler_config.json": nil]),
            ("missingWeights", ["text_encoder/model.safetensors": nil]),
            (
                "pickledWeights",
                ["vae/diffusion_pytorch_model.safetensors": nil, "vae/diffusion_pytorch_model.bin": "p"]
            ),
            ("wrongPart", ["unet/config.json": Hub.unet.replacing("UNet2DConditionModel", with: "UNet2DModel")]),
            ("wrongPart", ["vae/config.json": #"{"_class_name": "AutoencoderTiny"}"#]),
            ("wrongPart", ["text_encoder/config.json": #"{"architectures": ["T5EncoderModel"]}"#]),
            ("wrongPart", ["text_encoder/config.json": "{}"]),
            ("mismatchedParts", ["unet/config.json": Hub.upscalerUNet]),
            (
                "mismatchedParts",
                ["unet/config.json": Hub.unet.replacing("\"in_channels\": 4", with: "\"in_channels\": 9")]
            ),
            ("mismatchedParts", ["text_encoder/config.json": Hub.text.replacing("1024", with: "768")]),
            (
                "unknownArchitecture",
                ["model_index.json": Hub.index.replacing("StableDiffusionPipeline", with: "StableDiffusionXLPipeline")]
            ),
            (
                "unknownArchitecture",
                [
                    "model_index.json": Hub.index.replacing(
                        "StableDiffusionPipeline", with: "StableDiffusionInpaintPipeline")
                ]
            ),
            (
                "unsupported",
                [
                    "unet/config.json": Hub.unet.replacing(
                        "\"dual_cross_attention\": false", with: "\"dual_cross_attention\": true")
                ]
            ),
            (
                "unsupportedSetting",
                [
                    "scheduler/scheduler_config.json": Hub.velocity.replacing(
                        "DDIMScheduler", with: "FlowMatchEulerDiscreteScheduler")
                ]
            ),
        ] as [(String, [String: String?])])
    func unusable(expected: String, changes: [String: String?]) throws {
        let error = try #require(throws: (any Error).self) { try Hub.open(Hub.imageToImage, changes) }
        #expect(caseName(error) == expected, "\(error)")
        #expect("\(error)".contains("/tilefarm-"))
        #expect(!"\(error)".contains("\n"))
        if expected == "unknownArchitecture" {
            #expect("\(error)".contains("StableDiffusionXL") || "\(error)".contains("StableDiffusionInpaint"))
        }
    }

    @Test("an upscaler without its second schedule is a named error")
    func withoutLowResolution() throws {
        #expect(
            caseName(
                try #require(throws: ModelFolderError.self) {
                    try Hub.open(Hub.upscaler, ["low_res_scheduler/scheduler_config.json": nil])
                }) == "missingPart")
    }

    @Test("a conditioned U-Net by itself is a named error: it needs its pipeline")
    func bareUNet() throws {
        let error = try #require(throws: ModelFolderError.self) {
            try ModelFolder(url: Case.folder("unet-one-level").appending(path: "model"))
        }
        #expect(caseName(error) == "unknownArchitecture")
        #expect(error.description.contains("UNet2DConditionModel"))
    }

    /// The noise schedule of a network with this scheduler configuration.
    private func schedule(_ text: String) throws -> NoiseScheduleConfiguration {
        try Hub.open([
            "config.json": #"{"_class_name": "UNet2DModel"}"#, "diffusion_pytorch_model.safetensors": "w",
            "scheduler_config.json": text,
        ]).schedule
    }

    @Test("what a file leaves out has the defaults of its scheduler's class")
    func schedulerDefaults() throws {
        // spacing, beta_start, clips, set_alpha_to_one; from the signatures of diffusers' schedulers.
        for (name, spacing, start, clips, one) in [
            ("DDIMScheduler", .leading, 1e-4, true, true), ("DDPMScheduler", .leading, 1e-4, true, true),
            ("PNDMScheduler", .leading, 1e-4, false, false), ("LCMScheduler", .leading, 0.00085, false, true),
            ("EulerDiscreteScheduler", .linspace, 1e-4, false, true),
            ("EulerAncestralDiscreteScheduler", .linspace, 1e-4, false, true),
            ("LMSDiscreteScheduler", .linspace, 1e-4, false, true),
            ("DPMSolverMultistepScheduler", .linspace, 1e-4, false, true),
            ("DPMSolverSinglestepScheduler", .linspace, 1e-4, false, true),
            ("UniPCMultistepScheduler", .linspace, 1e-4, false, true),
            ("HeunDiscreteScheduler", .linspace, 0.00085, false, true),
            ("KDPM2DiscreteScheduler", .linspace, 0.00085, false, true),
        ] as [(String, NoiseScheduleConfiguration.TimestepSpacing, Double, Bool, Bool)] {
            let schedule = try schedule("{\"_class_name\": \"\(name)\"}")
            #expect(schedule.timestepSpacing == spacing, "\(name)")
            #expect(schedule.betaStart == start, "\(name)")
            #expect((schedule.clipRange != nil) == clips, "\(name)")
            #expect(schedule.finalAlphaIsOne == one, "\(name)")
            #expect(schedule.stepsOffset == 0 && schedule.predictionType == .epsilon)
        }
    }

    @Test("a solver's own options are passed over, infinities included; what would change the noise is not")
    func solverOptions() throws {
        let solver = """
            {"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.27.0", \
            "algorithm_type": "dpmsolver++", "beta_end": 0.012,
             "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": true, \
            "dynamic_thresholding_ratio": 0.995,
             "euler_at_final": false, "final_sigmas_type": "zero", "flow_shift": 1.0, \
            "lambda_min_clipped": -Infinity, "lower_order_final": true,
             "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, \
            "set_alpha_to_one": false, "skip_prk_steps": true,
             "solver_order": 2, "solver_type": "midpoint", "steps_offset": 1, "thresholding": false, \
            "timestep_spacing": "leading",
             "trained_betas": null, "use_karras_sigmas": true, "use_lu_lambdas": false, "variance_type": null}
            """
        let schedule = try schedule(solver)
        #expect(schedule.clipRange == nil)  // this class cannot clip
        #expect((schedule.betaStart, schedule.betaEnd) == (0.00085, 0.012))
        #expect(schedule.timestepSpacing == .leading)
        for (option, expected) in [
            ("\"use_flow_sigmas\": true", "unknownSetting"), ("\"use_dynamic_shifting\": true", "unknownSetting"),
            ("\"novel\": 1", "unknownSetting"),
            ("\"rescale_betas_zero_snr\": 1", "unsupportedSetting"),
            ("\"timestep_type\": \"continuous\"", "unsupportedSetting"),
        ] {
            let error = try #require(throws: ModelFolderError.self) {
                try self.schedule(solver.replacing("{\"_class", with: "{\(option), \"_class"))
            }
            #expect(caseName(error) == expected, "\(option)")
        }
        let error = try #require(throws: ModelFolderError.self) {
            try self.schedule(solver.replacing("0.012", with: "NaN"))
        }
        #expect(caseName(error) == "impossibleSchedule")
    }
}
