#!/usr/bin/env python3
"""Writes beside this file what diffusers and transformers (PyTorch, CPU, float32) answer for whole pipelines, and for texts:

    python3 -m venv v && v/bin/pip install torch diffusers transformers safetensors
    v/bin/python make_pipelines.py TOKENIZER_FOLDER

TOKENIZER_FOLDER holds CLIP's vocab.json and merges.txt; a small vocabulary is cut from them.

- pipeline-upscale, pipeline-img2img: model/ is a small pipeline folder with random weights, which are float16 in the file and run as float32.
  case.json says how it was called; case.safetensors holds, batch x channels x height x width unless said:
    in.image                    the input, multiples of 1/255
    in.enlarged                 (img2img) the input enlarged bicubically: what diffusers was given
    in.initial_noise, in.low_resolution_noise, in.posterior_noise    the engine's noise for the seed, made again here
    out.ids, out.negative_ids   77 tokens
    out.prompt_embeds, out.negative_prompt_embeds    1 x 77 x width
    out.encoded                 (img2img) the scaled sample of the encoder's distribution
    out.low_resolution          (upscale) the noised input
    out.N.timesteps, out.N.latents    after N steps of a run of N steps
    out.N.image                 the decoded latents; the pipeline's pixels are image / 2 + 1/2, clamped to [0, 1]
- tokenizer: model/ and case.json, a list of {text, ids}.
"""
import argparse, json, pathlib, random, shutil
from unittest import mock

import diffusers
import numpy as np
import torch
import transformers
from diffusers import (AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline,
                       StableDiffusionUpscalePipeline, UNet2DConditionModel)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

OUT = pathlib.Path(__file__).parent
STEPS = (1, 5, 20)
SEED = 5  # of the job's noise
PROMPT = "A photo of the old castle on the hill, 3 towers, it's raining!"
NEGATIVE = "blurry, low quality"
torch.set_grad_enabled(False)

# MARK: the engine's noise (Sources/Engine/Diffusion/Noise.swift)

INITIAL, SAMPLER, OFFSET, LOW_RESOLUTION, POSTERIOR = 1, 2, 3, 4, 5


def philox(counter, key):
    """Philox4x32-10 of four arrays of 32-bit words, held in 64."""
    mask = np.uint64(0xffffffff)
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = key & 0xffffffff, key >> 32
    for _ in range(10):
        a, b = c0 * np.uint64(0xd2511f53), c2 * np.uint64(0xcd9e8d57)
        c0, c1, c2, c3 = (b >> np.uint64(32)) ^ c1 ^ np.uint64(k0), b & mask, (a >> np.uint64(32)) ^ c3 ^ np.uint64(k1), a & mask
        k0, k1 = (k0 + 0x9e3779b9) & 0xffffffff, (k1 + 0xbb67ae85) & 0xffffffff
    return c0, c1, c2, c3


def normals(radius, angle):
    """Two words to two normals by Box and Muller: in double precision but for the uniform number and the angle, which the engine rounds."""
    high, low = (radius >> np.uint64(16)).astype(np.float32), (radius & np.uint64(0xffff)).astype(np.float32)
    uniform = high * np.float32(2.0 ** -16) + (low + np.float32(0.5)) * np.float32(2.0 ** -32)
    length = np.sqrt(-2 * np.log(uniform.astype(np.float64)))
    turned = (angle + np.uint64(0x20000000)) & np.uint64(0xffffffff)
    place = ((turned & np.uint64(0x3fffffff)) >> np.uint64(7)).astype(np.float64) + (0.5 - 2.0 ** 22)
    turn = (turned >> np.uint64(30)).astype(np.float64) * (np.pi / 2) + place * (np.pi * 2.0 ** -24)
    return length * np.cos(turn), length * np.sin(turn)


def noise(purpose, channels, height, width, seed=SEED, stage=0, step=0):
    """1 x channels x height x width of a canvas, from its corner."""
    c, y, block = np.meshgrid(np.arange(channels), np.arange(height), np.arange((width + 3) // 4), indexing="ij")
    a, b, c, d = philox((block, y, c, np.full_like(c, purpose << 24 | stage << 16 | step)), seed)
    four = np.stack(normals(a, b) + normals(c, d), -1)
    return torch.from_numpy(four.reshape(1, channels, height, -1)[..., :width].astype(np.float32))


# MARK: images

def enlarged(image, factor):
    """Bicubic (a = -1/2), centres at half integers, mirrored at the edges: Sources/Engine/Image/Resample.swift."""
    def matrix(size):
        result = np.zeros((size * factor, size))
        for o in range(size * factor):
            place = (o + 0.5) / factor - 0.5
            first = int(np.floor(place)) - 1
            for i in range(first, first + 4):
                x = abs(place - i)
                weight = (1.5 * x - 2.5) * x * x + 1 if x < 1 else ((x - 5) * x + 8) * x * -0.5 + 2 if x < 2 else 0
                mirrored = i % (2 * size)
                result[o, min(mirrored, 2 * size - 1 - mirrored)] += weight
        return torch.from_numpy(result)
    return (matrix(image.shape[2]) @ image.double() @ matrix(image.shape[3]).T).float()


def picture(generator, height, width):
    """Something smooth, in multiples of 1/255, that stays between 0 and 1 when it is enlarged."""
    coarse = torch.rand(1, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    image = 0.15 + 0.6 * smooth + 0.1 * torch.rand(1, 3, height, width, generator=generator)
    return (image * 255).round() / 255


# MARK: models

def jitter(model, generator):
    """Random weights everywhere, norms and biases included, so that a dropped bias or gamma shows; each is a half."""
    for parameter in model.parameters():
        parameter.add_((0.2 if parameter.ndim <= 1 else 0.02) * torch.randn(parameter.shape, generator=generator))
        parameter.copy_(parameter.half().float())
    return model.eval()


def small_tokenizer(source, target, merge_count, pad):
    """The first merges of CLIP's vocabulary, and the files beside it as those of Stable Diffusion 1 and 2 are."""
    target.mkdir(parents=True, exist_ok=True)
    tokens = list(json.loads((source / "vocab.json").read_text()))[:512]
    merges = [m for m in (source / "merges.txt").read_text().split("\n")[1:] if m][:merge_count]
    tokens += ["".join(m.split()) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    (target / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (target / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")

    def token(content):
        return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {"bos_token": token("<|startoftext|>"), "eos_token": token("<|endoftext|>"), "pad_token": pad, "unk_token": token("<|endoftext|>")}
    (target / "special_tokens_map.json").write_text(json.dumps(special, indent=1) + "\n")
    config = {k: dict(v, __type="AddedToken") if isinstance(v, dict) else "<|endoftext|>" for k, v in special.items()}
    config |= {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77, "name_or_path": "",
               "special_tokens_map_file": "./special_tokens_map.json", "tokenizer_class": "CLIPTokenizer"}
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return CLIPTokenizer.from_pretrained(target)


def text_encoder(tokenizer, generator, activation, width):
    return jitter(CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, hidden_act=activation, bos_token_id=len(tokenizer) - 2, eos_token_id=len(tokenizer) - 1)), generator)


def vae(generator, levels, scaling_factor):
    widths = (8, 16, 16, 16)[:levels]
    return jitter(AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=widths, layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels, scaling_factor=scaling_factor), generator)


def unet(generator, **configuration):
    return jitter(UNet2DConditionModel(**dict(
        sample_size=16, out_channels=4, layers_per_block=1, norm_num_groups=4, block_out_channels=(16, 32, 32), cross_attention_dim=24,
        **configuration)), generator)


def save(pipeline, folder, variant=None):
    """The folder with weights of half precision; the tokenizer's files are there."""
    files = {f.name: f.read_bytes() for f in (folder / "tokenizer").iterdir()}
    parts = [pipeline.unet, pipeline.vae, pipeline.text_encoder]
    for part in parts:
        part.half()
    pipeline.save_pretrained(folder, variant=variant)
    for part in parts:
        part.float()
    shutil.rmtree(folder / "tokenizer")  # of another layout
    (folder / "tokenizer").mkdir()
    for name, content in files.items():
        (folder / "tokenizer" / name).write_bytes(content)


def write(folder, tensors, settings):
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, str(folder / "case.safetensors"))
    (folder / "case.json").write_text(json.dumps(dict(
        settings, tolerance=1e-3, diffusers=diffusers.__version__, transformers=transformers.__version__, torch=torch.__version__), indent=1) + "\n")


def prompts(pipeline):
    """Ids and embeddings of both prompts, as the pipeline makes them."""
    ids = {name: pipeline.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
           for name, text in (("out.ids", PROMPT), ("out.negative_ids", NEGATIVE))}
    positive, negative = pipeline.encode_prompt(PROMPT, "cpu", 1, True, NEGATIVE)
    return ids | {"out.prompt_embeds": positive, "out.negative_prompt_embeds": negative}


def given(*fields):
    """A stand-in for `randn_tensor` that gives these fields, one a call."""
    fields = list(fields)

    def randn_tensor(shape, **_):
        field = fields.pop(0)
        assert tuple(shape) == tuple(field.shape), (shape, field.shape)
        return field
    return randn_tensor


def runs(pipeline, tensors, call, *others):
    """Runs of all step counts; `others` are arguments that must make a difference."""
    for steps in STEPS:
        seen = []
        pixels = call(steps, lambda step, timestep, latents: seen.append((int(timestep), latents.clone())))
        assert len(seen) == steps, (len(seen), steps)
        latents = seen[-1][1]
        assert torch.isfinite(latents).all()
        image = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
        assert torch.allclose(pixels, (image / 2 + 0.5).clamp(0, 1), atol=1e-6)
        inside = ((image > -1) & (image < 1)).float().mean().item()
        print(f"  {steps} steps: latents up to {latents.abs().max():.3g}, image up to {image.abs().max():.3g}, {inside:.0%} inside")
        tensors |= {f"out.{steps}.timesteps": torch.tensor([t for t, _ in seen]), f"out.{steps}.latents": latents,
                    f"out.{steps}.image": image}
    # A part that changed little would not be tested.
    for other in (dict(guidance_scale=1.5), dict(negative_prompt=PROMPT, prompt=NEGATIVE), *others):
        changed = (call(5, lambda *_: None, **other) - (tensors["out.5.image"] / 2 + 0.5).clamp(0, 1)).abs().max().item()
        print(f"  {other}: {changed:.2g}")
        assert changed > 0.02, other


def upscale(source):
    """As stable-diffusion-x4-upscaler is: v prediction, noise level as a class, first level without attention, decode by 4."""
    folder = OUT / "pipeline-upscale"
    generator = torch.Generator().manual_seed(31)
    torch.manual_seed(32)
    tokenizer = small_tokenizer(source, folder / "model" / "tokenizer", 700, "!")
    pipeline = StableDiffusionUpscalePipeline(
        vae=vae(generator, 3, 0.08333), text_encoder=text_encoder(tokenizer, generator, "gelu", 24), tokenizer=tokenizer,
        unet=unet(generator, in_channels=7, attention_head_dim=4, use_linear_projection=True, num_class_embeds=350,
                  only_cross_attention=(True, True, False),
                  down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                  up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.0001, beta_end=0.02, clip_sample=False, set_alpha_to_one=False,
                                steps_offset=1, prediction_type="v_prediction"),
        low_res_scheduler=DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.0001, beta_end=0.02), max_noise_level=349)
    pipeline.set_progress_bar_config(disable=True)
    height, width, level, scale = 24, 16, 20, 9.0
    image = picture(generator, height, width)
    low, initial = noise(LOW_RESOLUTION, 3, height, width), noise(INITIAL, 4, height, width)
    tensors = {"in.image": image, "in.low_resolution_noise": low, "in.initial_noise": initial} | prompts(pipeline)
    tensors["out.low_resolution"] = pipeline.low_res_scheduler.add_noise(image * 2 - 1, low, torch.tensor([level]))

    def call(steps, callback, **other):
        with mock.patch("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_upscale.randn_tensor", given(low)):
            return pipeline(**dict(
                prompt=PROMPT, image=image, negative_prompt=NEGATIVE, num_inference_steps=steps, guidance_scale=scale, noise_level=level,
                latents=initial.clone(), output_type="pt", callback=callback) | other).images
    runs(pipeline, tensors, call, dict(noise_level=200))
    save(pipeline, folder / "model")
    write(folder, tensors, {
        "about": "StableDiffusionUpscalePipeline(prompt, image, negative_prompt, num_inference_steps=N, guidance_scale, noise_level), DDIM with eta 0",
        "prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance_scale": scale, "noise_level": level, "seed": SEED, "steps": STEPS})


def image_to_image(source):
    """As Stable Diffusion 1 is: epsilon prediction, convolutional projections, a VAE by 8, weights as the fp16 variant."""
    folder = OUT / "pipeline-img2img"
    generator = torch.Generator().manual_seed(41)
    torch.manual_seed(42)
    tokenizer = small_tokenizer(source, folder / "model" / "tokenizer", 700, "<|endoftext|>")
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=vae(generator, 4, 0.18215), text_encoder=text_encoder(tokenizer, generator, "quick_gelu", 24), tokenizer=tokenizer,
        unet=unet(generator, in_channels=4, attention_head_dim=4,
                  down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                  up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False,
                                steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    height, width, factor, strength, scale = 24, 16, 4, 0.6, 7.5
    image = picture(generator, height, width)
    large = enlarged(image, factor)
    assert 0 <= large.min() and large.max() <= 1
    h, w = height * factor // 8, width * factor // 8
    posterior, initial = noise(POSTERIOR, 4, h, w), noise(INITIAL, 4, h, w)
    tensors = {"in.image": image, "in.enlarged": large, "in.posterior_noise": posterior, "in.initial_noise": initial} | prompts(pipeline)
    with mock.patch("diffusers.models.autoencoders.vae.randn_tensor", given(posterior)):
        tensors["out.encoded"] = pipeline.vae.encode(large * 2 - 1).latent_dist.sample() * pipeline.vae.config.scaling_factor

    def call(steps, callback, **other):
        # The pipeline runs the last int(count * strength) of `count` steps.
        count = next(n for n in range(1, 1000) if int(n * strength) == steps)
        with (mock.patch("diffusers.models.autoencoders.vae.randn_tensor", given(posterior)),
              mock.patch("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img.randn_tensor", given(initial))):
            return pipeline(**dict(
                prompt=PROMPT, image=large, strength=strength, negative_prompt=NEGATIVE, num_inference_steps=count, guidance_scale=scale,
                output_type="pt", callback=callback, callback_steps=1) | other).images
    runs(pipeline, tensors, call)
    save(StableDiffusionPipeline(**pipeline.components, requires_safety_checker=False), folder / "model", variant="fp16")
    write(folder, tensors, {
        "about": "StableDiffusionImg2ImgPipeline(prompt, image enlarged by `scale`, strength, negative_prompt, num_inference_steps, guidance_scale), DDIM with "
                 "eta 0; out.N is a run of N steps, for which num_inference_steps is the least count with int(count * strength) = N",
        "prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance_scale": scale, "strength": strength, "scale": factor, "seed": SEED, "steps": STEPS,
        "num_inference_steps": [next(n for n in range(1, 1000) if int(n * strength) == s) for s in STEPS]})


# MARK: texts

WORDS = ("a photo of the castle sky don't it's we'll they've I'm he'd running 3.14 naïve café №5 東京 🚀 👩‍👩‍👧 Ünïcödé ΣΑΣ İstanbul ﬁne ½ ①②Ⅷ ㎡ ﷺ 한국어 ภาษาไทย "
         "हिन्दी עברית العربية ñ Å ẞ ǅ <|endoftext|> <|startoftext|> <|ENDOFTEXT|> <|endoftext| !!! ... '' 'S 'Re 'LL rock'n'roll :) <3 #tag @user "
         "http://x.y/z?q=1 snake_case CamelCase 1234567 x² H₂O").split()
SPACES = " \t\n\r\u00a0\u2003\u3000\u200b\u0085\u2028\x0b\x0c\x1c\x1f"
RANGES = [(0x20, 0x7f)] * 6 + [(0xa0, 0x250), (0x300, 0x330), (0x370, 0x600), (0x1100, 0x1200), (0xac00, 0xd7a4), (0x4e00, 0xa000),
                               (0x1e00, 0x2000), (0x1f300, 0x1f600)]


def texts():
    """Short ones of every kind: the vocabulary is small, so most of their letters are tokens of their own."""
    r = random.Random(51)

    def character():
        k = r.random()
        return r.choice("'\"!?.,-<>|'''") if k < 0.15 else r.choice(SPACES) if k < 0.25 else chr(r.randrange(*r.choice(RANGES)))
    yield from ["", " ", "\t\n", "!", "a!b", "x" * 300, "X" * 60 + "é" * 60, "'s's'S 'ſ", "e\u0301 é E\u0301", "\u1100\u1161\u11a8 \uac00\u11a8", "a\u0301\u0316 a\u0316\u0301",
                "<|endoftext|>inside<|endoftext|>", "a<|StartOfText|>b", "\ud55c\uad6d\uc5b4 한국어", "the " * 90, "1 22 333 ²³", "ǅ Ǆ ǆ", "\u0301a"]
    for _ in range(60):
        yield "".join(r.choice(WORDS) + r.choice(["", " ", "  ", r.choice(SPACES)]) for _ in range(r.randrange(1, 14)))
    for _ in range(60):
        yield "".join(character() for _ in range(r.randrange(1, 40)))


def tokenizer(source):
    for pad, name in (("<|endoftext|>", "tokenizer"), ("!", "tokenizer-sd2")):
        folder = OUT / name
        model = small_tokenizer(source, folder / "model", 2000, pad)
        rows = [{"text": t, "ids": model(t, padding="max_length", max_length=77, truncation=True)["input_ids"]} for t in texts()]
        (folder / "case.json").write_text("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenizer", type=pathlib.Path)
    source = parser.parse_args().tokenizer
    for function in (tokenizer, upscale, image_to_image):
        print(function.__name__, flush=True)
        function(source)
