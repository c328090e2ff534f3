#!/usr/bin/env python3
"""Times the parts of Stable Diffusion 2.1 at their real sizes, with random weights, in PyTorch, OpenVINO and the engine, and prints one JSON object.

    python3 -m venv v && v/bin/pip install -r requirements.txt
    v/bin/python stable_diffusion.py FOLDER [--engine PROGRAM] [--parts unet vae text] [--precisions float32 bfloat16] [--rounds 3] [--small]

FOLDER receives what it lacks: in model/ a whole pipeline (5 GB) as a user would download it, with a tokenizer of its own making; besides, for each part a
reference case (case-PART, as `tilefarm verify` takes it) with PyTorch's float32 answer, and OpenVINO's own files (5 GB). With --small the networks are made
with few channels, which takes seconds: to try this program, not to measure anything.

The parts are the U-Net (865.9 million parameters, 804 GFLOP) on one tile of 64x64 latents with 77 tokens, the decoder of the VAE (2,515 GFLOP) on 64x64 latents, and the
text encoder on 77 tokens. A way is an engine at a precision, in one of the manners of using the cores that may suit it best; with two streams, two tiles
are under way at a time. Every way runs in a process of its own, none beside another, in turns for `--rounds` rounds. A figure is seconds per tile, the
median of the rounds. Errors are those of a single tile's answer, against PyTorch's in float32: `max` is the largest difference over the largest value, `rms` is the same of
root mean squares.

With --engine, `PROGRAM bench --model FOLDER/model --part PART --precision P` runs in turn with the others; it prints an object with
tiles_per_second. Its errors are what `PROGRAM verify FOLDER/case-PART` is for.
"""
import argparse, itertools, json, os, pathlib, statistics, subprocess, sys, time

PARTS = ("unet", "vae", "text")
TILE = 64  # side in latents


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    p.add_argument("--precisions", nargs="+", default=("float32", "bfloat16"), help="of the engine")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--cores", type=int, default=os.cpu_count())
    p.add_argument("--seconds", type=float, default=8, help="of measuring per way and round, but at least two runs")
    p.add_argument("--only", nargs="+", default=[""], metavar="WORDS", help="the ways whose name has one of these in it, for example 'OpenVINO float32'")
    p.add_argument("--engine", help="the tilefarm program")
    p.add_argument("--small", action="store_true", help="make small networks")
    p.add_argument("--way", nargs=2, metavar=("PART", "WAY"), help=argparse.SUPPRESS)
    return p.parse_args()


# MARK: models and cases

def model_folder(a, part):
    return a.folder / "model" / {"unet": "unet", "vae": "vae", "text": "text_encoder"}[part]


VOCABULARY = 49408  # tokens
PARTS_OF_PIPELINE = {
    "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
NONE = ("feature_extractor", "image_encoder", "safety_checker")


def write_json(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def byte_names():
    """GPT-2's names of the 256 bytes, in the order of CLIP's vocabulary."""
    visible = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    return [chr(byte) for byte in visible] + [chr(0x100 + n) for n in range(256 - len(visible))]


def invented_merges():
    """Pairs of tokens and single letters: those of two letters first, then of three, and so on; each makes a token that no other makes."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = list(letters)
    while True:
        yield from ((word, letter + end) for end in ("", "</w>") for word in words for letter in letters)
        words = [word + letter for word in words for letter in letters]


def make_tokenizer(folder, vocabulary):
    """A tokenizer of so many tokens, with the files of Stable Diffusion 2 and words of nobody's."""
    tokens = [name + end for end in ("", "</w>") for name in byte_names()]
    merges = list(itertools.islice(invented_merges(), vocabulary - len(tokens) - 2))
    tokens += [a + b for a, b in merges] + ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(tokens)) == vocabulary
    write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")

    def token(content):
        return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {"bos_token": token("<|startoftext|>"), "eos_token": token("<|endoftext|>"), "pad_token": "!", "unk_token": token("<|endoftext|>")}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", special | {
        "add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"})


def make_frame(folder, vocabulary=VOCABULARY):
    """All of a pipeline's folder but the networks: what they are, how they were trained, and the tokenizer."""
    make_tokenizer(folder / "tokenizer", vocabulary)
    write_json(folder / "scheduler" / "scheduler_config.json", {
        "_class_name": "DDIMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False,
        "num_train_timesteps": 1000, "prediction_type": "v_prediction", "set_alpha_to_one": False, "steps_offset": 1, "trained_betas": None})
    # Last: without it the folder is no pipeline, and is made anew.
    write_json(folder / "model_index.json", {
        "_class_name": "StableDiffusionPipeline", **PARTS_OF_PIPELINE, **{name: [None, None] for name in NONE}, "requires_safety_checker": False})


def make_network(folder, part, small):
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel
    torch.manual_seed(21)
    width = 64 if small else 1024  # of the text
    if part == "unet":
        model = UNet2DConditionModel(
            sample_size=96, in_channels=4, out_channels=4, block_out_channels=(32, 64, 64, 64) if small else (320, 640, 1280, 1280), layers_per_block=2,
            cross_attention_dim=width, attention_head_dim=(1, 2, 2, 2) if small else (5, 10, 20, 20), use_linear_projection=True)
    elif part == "vae":
        model = AutoencoderKL(
            in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32, 64, 64) if small else (128, 256, 512, 512), layers_per_block=2,
            sample_size=768, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    else:
        model = CLIPTextModel(CLIPTextConfig(
            vocab_size=VOCABULARY, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2 if small else 23, num_attention_heads=width // 64,
            hidden_act="gelu", bos_token_id=VOCABULARY - 2, eos_token_id=VOCABULARY - 1))
    # Under another name until it is whole.
    half = folder.with_name(folder.name + ".part")
    model.save_pretrained(half)
    half.rename(folder)


def make_pipeline(a):
    """What the pipeline's folder lacks."""
    for part in PARTS:
        if not model_folder(a, part).exists():
            make_network(model_folder(a, part), part, a.small)
    make_frame(a.folder / "model")
    return {}


def torch_model(a, part):
    """A function from tensors to the tensor that counts, and those tensors, in float32."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel
    torch.set_grad_enabled(False)
    folder = model_folder(a, part)
    generator = torch.Generator().manual_seed(22)
    if part == "unet":
        model = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)
        inputs = {"in.0.sample": torch.randn(1, 4, TILE, TILE, generator=generator), "in.0.timestep": torch.tensor([601]),
                  "in.0.encoder_hidden_states": torch.randn(1, 77, model.config.cross_attention_dim, generator=generator)}
        call = lambda x, t, c: model(x, t, c, return_dict=False)[0]
    elif part == "vae":
        model = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
        del model.encoder, model.quant_conv
        inputs = {"in.latent": torch.randn(1, 4, TILE, TILE, generator=generator)}
        call = lambda z: model.decode(z, return_dict=False)[0]
    else:
        model = CLIPTextModel.from_pretrained(folder, torch_dtype=torch.float32)
        ids = torch.randint(0, 49406, (1, 77), generator=generator)
        ids[0, 0], ids[0, 60:] = 49406, 49407
        inputs = {"in.ids": ids}
        call = lambda ids: model(ids, return_dict=False)[0]
    return model.eval().requires_grad_(False), call, inputs


ANSWERS = {"unet": "out.0.sample", "vae": "out.image", "text": "out.last_hidden_state"}


def make_case(a, part):
    import torch
    from safetensors.torch import save_file
    torch.set_num_threads(a.cores)
    _, call, inputs = torch_model(a, part)
    folder = a.folder / f"case-{part}"
    folder.mkdir(exist_ok=True)
    (folder / "model").unlink(missing_ok=True)
    (folder / "model").symlink_to(model_folder(a, part).resolve())
    (folder / "case.json").write_text(json.dumps({"about": f"{part} of Stable Diffusion 2.1, random weights", "tolerance": 1e-3}) + "\n")
    save_file({**inputs, ANSWERS[part]: call(*inputs.values()).contiguous()}, str(folder / "case.safetensors"))
    return {}


def case(a, part):
    """Inputs in the order of the call, and the answer."""
    from safetensors.torch import load_file
    tensors = load_file(str(a.folder / f"case-{part}" / "case.safetensors"))
    names = {"unet": ("in.0.sample", "in.0.timestep", "in.0.encoder_hidden_states"), "vae": ("in.latent",), "text": ("in.ids",)}[part]
    return [tensors[n] for n in names], tensors[ANSWERS[part]].numpy()


# MARK: ways

def measure(run, seconds, tiles_per_run=1):
    """Seconds per tile of repeated runs, after one that does not count."""
    run()
    times = []
    while len(times) < 2 or sum(times) < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) / tiles_per_run


def errors(answer, reference):
    import numpy
    difference = answer.astype("float64") - reference
    return {"max_error": float(abs(difference).max() / abs(reference).max()),
            "rms_error": float(numpy.sqrt((difference ** 2).mean() / (reference.astype("float64") ** 2).mean()))}


def torch_way(a, part, precision, layout):
    import torch
    torch.set_num_threads(a.cores)
    inputs, reference = case(a, part)
    model, call, _ = torch_model(a, part)
    dtype = getattr(torch, precision)
    layout = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    model.to(dtype=dtype, memory_format=layout)
    inputs = [i.to(dtype) if i.is_floating_point() else i for i in inputs]
    inputs = [i.to(memory_format=layout) if i.ndim == 4 else i for i in inputs]
    return errors(call(*inputs).float().numpy(), reference) | {"seconds_per_tile": measure(lambda: call(*inputs), a.seconds)}


def openvino_way(a, part, precision, streams):
    import openvino
    inputs, reference = case(a, part)
    file = a.folder / "openvino" / f"{part}.xml"
    if not file.exists():
        import torch
        model, call, _ = torch_model(a, part)

        class Plain(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, *inputs):
                return call(*inputs)
        converted = openvino.convert_model(Plain(), example_input=tuple(inputs), input=[list(i.shape) for i in inputs])
        file.parent.mkdir(exist_ok=True)
        openvino.save_model(converted, file, compress_to_fp16=False)
        del converted, model, call
        os.execv(sys.executable, [sys.executable, *sys.argv])  # what the conversion took is in nobody's way
    compiled = openvino.Core().compile_model(file, "CPU", {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision], "INFERENCE_NUM_THREADS": a.cores,
        "NUM_STREAMS": streams, "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT"})
    inputs = [i.numpy() for i in inputs]
    queue = openvino.AsyncInferQueue(compiled, streams)

    def run():
        for _ in range(streams):
            queue.start_async(inputs)
        queue.wait_all()
    result = {"seconds_per_tile": measure(run, a.seconds, streams)}
    return errors(queue[0].get_output_tensor(0).data.copy(), reference) | result


def peers(a, part):
    for precision in ("float32", "bfloat16"):
        for layout in ("contiguous", "channels_last") if part != "text" else ("contiguous",):
            yield f"PyTorch {precision}, {layout}", lambda p=precision, l=layout: torch_way(a, part, p, l)
        for streams in (1, a.cores) if a.cores > 1 else (1,):
            yield (f"OpenVINO {precision}, {streams} stream{'s' * (streams > 1)}", lambda p=precision, s=streams: openvino_way(a, part, p, s))


def engine(a, part, precision):
    """Its lanes each have a tile."""
    command = [a.engine, "bench", "--model", a.folder / "model", "--part", part, "--precision", precision]
    answer = json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {"seconds_per_tile": 1 / answer["tiles_per_second"]} | {k: answer[k] for k in ("kernels", "peak_memory_bytes") if k in answer}


def alone(a, part, name):
    """One measurement, in a process of its own."""
    command = [sys.executable, __file__, a.folder, "--cores", a.cores, "--seconds", a.seconds, "--way", part, name] + ["--small"] * a.small
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr[-2000:])
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measured(a, part):
    ways = {name: (lambda n=name: alone(a, part, n)) for name, _ in peers(a, part)}
    if a.engine:
        ways |= {f"engine {p}": (lambda p=p: engine(a, part, p)) for p in a.precisions}
    ways = {name: way for name, way in ways.items() if any(words in name for words in a.only)}
    rounds = {name: [] for name in ways}
    for number in range(a.rounds):
        for name, way in ways.items():
            result = way()
            if result:
                rounds[name].append(result)
                print(f"{part}, round {number + 1}, {name}: {result['seconds_per_tile']:.3f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    table = {name: results[-1] | {"seconds_per_tile": statistics.median(r["seconds_per_tile"] for r in results),
                                  "rounds": [round(r["seconds_per_tile"], 4) for r in results]} for name, results in rounds.items() if results}

    def best(*words):
        found = [n for n in table if all(w in n for w in words)]
        return min(found, key=lambda n: table[n]["seconds_per_tile"]) if found else None
    ratios = {}
    for own in (n for n in table if n.startswith("engine")):
        precision = "float32" if "float32" in own else "bfloat16"
        for peer in (best("OpenVINO", precision), best("PyTorch", precision), best("OpenVINO"), best("PyTorch")):
            if peer:
                ratios[f"{own} over {peer}"] = table[peer]["seconds_per_tile"] / table[own]["seconds_per_tile"]
    return {"ways": table, "fastest peers": {f"{e} {p}": best(e, p) for e in ("PyTorch", "OpenVINO") for p in ("float32", "bfloat16")},
            "speed of the engine over peers": ratios}


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def main():
    a = arguments()
    if a.way:
        part, name = a.way
        makers = {"pipeline": lambda: make_pipeline(a), "case": lambda: make_case(a, part)}
        print(json.dumps((makers | dict(peers(a, part)))[name]()))
        return
    a.folder.mkdir(parents=True, exist_ok=True)
    if not (a.folder / "model" / "model_index.json").exists() and alone(a, "unet", "pipeline") is None:
        raise SystemExit(f"{a.folder}: the models could not be made")
    result = {"processor": processor(), "cores": a.cores, "parts": {}}
    for part in a.parts:
        if not (a.folder / f"case-{part}" / "case.safetensors").exists() and alone(a, part, "case") is None:
            raise SystemExit(f"{part}: PyTorch gave no answer to compare with")
        result["parts"][part] = measured(a, part)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
