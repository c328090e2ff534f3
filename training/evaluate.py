"""How images are reduced, guessed, sampled and measured; and the measurement itself.

    python evaluate.py --model DIR [--steps 1 2 4 8 16] [--crops crops.png]

upscales five photographs that ship with scikit-image (used here only, never for
training) with a plain PyTorch DDIM sampler, so that another engine that runs the
same folder can be compared with these figures.  Images are RGB in [-1, 1].

The figures: PSNR and SSIM against the original (after clamping and rounding to
8 bits, no border left out), and the power above half the Nyquist frequency as a
fraction of the original's, which tells sharp from blurred where PSNR rewards blur.
"""

import argparse
import json
import os

import numpy as np
import torch
import torch.nn.functional as F

SCALE = 4           # low resolution to high
SPACE_TO_DEPTH = 2  # the network works at 1/2 resolution, with 4 times the channels
RESIDUAL_SCALE = 4.0  # what is sampled: RESIDUAL_SCALE * (image - guess)
ALIGNMENT = 8       # pixels: space to depth, and two halvings inside the network
PHOTOS = ("astronaut", "coffee", "chelsea", "motorcycle_left", "rocket")


def to_8_bits(x):
    return torch.round((x.clamp(-1, 1) + 1) * 127.5) / 127.5 - 1


def low_resolution(hr):
    return to_8_bits(F.interpolate(hr, scale_factor=1 / SCALE, mode="bicubic", antialias=True))


def bicubic(lr):
    """The guess: half-pixel centres, a = -0.5 (which PyTorch uses with antialias=True)."""
    return F.interpolate(lr, scale_factor=float(SCALE), mode="bicubic", antialias=True)


def to_depth(x):
    return F.pixel_unshuffle(x, SPACE_TO_DEPTH)


def from_depth(x):
    return F.pixel_shuffle(x, SPACE_TO_DEPTH)


def alphas_cumprod():
    """scaled_linear betas, rescaled to zero terminal signal-to-noise ratio (float64)."""
    betas = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root ** 2


def trailing_timesteps(steps):
    return [int(t) - 1 for t in np.round(np.arange(1000, 0, -1000 / steps))]


@torch.no_grad()
def upscale(model, lr, steps, seed=0):
    """DDIM (eta 0) on the residual over the guess; sides of lr * 4 must be multiples of 8."""
    abar = alphas_cumprod()
    guess = bicubic(lr)
    generator = torch.Generator().manual_seed(seed)
    x = to_depth(torch.randn(guess.shape, generator=generator))
    condition = to_depth(guess)
    times = trailing_timesteps(steps)
    for i, t in enumerate(times):
        a = float(abar[t])
        b = float(abar[times[i + 1]]) if i + 1 < len(times) else 1.0
        v = model(torch.cat([x, condition], 1), torch.tensor([t])).sample.float()
        x0 = a ** 0.5 * x - (1 - a) ** 0.5 * v
        noise = a ** 0.5 * v + (1 - a) ** 0.5 * x
        x = b ** 0.5 * x0 + (1 - b) ** 0.5 * noise
    return (guess + from_depth(x) / RESIDUAL_SCALE).clamp(-1, 1)


def psnr(x, y):
    mse = ((to_8_bits(x) - to_8_bits(y)).double() / 2).square().mean()
    return float(-10 * torch.log10(mse))


def ssim(x, y):
    from skimage.metrics import structural_similarity
    a, b = (((to_8_bits(i)[0].permute(1, 2, 0) + 1) / 2).numpy() for i in (x, y))
    return float(structural_similarity(a, b, channel_axis=2, data_range=1.0))


def high_power(x):
    """Power of the luminance above half the Nyquist frequency (Hann window)."""
    y = (x[0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).double()
    h, w = y.shape
    window = torch.hann_window(h, dtype=y.dtype)[:, None] * torch.hann_window(w, dtype=y.dtype)
    spectrum = torch.fft.fft2((y - y.mean()) * window).abs().square()
    radius = (torch.fft.fftfreq(h)[:, None].square() + torch.fft.fftfreq(w).square()).sqrt()
    return float(spectrum[radius > 0.25].sum())


def photos():
    """The five photographs, from the files of the scikit-image package itself."""
    import skimage
    from skimage.io import imread
    folder = os.path.join(os.path.dirname(skimage.__file__), "data")
    for name in PHOTOS:
        path = next(p for e in ("png", "jpg") if os.path.exists(p := os.path.join(folder, f"{name}.{e}")))
        image = imread(path)[..., :3]
        h, w = (s // ALIGNMENT * ALIGNMENT for s in image.shape[:2])
        yield name, torch.from_numpy(image[:h, :w].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def measure(model, images, steps):
    """{name: {"bicubic" or steps: (PSNR, SSIM, high power / the original's)}} and the pictures."""
    figures, pictures = {}, {}
    for name, hr in images:
        lr = low_resolution(hr)
        results = {"bicubic": bicubic(lr).clamp(-1, 1)}
        results.update({n: upscale(model, lr, n) for n in steps})
        figures[name] = {k: (psnr(x, hr), ssim(x, hr), high_power(x) / high_power(hr))
                         for k, x in results.items()}
        pictures[name] = {"original": hr, **results}
    return figures, pictures


def table(figures):
    keys = list(next(iter(figures.values())))
    lines = [f"{'':16}" + "".join(f"{k if k == 'bicubic' else str(k) + ' steps':>24}" for k in keys)]
    for name, row in figures.items():
        lines.append(f"{name:16}" + "".join(f"{p:11.2f} {s:.3f} {h:6.3f}" for p, s, h in row.values()))
    mean = {k: np.mean([row[k] for row in figures.values()], 0) for k in keys}
    lines.append(f"{'mean':16}" + "".join(f"{p:11.2f} {s:.3f} {h:6.3f}" for p, s, h in mean.values()))
    lines.append(f"{'PSNR - bicubic':16}" + "".join(f"{m[0] - mean['bicubic'][0]:+11.2f}{'':13}" for m in mean.values()))
    return "\n".join(lines)


def save_crops(path, pictures, columns, size=128, zoom=2):
    """One row per photo: the most detailed square of the original, in each version."""
    import cv2
    rows = []
    for versions in pictures.values():
        hr = versions["original"]
        detail = F.avg_pool2d((hr - F.avg_pool2d(hr, 5, 1, 2)).abs().mean(1, keepdim=True), size, 16)
        at = int(detail.flatten().argmax())
        y, x = at // detail.shape[-1] * 16, at % detail.shape[-1] * 16
        tiles = [versions[c][0, :, y:y + size, x:x + size].permute(1, 2, 0).numpy() for c in columns]
        rows.append(np.concatenate([np.kron(t, np.ones((zoom, zoom, 1))) for t in tiles], 1))
    image = np.round((np.concatenate(rows) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    cv2.imwrite(path, image[..., ::-1])


def main():
    from diffusers import UNet2DModel
    parser = argparse.ArgumentParser(description="Upscale five photographs and measure the result.")
    parser.add_argument("--model", required=True, help="folder with config.json and the weights")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--crops", help="write a picture: original, bicubic, 1 step, --default-steps")
    parser.add_argument("--default-steps", type=int, default=4)
    parser.add_argument("--json", help="write the figures here")
    a = parser.parse_args()
    model = UNet2DModel.from_pretrained(a.model, torch_dtype=torch.float32).eval()
    figures, pictures = measure(model, photos(), a.steps)
    print("PSNR (dB), SSIM, power above half Nyquist / the original's")
    print(table(figures))
    if a.crops:
        save_crops(a.crops, pictures, ["original", "bicubic", 1, a.default_steps])
    if a.json:
        with open(a.json, "w") as f:
            json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
