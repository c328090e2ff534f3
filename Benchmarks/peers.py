#!/usr/bin/env python3
"""Times other engines on a diffusers UNet2DModel in float32, each in the ways of using the cores that may suit it best, and prints one JSON
object: seconds per tile by way, and the fastest.

    python3 -m venv v && v/bin/pip install -r requirements.txt
    v/bin/python peers.py MODEL_FOLDER [--tile 256] [--cores 2] [--seconds 5] [--rounds 1] [--engine COMMAND...]

With --engine, COMMAND (for example: tilefarm bench --model MODEL_FOLDER) is run between the peers in every round; its tiles_per_second is
set against theirs. Rounds are interleaved and the median of each way's rounds counts, so that a disturbed minute hurts all alike.
"""
import argparse, json, multiprocessing, os, pathlib, statistics, subprocess, sys, time


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("model", type=pathlib.Path)
    p.add_argument("--tile", type=int, default=256, help="side of a tile in pixels")
    p.add_argument("--cores", type=int, default=os.cpu_count())
    p.add_argument("--seconds", type=float, default=5, help="of measuring per way and round")
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--engine", nargs=argparse.REMAINDER, default=[])
    return p.parse_args()


def side(a):
    settings = a.model / "tilefarm.json"
    return a.tile // (json.loads(settings.read_text()).get("space_to_depth", 1) if settings.exists() else 1)


def rate(run, seconds, tiles_per_run=1):
    """Seconds per tile of repeated runs."""
    for _ in range(2):
        run()
    runs, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        run()
        runs += 1
    return (time.perf_counter() - start) / runs / tiles_per_run


def unet(a):
    import torch
    from diffusers import UNet2DModel
    torch.set_grad_enabled(False)
    return UNet2DModel.from_pretrained(a.model, use_safetensors=True, torch_dtype=torch.float32).eval().requires_grad_(False)


def torch_way(a, threads, batch, layout):
    import torch
    torch.set_num_threads(threads)
    layout = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    model = unet(a).to(memory_format=layout)
    x = torch.randn(batch, model.config.in_channels, side(a), side(a)).to(memory_format=layout)
    t = torch.tensor([999])
    return rate(lambda: model(x, t), a.seconds, batch)


def torch_process(a, layout, barrier, out):
    import torch
    torch.set_num_threads(1)
    barrier.wait()
    out.put(torch_way(a, 1, 1, layout))


def torch_processes(a, layout):
    """One process with one thread for each core."""
    context = multiprocessing.get_context("spawn")
    barrier, out = context.Barrier(a.cores), context.Queue()
    processes = [context.Process(target=torch_process, args=(a, layout, barrier, out)) for _ in range(a.cores)]
    for p in processes:
        p.start()
    seconds = [out.get() for _ in processes]
    for p in processes:
        p.join()
    return 1 / sum(1 / s for s in seconds)


def openvino_way(a, batch, hint, streams=None):
    import numpy, openvino, torch
    model = unet(a)

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x, t):
            return self.model(x, t, return_dict=False)[0]

    shape = (batch, model.config.in_channels, side(a), side(a))
    with torch.no_grad():
        converted = openvino.convert_model(Plain(), example_input=(torch.zeros(shape), torch.tensor([999])), input=[shape, [1]])
    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": a.cores}
    if streams:
        settings["NUM_STREAMS"] = streams
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    x, t = numpy.random.randn(*shape).astype("float32"), numpy.array([999])
    if hint == "LATENCY":
        request = compiled.create_infer_request()
        return rate(lambda: request.infer([x, t]), a.seconds, batch)
    queue = openvino.AsyncInferQueue(compiled)
    count = len(queue)

    def run():
        for _ in range(4 * count):
            queue.start_async([x, t])
        queue.wait_all()
    return rate(run, a.seconds, 4 * count * batch)


def ways(a):
    for layout in ("contiguous", "channels_last"):
        for batch in (1, 2):
            yield f"torch {layout} batch {batch}, {a.cores} threads", lambda b=batch, l=layout: torch_way(a, a.cores, b, l)
        yield f"torch {layout}, {a.cores} processes of 1 thread", lambda l=layout: torch_processes(a, l)
    for batch in (1, 2):
        yield f"openvino latency batch {batch}", lambda b=batch: openvino_way(a, b, "LATENCY")
    yield "openvino throughput", lambda: openvino_way(a, 1, "THROUGHPUT")
    yield f"openvino throughput, {a.cores} streams", lambda: openvino_way(a, 1, "THROUGHPUT", a.cores)


def alone(function, out):
    out.put(function())


def main():
    a = arguments()
    seconds, own = {}, []
    context = multiprocessing.get_context("fork")  # every way in a process of its own, so that none inherits another's threads
    for _ in range(a.rounds):
        for name, way in ways(a):
            out = context.Queue()
            process = context.Process(target=alone, args=(way, out))
            process.start()
            process.join()
            if process.exitcode == 0:
                seconds.setdefault(name, []).append(out.get())
            if a.engine:
                own.append(json.loads(subprocess.run(a.engine, check=True, capture_output=True, text=True).stdout)["tiles_per_second"])
    median = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(median, key=median.get)
    result = {"tile": a.tile, "cores": a.cores, "seconds_per_tile": median, "fastest": best, "tiles_per_second": 1 / median[best]}
    if own:
        result["engine_tiles_per_second"] = statistics.median(own)
        result["engine_over_fastest"] = result["engine_tiles_per_second"] / result["tiles_per_second"]
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
