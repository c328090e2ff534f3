"""Trains the 4x super-resolution diffusion model on synthetic images, on a CPU.

    python train.py --out DIR --minutes 110

draws the images (see make_images.py), trains for that wall-clock time, and keeps
DIR/export up to date: the averaged weights in float16 in the layout of diffusers,
with the scheduler's settings and tilefarm.json, which says how to feed the network.
The learning rate follows the clock, not the step count, so that the time is kept on
a machine of any speed; --resume continues an interrupted run.

What is learnt: v prediction on residual_scale * (image - bicubic guess), at half
resolution (space to depth), conditioned on the guess.  A residual is small where the
guess is good, so noise and network spend nothing on what interpolation knows already.
"""

import argparse
import json
import math
import os
import queue
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import torch
import torch.distributed as dist
from diffusers import DDIMScheduler, UNet2DModel

import evaluate as ev

SIZES = ((96, 4), (128, 2), (192, 1), (256, 1))  # crop and batch of one worker
SIZE_ODDS = (0.55, 0.2, 0.15, 0.1)  # large ones so that GroupNorm meets their statistics


def build(widths):
    return UNet2DModel(
        sample_size=None, in_channels=6 * ev.SPACE_TO_DEPTH ** 2, out_channels=3 * ev.SPACE_TO_DEPTH ** 2,
        down_block_types=("DownBlock2D",) * len(widths), up_block_types=("UpBlock2D",) * len(widths),
        block_out_channels=widths, layers_per_block=1, norm_num_groups=8, add_attention=False)


def kflop_per_pixel(model, side=64):
    """Of the convolutions, per pixel of the finished image and step (2 per multiply-add)."""
    total = 0

    def count(module, _, out):
        nonlocal total
        total += 2 * out.numel() * module.in_channels * module.kernel_size[0] ** 2
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        model(torch.zeros(1, model.config.in_channels, side, side), torch.tensor([999]))
    for hook in hooks:
        hook.remove()
    return total / (side * ev.SPACE_TO_DEPTH) ** 2 / 1000


def export(weights, model, folder):
    """Replaces the folder in one go, so that a reader never finds half of one."""
    temporary = folder.rstrip("/") + ".new"
    shutil.rmtree(temporary, ignore_errors=True)
    copy = UNet2DModel.from_config(model.config)
    copy.load_state_dict(weights)
    copy.half().save_pretrained(temporary, safe_serialization=True)
    DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing",
        clip_sample=False, set_alpha_to_one=True).save_pretrained(temporary)
    with open(os.path.join(temporary, "tilefarm.json"), "w") as f:
        json.dump({"task": "super-resolution", "scale": ev.SCALE, "space_to_depth": ev.SPACE_TO_DEPTH,
                   "residual_scale": ev.RESIDUAL_SCALE, "conditioning": "bicubic"}, f, indent=2)
    old = folder.rstrip("/") + ".old"
    shutil.rmtree(old, ignore_errors=True)
    if os.path.exists(folder):
        os.rename(folder, old)
    os.rename(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


class Pool:
    """The images in memory; `refresh` takes in files that have appeared since."""

    def __init__(self, folder):
        self.folder, self.names, self.images = folder, set(), []
        self.refresh()

    def refresh(self):
        for name in sorted(os.listdir(self.folder)):
            if name.endswith(".npy") and not name.startswith(".") and name not in self.names:
                self.names.add(name)
                self.images.append(np.load(os.path.join(self.folder, name)))

    def crop(self, rng, size):
        """A random square, sometimes reduced 2x (sharper than the lens left it), flipped,
        turned, recoloured: float32 in [0, 255], not yet rounded."""
        image = self.images[rng.integers(len(self.images))]
        factor = 2 if size <= 192 and rng.random() < 0.2 else 1
        s = size * factor
        y, x = (rng.integers(n - s + 1) for n in image.shape[:2])
        c = image[y:y + s, x:x + s].astype(np.float32)
        if factor == 2:
            c = (c[::2, ::2] + c[1::2, ::2] + c[::2, 1::2] + c[1::2, 1::2]) / 4
        if rng.random() < 0.5:
            c = c.transpose(1, 0, 2)
        c = c[::rng.choice((-1, 1)), ::rng.choice((-1, 1)), rng.permutation(3)]
        if rng.random() < 0.3:  # towards grey
            c = c + (c.mean(2, keepdims=True) - c) * rng.random()
        if rng.random() < 0.5:
            c = 255 * (np.maximum(c, 0) / 255) ** np.exp(rng.normal(0, 0.3))
        if rng.random() < 0.7:
            mean = c.mean()
            c = (c - mean) * np.exp(rng.normal(-0.15, 0.35)) + mean + rng.normal(0, 20)
        return c


def batches(pool, seed, rank):
    """Endless batches (N, 3, H, W) in [-1, 1], rounded to 8 bits as files are.  The workers
    draw equal sizes, so that none waits for the other, but different crops."""
    sizes = np.random.default_rng([seed, 1])
    rng = np.random.default_rng([seed, 2, rank])
    while True:
        size, count = SIZES[sizes.choice(len(SIZES), p=SIZE_ODDS)]
        x = np.stack([pool.crop(rng, size) for _ in range(count)])
        x = np.clip(np.round(x), 0, 255) / 127.5 - 1
        yield torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float32))


def prefetch(source, depth=4):
    """Runs a generator in a thread, so that cropping overlaps the network."""
    ready = queue.Queue(depth)

    def work():
        for item in source:
            ready.put(item)
    threading.Thread(target=work, daemon=True).start()
    while True:
        yield ready.get()


def draw_timesteps(rng, count):
    """A third at pure noise, where one-step results come from; half on the grid of 8
    trailing steps (which holds those of 2 and 4); the rest anywhere."""
    t = np.full(count, 999)
    kind = (np.arange(count) + rng.random()) / count  # stratified
    grid = np.array(ev.trailing_timesteps(8)[1:])
    t = np.where(kind > 1 / 3, rng.choice(grid, count), t)
    t = np.where(kind > 5 / 6, rng.integers(0, 1000, count), t)
    return torch.from_numpy(t)


def loss_of(model, hr, t, abar):
    guess = ev.bicubic(ev.low_resolution(hr))
    x0 = ev.to_depth(ev.RESIDUAL_SCALE * (hr - guess))
    noise = torch.randn_like(x0)
    a = abar[t].float()[:, None, None, None]
    x = a.sqrt() * x0 + (1 - a).sqrt() * noise
    target = a.sqrt() * noise - (1 - a).sqrt() * x0
    inputs = torch.cat([x, ev.to_depth(guess)], 1).contiguous(memory_format=torch.channels_last)
    v = model(inputs, t).sample
    # Half way between the error of v (weight 1) and that of x0 (weight 1 - a), in log.
    each = (v - target).square().mean((1, 2, 3))
    return (each * (1 - a[:, 0, 0, 0]).sqrt()).mean(), each.detach()


def held_out(model, images, steps=(1, 4)):
    """Mean PSNR gain over bicubic on synthetic images that are not trained on."""
    total = np.zeros(len(steps))
    for hr in images:
        lr = ev.low_resolution(hr)
        base = ev.psnr(ev.bicubic(lr), hr)
        total += [ev.psnr(ev.upscale(model, lr, n), hr) - base for n in steps]
    return " ".join(f"{n} steps {g:+.2f} dB" for n, g in zip(steps, total / len(images)))


def main():
    parser = argparse.ArgumentParser(description="Trains and exports the super-resolution model.")
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=110)
    parser.add_argument("--images", type=int, default=700, help="drawn before the training starts")
    parser.add_argument("--pool", help="a folder of images to use instead of drawing them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--widths", type=int, nargs="+", default=[48, 48, 64])
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of one thread each")
    parser.add_argument("--export-every", type=float, default=10, help="minutes")
    parser.add_argument("--photos-every", type=float, default=25, help="minutes; 0 for never")
    parser.add_argument("--init", help="start from the weights of an exported folder")
    parser.add_argument("--resume", action="store_true")
    a = parser.parse_args()

    os.makedirs(a.out, exist_ok=True)
    here = os.path.dirname(os.path.abspath(__file__))

    def draw(where, count, seed, size=512):
        subprocess.run([sys.executable, os.path.join(here, "make_images.py"), "--out", where, "--count", str(count),
                        "--seed", str(seed), "--size", str(size)], check=True)
    if not a.pool:
        a.pool = os.path.join(a.out, "pool")
        draw(a.pool, a.images, a.seed)
    draw(os.path.join(a.out, "held_out"), 8, a.seed + 1000, 256)
    # Processes, not threads: they meet once per step, not in every layer, which is
    # faster, and very much so when other programs want the same cores.
    meeting = os.path.abspath(os.path.join(a.out, ".meeting"))
    if os.path.exists(meeting):
        os.remove(meeting)
    torch.multiprocessing.spawn(work, (a, "file://" + meeting), a.workers)


def work(rank, a, meeting):
    """One of the equal workers; the first also keeps time, averages, exports and measures."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=a.workers)
    folder = os.path.join(a.out, "export")
    state_path = os.path.join(a.out, "state.pt")
    pool = Pool(a.pool)
    tests = [torch.from_numpy(i).permute(2, 0, 1)[None].float() / 127.5 - 1
             for i in Pool(os.path.join(a.out, "held_out")).images]

    torch.manual_seed(a.seed)
    model = UNet2DModel.from_pretrained(a.init, torch_dtype=torch.float32) if a.init else build(tuple(a.widths))
    if not a.init:
        torch.nn.init.zeros_(model.conv_out.weight)  # starts at v = 0, that is at the guess
    if rank == 0:
        print(f"{sum(p.numel() for p in model.parameters())} parameters, {kflop_per_pixel(model):.1f} kFLOP per pixel "
              f"and step, {len(pool.images)} images", flush=True)
    model = model.to(memory_format=torch.channels_last).train()
    average = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=a.lr, betas=(0.9, 0.99), weight_decay=0.01)
    step, spent, pixels = 0, 0.0, 0
    if a.resume and os.path.exists(state_path):
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        average = state["average"]
        optimizer.load_state_dict(state["optimizer"])
        step, spent, pixels = state["step"], state["spent"], state["pixels"]
    torch.manual_seed((a.seed + step) * 100 + rank)
    rng = np.random.default_rng([a.seed + step, 3, rank])
    abar = ev.alphas_cumprod()
    averaged = UNet2DModel.from_config(model.config).to(memory_format=torch.channels_last).eval()
    source = prefetch(batches(pool, a.seed + step, rank))
    parameters = list(model.parameters())
    means = [average[k] for k, _ in model.named_parameters()]
    if rank == 0:
        export(average, model, folder)
    dist.barrier()

    start = time.time() - spent
    exported, photographed, logged = spent, spent, time.time()
    sums = np.zeros((3, 2))
    while spent < a.minutes * 60:
        hr = next(source)
        t = draw_timesteps(rng, len(hr))
        loss, each = loss_of(model, hr, t, abar)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # One exchange per step: the gradients, and the first worker's clock.
        clock = torch.tensor([time.time() - start if rank == 0 else 0.0])
        flat = torch.cat([p.grad.reshape(-1) for p in parameters] + [clock * a.workers])
        dist.all_reduce(flat)
        flat /= a.workers
        spent = float(flat[-1])
        for p, g in zip(parameters, flat[:-1].split([p.numel() for p in parameters])):
            p.grad.copy_(g.view(p.shape))
        norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        progress = min(spent / (a.minutes * 60), 1.0)
        rate = a.lr * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        step, pixels = step + 1, pixels + hr.shape[0] * hr.shape[2] * hr.shape[3] * a.workers
        if step % 2000 == 0:
            pool.refresh()
        if rank > 0:
            continue
        torch._foreach_lerp_(means, [p.data for p in parameters], 1 - min(0.999, step / (step + 10)))
        for i, part in enumerate((t == 999, (t < 999) & (t >= 500), t < 500)):
            sums[i] += float(each[part].sum()), float(part.sum())
        if step % 100 == 0:
            per_t = " ".join(f"{s / max(n, 1):.4f}" for s, n in sums)
            print(f"{spent / 60:6.1f} min step {step} lr {rate:.1e} loss (t 999, >=500, <500) {per_t} "
                  f"norm {float(norm):.2f} {100 / (time.time() - logged):.2f} it/s", flush=True)
            sums[:], logged = 0, time.time()
        if spent - exported > a.export_every * 60:
            exported = spent
            export(average, model, folder)
            torch.save({"model": model.state_dict(), "average": average, "optimizer": optimizer.state_dict(),
                        "step": step, "spent": spent, "pixels": pixels}, state_path + ".new")
            os.replace(state_path + ".new", state_path)
            averaged.load_state_dict(average)
            report(a.out, f"{spent / 60:.1f} min, step {step}, {len(pool.images)} images; "
                          f"held out: {held_out(averaged, tests)}")
            if a.photos_every and spent - photographed > a.photos_every * 60:
                photographed = spent
                report(a.out, ev.table(ev.measure(averaged, ev.photos(), (1, 4))[0]))
            logged = time.time()

    if rank == 0:
        export(average, model, folder)
        averaged.load_state_dict(average)
        report(a.out, f"end: {spent / 60:.1f} min, {step} steps, {pixels / 1e6:.0f} Mpixel, {len(pool.images)} images; "
                      f"held out: {held_out(averaged, tests)}")
    dist.barrier()


def report(out, text):
    print(text, flush=True)
    with open(os.path.join(out, "eval.log"), "a") as f:
        f.write(text + "\n")


if __name__ == "__main__":
    main()
