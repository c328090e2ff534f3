#!/usr/bin/env python3
"""Writes the cases of this folder that make_reference.py of the project's references does not: more configurations of Stable Diffusion's networks,
and folders as hubs have them. Small on purpose. The format is that of make_reference.py.

    python3 -m venv v && v/bin/pip install torch diffusers transformers safetensors
    v/bin/python make_cases.py OUT_DIR
"""
import json, pathlib, shutil, sys
import torch
from safetensors.torch import load_file, save_file
import diffusers
from diffusers import AutoencoderKL, UNet2DConditionModel

OUT = pathlib.Path(sys.argv[1])
torch.manual_seed(11)
torch.set_grad_enabled(False)
g = torch.Generator().manual_seed(12)
rn = lambda *s: torch.randn(*s, generator=g)
WEIGHTS = "diffusion_pytorch_model"


def jitter(m):
    """Random weights everywhere, norms and biases included, so that a dropped bias or gamma shows."""
    for p in m.parameters():
        p.add_((0.2 if p.ndim <= 1 else 0.02) * torch.randn(p.shape, generator=g))
    return m.eval()


def rounded(m, dtype):
    """The float32 model whose weights are those of the file in `dtype`."""
    return m.to(dtype).float()


def case(name, tensors, about, tolerance=1e-4):
    d = OUT / name
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir(parents=True)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, str(d / "case.safetensors"))
    (d / "case.json").write_text(json.dumps({"about": about, "tolerance": tolerance, "diffusers": diffusers.__version__,
                                             "torch": torch.__version__}, indent=1) + "\n")
    return d / "model"


def unet_case(name, m, sizes, about, tokens=5, classes=()):
    t = {}
    for i, (h, w, step) in enumerate(sizes):
        x, c = rn(1, m.config.in_channels, h, w), rn(1, tokens, m.config.cross_attention_dim)
        kw = {}
        if m.config.num_class_embeds:
            kw["class_labels"] = torch.tensor([classes[i]])
            t[f"in.{i}.class_labels"] = kw["class_labels"]
        t[f"in.{i}.sample"], t[f"in.{i}.timestep"], t[f"in.{i}.encoder_hidden_states"] = x, torch.tensor([step]), c
        t[f"out.{i}.sample"] = m(x, step, c, **kw).sample
    return case(name, t, about)


def unets():
    small = dict(sample_size=16, norm_num_groups=4, out_channels=4, in_channels=4, cross_attention_dim=12)
    two = dict(down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    # Four levels of two layers, as the real ones have, at sizes that are no multiples of eight: every enlargement has an odd size somewhere.
    m = jitter(UNet2DConditionModel(**small, block_out_channels=(8, 8, 8, 16), layers_per_block=2, attention_head_dim=(1, 2, 4, 4),
                                    use_linear_projection=True))
    d = unet_case("unet-four-levels", m, [(16, 24, 999), (13, 21, 500), (9, 16, 1)], "four levels, two layers a block; odd sizes")
    m.save_pretrained(d)
    # Several transformers a level, layers that differ by level, heads that do not fill a vector, nine input channels; one float16 file with its
    # variant's name.
    m = rounded(jitter(UNet2DConditionModel(**dict(small, in_channels=9), **two, block_out_channels=(12, 20), layers_per_block=(1, 2),
                                            transformer_layers_per_block=(2, 3), attention_head_dim=(3, 2))), torch.float16)
    d = unet_case("unet-inpainting-float16", m, [(8, 12, 731)], "two and three transformers a block, nine channels, a float16 variant")
    m.half().save_pretrained(d, variant="fp16")
    # Shards with an index, in bfloat16; both levels attend to the text alone; noise levels as classes.
    m = rounded(jitter(UNet2DConditionModel(**small, **two, block_out_channels=(8, 16), layers_per_block=1, attention_head_dim=4,
                                            only_cross_attention=True, num_class_embeds=7)), torch.bfloat16)
    d = unet_case("unet-sharded-bfloat16", m, [(6, 7, 44)], "shards in bfloat16; only_cross_attention everywhere; classes", classes=[6])
    m.to(torch.bfloat16).save_pretrained(d, max_shard_size="40KB")
    # One level alone.
    m = jitter(UNet2DConditionModel(**small, block_out_channels=(8,), layers_per_block=1, attention_head_dim=2,
                                    down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",)))
    d = unet_case("unet-one-level", m, [(5, 3, 250)], "one level: nothing is enlarged", tokens=77)
    m.save_pretrained(d)


def vae_case(name, m, height, width, about):
    f = 2 ** (len(m.config.block_out_channels) - 1)
    x, z = rn(1, 3, height, width).clamp(-1, 1), rn(1, m.config.latent_channels, height // f, width // f)
    post = m.encode(x).latent_dist
    return case(name, {"in.image": x, "out.mean": post.mean, "out.logvar": post.logvar, "in.latent": z, "out.image": m.decode(z).sample}, about)


def vaes():
    kinds = lambda n: dict(down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n)
    # The names that attention had before diffusers 0.15, some stored as 1x1 convolutions; two layers a block.
    m = jitter(AutoencoderKL(**kinds(3), block_out_channels=(8, 16, 16), layers_per_block=2, norm_num_groups=4))
    d = vae_case("vae-old-names", m, 24, 40, "attention keys query, key, value, proj_attn; two of them as 1x1 convolutions")
    m.save_pretrained(d)
    tensors, old = load_file(d / f"{WEIGHTS}.safetensors"), {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for key, value in tensors.items():
        for new, name in old.items():
            if f".attentions.0.{new}." in key:
                key = key.replace(new, name)
                value = value[:, :, None, None] if value.ndim == 2 and name in ("query", "proj_attn") else value
        renamed[key] = value
    save_file(renamed, str(d / f"{WEIGHTS}.safetensors"))
    config = json.loads((d / "config.json").read_text())
    for key in ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "use_quant_conv", "use_post_quant_conv", "mid_block_add_attention",
                "force_upcast"):
        del config[key]  # as it was then
    (d / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    # Without the convolutions at the latent, and without attention.
    m = jitter(AutoencoderKL(**kinds(2), block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8, latent_channels=3, use_quant_conv=False,
                             use_post_quant_conv=False, mid_block_add_attention=False, scaling_factor=0.5))
    d = vae_case("vae-bare", m, 10, 14, "no quant_conv, no post_quant_conv, no attention in the middle, three latent channels")
    m.save_pretrained(d)


if __name__ == "__main__":
    for f in (unets, vaes):
        f()
