"""Measures the pictures: how good the default model's are, and what tiling does to them.

    python3 Benchmarks/quality.py --tilefarm .build/release/tilefarm [--model DIR] [--out DIR]
                                  [--only model|tiling] [--docs docs]

Five photographs inside the scikit-image package (used here only, never for training) are reduced
four times with Pillow's antialiased bicubic filter and enlarged again by the program. The folder
--out receives them, all renders, quality.json, the tables as Markdown and the pictures of the
documents. --docs puts tables and pictures into default-model.md and methods.md: what stands there
between `<!-- quality: NAME -->` and `<!-- end -->` is this program's.

All figures are taken from the 8-bit PNG files. What is not in the program under test measures it:
numpy and scikit-image. About ten minutes on two cores.
"""

import argparse
import functools
import json
import pathlib
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import skimage
from PIL import Image, ImageDraw
from skimage.metrics import structural_similarity

SCALE = 4
ALIGNMENT = 8   # the originals are cut to this, so that a canvas needs no padding
PICTURED_STEPS = 8
MODEL_STEPS = (1, 2, 4, 8, 16)
TILING_STEPS = (1, 4, 8, 16)
CROPS = {"astronaut": (160, 68), "coffee": (316, 212), "chelsea": (132, 80), "motorcycle_left": (340, 240), "rocket": (284, 124)}
CROP = 96       # pixels of the crops' sides
BORDER = 2      # pixels on each side of a cut line that count as border

# Everything else is as the program has it by default: tile 256, random offsets, seed 0.
DEFAULT = "FSTD, halo 16 (default)"
PUBLISHED = "FSTD as published"
UNTILED = ["--tile", "2048", "--overlap", "none"]
METHODS = {
    "no overlap": ["--overlap", "none", "--offset", "none"],
    "FSTD, no halo": ["--halo", "0"],
    "FSTD, halo 8": ["--halo", "8"],
    DEFAULT: [],
    "FSTD, halo 24": ["--halo", "24"],
    "FSTD, halo 32": ["--halo", "32"],
    PUBLISHED: ["--overlap", "reference"],
    "explicit overlap, mean": ["--overlap", "explicit", "--weights", "mean"],
    "explicit overlap, Gaussian": ["--overlap", "explicit", "--weights", "gaussian"],
}
BLENDED = [m for m in METHODS if "explicit" in m or m == PUBLISHED]  # their windows overlap: there are no cells with borders


class Farm:
    """The program under test; every call is made once."""

    def __init__(self, tilefarm, model, out):
        self.tilefarm, self.options, self.out = tilefarm, ["--model", model] if model else [], out

    @functools.cache
    def call(self, *arguments):
        """What the program says, on both streams."""
        done = subprocess.run([self.tilefarm, *map(str, arguments), *self.options], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise SystemExit(f"tilefarm {' '.join(map(str, arguments))} failed:\n{done.stdout}")
        return done.stdout

    def render(self, name, steps, *options):
        """The enlarged photograph."""
        path = self.out / "renders" / ("-".join([name, str(steps), *options]).replace("--", "") + ".png")
        self.call("upscale", self.out / f"{name}-low.png", "-o", path, "--steps", steps, *options)
        return np.asarray(Image.open(path).convert("RGB"), np.float64)

    def plan(self, name, steps, *options):
        return self.call("plan", self.out / f"{name}-low.png", "--steps", steps, *options)

    def windows(self, *options):
        """How many windows the steps of a large picture take, on average."""
        return int(re.search(r"^tasks +(\d+)", self.plan("large", PICTURED_STEPS, *options), re.M)[1]) / PICTURED_STEPS

    def cuts(self, name, steps, *options):
        """The cut lines of the last step: columns, rows."""
        plan = self.plan(name, steps, *options)
        columns, rows = re.search(r"^cuts.*: x (.*) \| y (.*)$", plan, re.M).groups()
        return [int(x) for x in re.findall(r"\d+", columns)], [int(y) for y in re.findall(r"\d+", rows)]


def psnr(a, b):
    return float(10 * np.log10(255 ** 2 / np.square(a - b).mean()))


def ssim(a, b):
    """As Wang et al. 2004 have it: Gaussian windows, mean of the channels."""
    return float(structural_similarity(
        a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False))


def fine_power(image):
    """Power of the luma above half the Nyquist frequency (Hann window)."""
    luma = image @ (0.299, 0.587, 0.114)
    window = np.hanning(luma.shape[0])[:, None] * np.hanning(luma.shape[1])
    spectrum = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2
    return spectrum[np.hypot(np.fft.fftfreq(luma.shape[0])[:, None], np.fft.fftfreq(luma.shape[1])) > 0.25].sum()


def prepare(out):
    """Writes originals and reductions; returns {name: (original, bicubic enlargement)}."""
    (out / "renders").mkdir(parents=True, exist_ok=True)
    (out / "images").mkdir(exist_ok=True)
    Image.new("RGB", (2048, 2048)).save(out / "large-low.png")
    photos = {}
    for name in CROPS:
        path = next((pathlib.Path(skimage.__file__).parent / "data").glob(f"{name}.*"))
        original = Image.open(path).convert("RGB")
        width, height = (side // ALIGNMENT * ALIGNMENT for side in original.size)
        original = original.crop((0, 0, width, height))
        low = original.resize((width // SCALE, height // SCALE), Image.BICUBIC)
        original.save(out / f"{name}.png")
        low.save(out / f"{name}-low.png")
        photos[name] = np.asarray(original, np.float64), np.asarray(low.resize(original.size, Image.BICUBIC), np.float64)
    return photos


def table(heads, rows):
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def strip(path, panels, zoom):
    """Labelled pictures side by side."""
    height, width = panels[0][1].shape[0] * zoom, panels[0][1].shape[1] * zoom
    sheet = Image.new("RGB", (len(panels) * (width + 4) - 4, height + 16), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (label, pixels) in enumerate(panels):
        image = Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
        sheet.paste(image.resize((width, height), Image.NEAREST), (i * (width + 4), 16))
        draw.text((i * (width + 4) + 2, 2), label, fill="black")
    sheet.save(path, optimize=True)


def model_quality(farm, photos):
    """The default model against the originals, as a user gets it: tiled, with the default options."""
    versions = {"bicubic": {n: bicubic for n, (_, bicubic) in photos.items()}}
    for steps in MODEL_STEPS:
        versions[f"{steps} step{'s' * (steps > 1)}"] = {n: farm.render(n, steps) for n in photos}
    figures = {
        version: {n: {"psnr": psnr(image, photos[n][0]), "ssim": ssim(image, photos[n][0]),
                      "fine_detail": fine_power(image) / fine_power(photos[n][0])} for n, image in images.items()}
        for version, images in versions.items()}

    def mean(version, key):
        return float(np.mean([f[key] for f in figures[version].values()]))
    base = mean("bicubic", "psnr")
    means = {v: {k: mean(v, k) for k in ("psnr", "ssim", "fine_detail")} for v in figures}
    summary = table(["mean of five", "PSNR, dB", "against bicubic, dB", "SSIM", "fine detail / original's"], [
        [v, f"{m['psnr']:.2f}", f"{m['psnr'] - base:+.2f}", f"{m['ssim']:.3f}", f"{m['fine_detail']:.3f}"] for v, m in means.items()])
    each = table(["PSNR dB / SSIM / fine detail", *figures], [
        [n, *("{psnr:.2f} / {ssim:.3f} / {fine_detail:.3f}".format(**figures[v][n]) for v in figures)] for n in photos])
    for name, (x, y) in CROPS.items():
        panels = [(v, image[name]) for v, image in versions.items() if v != "16 steps"] + [("original", photos[name][0])]
        strip(farm.out / "images" / f"crop-{name}.png", [(v, image[y:y + CROP, x:x + CROP]) for v, image in panels], zoom=2)
    return {"photos": figures, "mean": means}, {"model": summary, "photos": each}


def border_errors(error, columns, rows):
    """Mean error within BORDER pixels of a cut line, and elsewhere."""
    near = np.zeros(error.shape, bool)
    for x in columns:
        near[:, x - BORDER:x + BORDER] = True
    for y in rows:
        near[y - BORDER:y + BORDER] = True
    return error[near].mean(), error[~near].mean()


def tiling_error(farm, photos):
    """Tiled against untiled renders with the same noise."""
    with ThreadPoolExecutor(8) as pool:  # together: each `plan` takes time for a measurement of speed that is not used here
        list(pool.map(lambda job: farm.cuts(*job), [
            (n, s, *METHODS[m]) for m in METHODS if m not in BLENDED for s in TILING_STEPS for n in photos]))
    figures = {}
    for method, options in METHODS.items():
        figures[method] = {}
        for steps in TILING_STEPS:
            values, borders = {}, []
            for n in photos:
                untiled, tiled = farm.render(n, steps, *UNTILED), farm.render(n, steps, *options)
                values[n] = psnr(tiled, untiled)
                if method not in BLENDED:
                    borders.append(border_errors(np.abs(tiled - untiled).mean(2), *farm.cuts(n, steps, *options)))
            near, elsewhere = np.mean(borders, 0) if borders else (np.nan, 1)
            figures[method][steps] = {
                "psnr": float(np.mean(list(values.values()))), "photos": values,
                "border_ratio": float(near / elsewhere) if borders else None}
            print(f"{method}, {steps} steps: {figures[method][steps]}", flush=True)
    heads = [f"{s} step{'s' * (s > 1)}" for s in TILING_STEPS]
    windows = {m: farm.windows(*options) for m, options in METHODS.items()}
    error = table(["PSNR of tiled against untiled, dB", *heads, "windows a step of 8192x8192"], [
        [m, *(f"{f['psnr']:.1f}" for f in by_steps.values()), f"{windows[m]:.0f}"] for m, by_steps in figures.items()])
    borders = table(["error at borders / elsewhere", *heads], [
        [m, *(f"{f['border_ratio']:.2f}" for f in by_steps.values())] for m, by_steps in figures.items() if m not in BLENDED])
    each = table(["the default, dB", *heads], [
        [n, *(f"{f['photos'][n]:.1f}" for f in figures[DEFAULT].values())] for n in photos])
    seams(farm)
    return {"error": figures, "windows": windows}, {"tiling": error, "borders": borders, "tiling-photos": each}


def seams(farm):
    """Pictures of one photograph: where the error lies, and what its seams look like."""
    name, steps, gain = "astronaut", PICTURED_STEPS, 24
    renders = {m: farm.render(name, steps, *options) for m, options in (METHODS | {"untiled": UNTILED}).items()}
    panels = []
    for method in ("no overlap", "FSTD, no halo", DEFAULT, PUBLISHED, "explicit overlap, mean", "explicit overlap, Gaussian"):
        error = np.abs(renders[method] - renders["untiled"])
        error = error.reshape(error.shape[0] // 2, 2, error.shape[1] // 2, 2, 3).mean((1, 3, 4))[..., None]
        panels.append((method, np.repeat(np.minimum(error * gain, 255) // 8 * 8, 3, 2)))
    strip(farm.out / "images" / "tiling-error-1.png", panels[:3], zoom=1)
    strip(farm.out / "images" / "tiling-error-2.png", panels[3:], zoom=1)
    for file, method, x, y in (("seam-no-overlap", "no overlap", 224, 392), ("seam-published", PUBLISHED, 0, 300)):
        crops = [(m, renders[m][y:y + 64, x:x + 64]) for m in (method, DEFAULT, "untiled")]
        strip(farm.out / "images" / f"{file}.png", [(m, 128 + 2 * (c - c.mean((0, 1)))) for m, c in crops], zoom=4)


def fill(document, blocks, images):
    """Puts each block between its two marks, and beside the document the pictures that it shows."""
    text = document.read_text()
    for name, block in blocks.items():
        text = re.sub(rf"(<!-- quality: {name} -->\n).*?(<!-- end -->)", lambda m: m[1] + block + m[2], text, flags=re.S)
    document.write_text(text)
    for shown in re.findall(r"\(images/([\w-]+\.png)\)", text):
        if (images / shown).exists():
            shutil.copy(images / shown, document.parent / "images" / shown)


def main():
    parser = argparse.ArgumentParser(description="Measure the default model and the tiling on five photographs.")
    parser.add_argument("--tilefarm", default=".build/release/tilefarm", help="the program; tilefarm-worker lies beside it")
    parser.add_argument("--model", help="a model folder; default: the one in the box")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".build/quality"), help="folder for all that is made")
    parser.add_argument("--only", choices=("model", "tiling"))
    parser.add_argument("--docs", type=pathlib.Path, help="folder of the documents to bring up to date")
    a = parser.parse_args()

    photos = prepare(a.out)
    farm = Farm(a.tilefarm, a.model, a.out)
    figures, blocks = {}, {}
    for part, measure in (("model", model_quality), ("tiling", tiling_error)):
        if a.only in (None, part):
            figures[part], made = measure(farm, photos)
            blocks |= made
    (a.out / "quality.json").write_text(json.dumps(figures, indent=1))
    for name, block in blocks.items():
        (a.out / f"{name}.md").write_text(block)
        print(block)
    if a.docs:
        for document in ("default-model.md", "methods.md"):
            fill(a.docs / document, blocks, a.out / "images")


if __name__ == "__main__":
    main()
