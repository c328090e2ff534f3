#!/usr/bin/env python3
"""Renders a gigapixel and measures it: 8192x8192 to 32768x32768 with the default model.

    python3 Benchmarks/gigapixel.py DIR [--bin .build/release] [--side 8192] [--steps 4] [--storage float16]

The input is a collage of examples/, turned, mirrored and blended into one another. In DIR: the input, the output, the job's folder, the pyramid, the
log. Prints one JSON object: wall time, that of the bare network for the same tiles (measured every minute or so while the farm is stopped; the pauses are
not counted), the peak memory of coordinator and worker together, and what `pngcheck` says of the output. Needs numpy, Pillow and pngcheck; about 25 GB of disk.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

import numpy as np
from PIL import Image

Image.MAX_IMAGE_PIXELS = None
ROOT = pathlib.Path(__file__).resolve().parent.parent


def collage(side):
    """Patches of 512 pixels at every 384, each fading into its neighbours."""
    random = np.random.default_rng(1)
    pictures = [np.asarray(Image.open(path).convert("RGB"), np.float32) for path in sorted((ROOT / "examples").glob("*.png"))]
    patch, pace = 512, 384
    ramp = np.minimum(1, (np.arange(patch) + 0.5) / (patch - pace))
    fade = (np.minimum(ramp, ramp[::-1])[:, None] * np.minimum(ramp, ramp[::-1]))[..., None].astype(np.float32)
    around = side + pace // 2 + patch
    total = np.zeros((around, around, 3), np.float32)
    weight = np.zeros((around, around, 1), np.float32)
    for y in range(-pace // 2, side, pace):
        for x in range(-pace // 2, side, pace):
            picture = pictures[random.integers(len(pictures))]
            picture = np.rot90(picture, random.integers(4))[:, :: random.choice([-1, 1])]
            scale = patch / min(picture.shape[:2]) * random.uniform(1, 2)
            size = [max(patch, round(length * scale)) for length in picture.shape[1::-1]]
            large = np.asarray(Image.fromarray(picture.astype(np.uint8)).resize(size, Image.BICUBIC), np.float32)
            top, left = random.integers(large.shape[0] - patch + 1), random.integers(large.shape[1] - patch + 1)
            place = np.s_[y + pace // 2 : y + pace // 2 + patch, x + pace // 2 : x + pace // 2 + patch]
            total[place] += fade * large[top : top + patch, left : left + patch]
            weight[place] += fade
    middle = np.s_[pace // 2 : pace // 2 + side, pace // 2 : pace // 2 + side]
    return np.round(total[middle] / weight[middle]).astype(np.uint8)


def bare(bin, seconds):
    report = json.loads(subprocess.check_output([bin / "tilefarm", "bench", "--seconds", str(seconds)], text=True))
    return report["tiles_per_second"]


def family(pid):
    """A process and its children."""
    pids = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids += map(int, task.read_text().split())
        except OSError:
            pass
    return pids


class Bare(threading.Thread):
    """Stops the farm for some seconds every few minutes and measures the bare network in them: a shared machine's speed changes within minutes."""

    def __init__(self, pid, bin, every, seconds):
        super().__init__(daemon=True)
        self.pid, self.bin, self.every, self.seconds = pid, bin, every, seconds
        self.rates, self.paused = [], 0

    def run(self):
        while True:
            time.sleep(self.every)
            start = time.monotonic()
            pids = family(self.pid)
            try:
                for pid in reversed(pids):
                    os.kill(pid, signal.SIGSTOP)
                self.rates.append(bare(self.bin, self.seconds))
            except ProcessLookupError:
                return
            except (subprocess.CalledProcessError, OSError, ValueError) as error:
                print(f"the bare network was not measured: {error}", file=sys.stderr)
            finally:
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGCONT)
                    except ProcessLookupError:
                        pass
                self.paused += time.monotonic() - start


class Memory(threading.Thread):
    """Samples what a process and its children hold: the largest sum, and the sum of the peaks that the system has kept of each."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.together, self.peaks = pid, 0, {}

    def run(self):
        while pathlib.Path(f"/proc/{self.pid}").exists():
            together = 0
            for pid in family(self.pid):
                try:
                    status = pathlib.Path(f"/proc/{pid}/status").read_text()
                    together += int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10
                    self.peaks[pid] = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) << 10
                except (OSError, TypeError):
                    pass
            self.together = max(self.together, together)
            time.sleep(0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / ".build/release")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--storage", default="float16")
    parser.add_argument("--seconds", type=float, default=2.5, help="of each measurement of the bare network; more than 4 and the worker takes it for silence")
    parser.add_argument("--every", type=float, default=45, help="seconds between them")
    options = parser.parse_args()
    folder = options.dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "input.png"
    if not source.exists():
        Image.fromarray(collage(options.side)).save(source, compress_level=1)

    shutil.rmtree(folder / "job", ignore_errors=True)
    start = time.monotonic()
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [options.bin / "tilefarm", "upscale", source, "-o", folder / "output.png", "--steps", str(options.steps), "--deepzoom", folder / "deepzoom",
             "--job", folder / "job", "--storage", options.storage], stderr=log, stdout=log)
        memory = Memory(process.pid)
        memory.start()
        measured = Bare(process.pid, options.bin, options.every, options.seconds)
        measured.start()
        code = process.wait()
    wall = time.monotonic() - start - measured.paused
    text = (folder / "log").read_text()
    if code != 0:
        raise SystemExit(text)
    facts = dict(re.findall(r"(\w+)=(\S+)", text[text.rindex("job finished"):]))
    tiles = int(facts["tiles"])
    rates = measured.rates or [bare(options.bin, options.seconds)]
    rate = statistics.mean(rates)
    error = statistics.stdev(rates) / len(rates) ** 0.5 if len(rates) > 1 else float("nan")
    checked = subprocess.run(["pngcheck", "-q", folder / "output.png"], capture_output=True, text=True)
    print(json.dumps({
        "output": f"{4 * options.side}x{4 * options.side}", "steps": options.steps, "tiles": tiles,
        "wall_seconds": round(wall, 1), "paused_seconds": round(measured.paused, 1), "rendering_seconds": float(facts["elapsed"].rstrip("s")),
        "bare_tiles_per_second": [round(rate, 2) for rate in measured.rates], "bare_seconds": round(tiles / rate, 1), "wall_over_bare": round(wall * rate / tiles, 3),
        "standard_error": round(wall * error / tiles, 4),  # of the samples of the bare network
        "pngcheck": "OK" if checked.returncode == 0 else checked.stdout,
        "peak_bytes_together": memory.together, "sum_of_peak_bytes": sum(memory.peaks.values()),
        "output_bytes": (folder / "output.png").stat().st_size,
        "pyramid_bytes": sum(path.stat().st_size for path in (folder / "deepzoom").rglob("*.png")),
    }, indent=2))


if __name__ == "__main__":
    main()
