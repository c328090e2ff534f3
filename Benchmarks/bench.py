#!/usr/bin/env python3
"""Prints one JSON object with every figure of speed and memory that the project keeps.

    make bench            (or: python3 Benchmarks/bench.py [--bin .build/release] [--seconds 5])

denoiser      the bare network on random input, all lanes busy and one alone
coordinator   what a tile costs the coordinator with a worker that answers at once, and how many pass in a second
farm          a real render, beside the bare network on the same lanes in the same run: `efficiency` is its tiles per second over the
              mean of the bare network's just before and just after, the median over the turns
scheduling    the simulator's efficiencies (docs/scheduling.md), its time for 10,000 workers, and the pace of three real workers of speeds
              1 : 1 : 0.3 with and without a barrier between steps
ceiling       one coordinator and one process with 1 to 1,000 connections that answers everything at once, over TCP on the loopback: windows go
              out and come back whole, 80x80x3 float32 (1.17 times the bytes of 64x64x4), then 64x64x4 latents, then large ones
memory        the coordinator's peak for 8192x8192 pixels of output, with a worker that answers at once

Absolute figures belong to the machine and the moment; ratios can be compared. Needs nothing but Python. The comparison
with PyTorch and OpenVINO is peers.py, which needs them.
"""

import argparse
import json
import os
import socket
import statistics
import struct
import subprocess
import tempfile
import zlib


def write_png(path, width, height):
    """A picture with some detail everywhere; plain enough to need no library."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        rows += bytes((x * 7 + y * 3 + (x * y >> 4) + c * 40) & 255 for x in range(width) for c in range(3))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
                + chunk(b"IDAT", zlib.compress(bytes(rows), 1)) + chunk(b"IEND", b""))


def number(text):
    """The leading number of a fact such as 17.8/s or 105MiB."""
    return float("".join(c for c in text if c.isdigit() or c == "."))


def upscale(tilefarm, source, target, *options):
    """Renders, and returns the facts of the log's last line."""
    done = subprocess.run([tilefarm, "upscale", source, "-o", target, "--log-format", "json", *options],
                          check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    facts = [json.loads(line) for line in done.stderr.splitlines()]
    return next(f for f in facts if f["message"] == "job finished")


def bench(tilefarm, lanes, seconds):
    return json.loads(subprocess.run([tilefarm, "bench", "--lanes", str(lanes), "--seconds", str(seconds)],
                                     check=True, stdout=subprocess.PIPE, text=True).stdout)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def unequal(binaries, source, target, *options, lanes=8, seconds=(0.3, 0.3, 1.0)):
    """Tiles a second of workers whose answers take so many seconds each and no processor."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    workers = [subprocess.Popen([os.path.join(binaries, "tilefarm-worker"), "--connect", endpoint, "--lanes", str(lanes), "--name", f"w{i}",
                                 "--echo-seconds", str(s), "--log-level", "error"]) for i, s in enumerate(seconds)]
    try:
        return number(upscale(os.path.join(binaries, "tilefarm"), source, target, "--steps", "8", "--bind", endpoint, *options)["rate"])
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()


def scheduling(binaries, folder):
    def simulate(*options):
        return json.loads(subprocess.run([os.path.join(binaries, "tilefarm"), "simulate", *options],
                                         check=True, stdout=subprocess.PIPE, text=True).stdout)

    plain = ["--steps", "50", "--prefetch", "0", "--copies", "1"]
    mixed = ["--mix", "1,1,1,3"]
    rows = {}
    for name, options in (("8x8, 50 equal", ["--grid", "8"]), ("16x16, 50 mixed", ["--grid", "16", *mixed]),
                          ("61x61, 1000 mixed", ["--grid", "61", "--workers", "1000", *mixed])):
        run, real = simulate(*options, *plain), simulate(*options, "--steps", "50")
        rows[name] = {kind: run[kind]["result"]["efficiency"] for kind in ("barrier", "dataflow")}
        rows[name]["as_built"] = {kind: real[kind]["result"]["efficiency"] for kind in ("barrier", "dataflow")}
    many = simulate("--grid", "61", "--steps", "200", "--workers", "10000", *mixed, "--failing", "0.01", "--only-dataflow")["dataflow"]

    source, target = os.path.join(folder, "unequal.png"), os.path.join(folder, "out.png")
    write_png(source, 448, 448)  # 8x8 tiles and, as cut lines move, up to 9x9
    rates = {name: unequal(binaries, source, target, *options) for name, options in (
        ("barrier", ["--barrier", "--copies", "1"]), ("dataflow", ["--copies", "1"]),
        ("barrier_with_second_copies", ["--barrier"]), ("dataflow_with_second_copies", []))}
    return {
        "simulated_efficiency": rows,
        "ten_thousand_workers": {"cpu_seconds": many["cpuSeconds"], "finished": many["result"]["finished"], "repeated": many["result"]["repeated"]},
        "unequal_workers": {
            "tiles_per_second": rates,
            "dataflow_over_barrier": rates["dataflow"] / rates["barrier"],
            "dataflow_over_barrier_both_with_second_copies": rates["dataflow_with_second_copies"] / rates["barrier_with_second_copies"],
        },
    }


def ceiling(binaries, folder):
    def run(connections, source, *options, lanes=1):
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        swarm = subprocess.Popen([os.path.join(binaries, "tilefarm-worker"), "--connect", endpoint, "--echo", "--connections", str(connections),
                                  "--lanes", str(lanes), "--log-level", "error"])
        try:
            # Without halo and with cut lines that stay, what goes out and what comes back are whole windows.
            facts = upscale(os.path.join(binaries, "tilefarm"), source, os.path.join(folder, "out.png"), "--bind", endpoint,
                            "--halo", "0", "--offset", "none", *options)
        finally:
            swarm.terminate()
            swarm.wait()
        return {
            "tiles_per_second": number(facts["rate"]),
            "gigabytes_per_second": (number(facts["sent"]) + number(facts["received"])) / number(facts["elapsed"]) / 1e9,
            "cpu_microseconds_per_tile": number(facts["cpu_per_tile"]),
            "of_which_copying_tiles": number(facts["copy_per_tile"]),
        }

    small, large = os.path.join(folder, "ceiling.png"), os.path.join(folder, "ceiling-large.png")
    write_png(small, 800, 800)  # 40x40 tiles of 80 pixels
    write_png(large, 1024, 1024)  # 16x16 tiles of 256 pixels, or 8x8 of 64 latents
    tiles = ("--tile", "80", "--steps")
    model = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Tests", "EngineTests", "Cases", "pipeline-img2img", "model")
    return {
        "1 connection": run(1, small, *tiles, "10"),
        "1 connection of 16 lanes": run(1, small, *tiles, "40", lanes=16),
        **{f"{n} connections": run(n, small, *tiles, "40") for n in (10, 100, 1000)},
        **{f"{n} connections, 64x64x4 latents": run(n, large, "--model", model, "--guidance-scale", "1", "--strength", "1", "--steps", "800") for n in (10, 1000)},
        **{f"{n} connections, 128x128x3": run(n, large, "--tile", "128", "--steps", "40") for n in (10, 1000)},
        "10 connections, 256x256x3": run(10, large, "--tile", "256", "--steps", "20"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=".build/release")
    parser.add_argument("--seconds", type=float, default=5, help="for each measurement of the bare network")
    parser.add_argument("--turns", type=int, default=3, help="of farm and bare network")
    arguments = parser.parse_args()
    tilefarm = os.path.join(arguments.bin, "tilefarm")
    lanes = len(os.sched_getaffinity(0))

    with tempfile.TemporaryDirectory() as folder:
        small, large, output = (os.path.join(folder, name) for name in ("small.png", "large.png", "out.png"))
        write_png(small, 512, 512)
        write_png(large, 2048, 2048)

        alone = bench(tilefarm, 1, arguments.seconds)
        bare, farm = [bench(tilefarm, lanes, arguments.seconds)], []
        for _ in range(arguments.turns):
            farm.append(upscale(tilefarm, small, output, "--steps", "8"))
            bare.append(bench(tilefarm, lanes, arguments.seconds))
        busy = sorted(bare, key=lambda b: b["tiles_per_second"])[len(bare) // 2]

        echo = [upscale(tilefarm, small, output, "--steps", "8", "--echo") for _ in range(3)]
        memory = upscale(tilefarm, large, output, "--steps", "2", "--echo")
        schedules = scheduling(arguments.bin, folder)
        ceilings = ceiling(arguments.bin, folder)

    def median(facts, key):
        return statistics.median(number(f[key]) for f in facts)
    result = {
        "lanes": lanes,
        "denoiser": {
            "kernels": busy["kernels"], "tile": busy["tile"],
            "tiles_per_second_per_lane": busy["tiles_per_second"] / lanes,
            "mflops_per_lane": busy["gflops"] * 1000 / lanes,
            "tiles_per_second": busy["tiles_per_second"],
            "one_lane_alone": {"tiles_per_second": alone["tiles_per_second"], "mflops": alone["gflops"] * 1000},
            "peak_memory_bytes": busy["peak_memory_bytes"],
        },
        "coordinator": {
            "cpu_microseconds_per_tile": median(echo, "cpu_per_tile"),
            "of_which_copying_tiles": median(echo, "copy_per_tile"),
            "beyond_copying": statistics.median(number(f["cpu_per_tile"]) - number(f["copy_per_tile"]) for f in echo),
            "tiles_per_second": median(echo, "rate"),
        },
        "farm": {
            "tiles_per_second": median(farm, "rate"),
            "efficiency": statistics.median(
                2 * number(f["rate"]) / (before["tiles_per_second"] + after["tiles_per_second"])
                for f, before, after in zip(farm, bare, bare[1:])),
        },
        "scheduling": schedules,
        "ceiling": ceilings,
        "memory": {"coordinator_peak_bytes_at_8192x8192": int(number(memory["peak_memory"])) << 20},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
