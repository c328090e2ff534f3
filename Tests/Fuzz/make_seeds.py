"""Writes what a fuzzer starts from: Corpus/<target>/<name>, one small input of every kind there is. Python's standard library alone.

    python3 Tests/Fuzz/make_seeds.py Tests/Fuzz/Corpus

What the inputs look like stands in Targets/: messages have a byte of flags and the sizes of their frames before them, settings a byte that says of what,
PNGs one that says whether their checksums are to be made right.
"""
import hashlib
import json
import pathlib
import struct
import sys
import zlib

cases = pathlib.Path(__file__).resolve().parent.parent / "EngineTests" / "Cases"
default = cases.parents[2] / "Sources" / "Engine" / "Resources" / "DefaultModel"


# Messages: protobuf's wire format, https://protobuf.dev/programming-guides/encoding; the fields are those of farm.proto.

def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + bytes([n]))


class Fixed32(int):
    pass


class Fixed64(int):
    pass


class Double(float):
    pass


def message(**fields):
    """Fields by `f<number>`: whole numbers, floats, texts, bytes, messages, lists of them."""
    out = b""
    for name, values in fields.items():
        number = int(name[1:])
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, Fixed32):
                out += varint(number << 3 | 5) + struct.pack("<I", value)
            elif isinstance(value, Fixed64):
                out += varint(number << 3 | 1) + struct.pack("<Q", value)
            elif isinstance(value, Double):
                out += varint(number << 3 | 1) + struct.pack("<d", value)
            elif isinstance(value, int):
                out += varint(number << 3) + varint(value)
            elif isinstance(value, float):
                out += varint(number << 3 | 5) + struct.pack("<f", value)
            else:
                value = value.encode() if isinstance(value, str) else value
                out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def messages():
    version = 5
    sha = bytes(range(32))
    task = message(f1=7, f2=3, f3=20, f4=1)
    output = message(f1=48, f2=Fixed32(0xdeadbeef))
    worker = {
        "hello": (2, message(f1=Fixed64(77), f2="n3", f3="tower", f4=8, f5="avx512", f6=64 << 30, f7=16, f8=1 << 30)),
        "ready": (3, message(f1=sha, f2="bfloat16")),
        "result": (4, message(f1=task, f2=Double(0.25), f3="the prompt was cut", f4=output)),
        "results": (4, message(f1=task, f2=Double(0.25), f4=[output, message(f1=4), output])),
        "failure": (5, message(f1=task, f3="the model has no such layer")),
        "traceback": (5, message(f1=task, f3="Traceback (most recent call last):\n  \u2028\x1b[31m")),
        "returned": (5, message(f1=task, f2=b"")),
        "heartbeat": (6, message(f1=5, f2=[task, task])),
        "fetch": (7, message(f1=3, f2=5 << 20, f3=1 << 20, f4=sha)),
        "leaving": (8, message(f1="SIGTERM")),
        "unfit": (9, message(f1=sha, f2="the model in /models/own is another")),
        "missing": (10, message(f1=task, f2=[sha, sha[::-1]])),
    }
    for name, (number, body) in worker.items():
        yield f"worker-{name}", b"\x02" + message(f1=version, **{f"f{number}": body})
    frames = (48).to_bytes(3, "little")
    yield "worker-frames", b"\x04" + frames + message(f1=version, f4=worker["result"][1])
    yield "worker-frame-missing", b"\x04" + frames + message(f1=version, f4=worker["results"][1])
    yield "worker-previous", b"\x00" + message(f1=version - 1, f2=worker["hello"][1])

    files = [("config.json", 300, sha), ("unet/diffusion_pytorch_model.safetensors", 3_000_000, sha[::-1])]
    manifest = hashlib.sha256("".join(f"{n}\t{s}\t{d.hex()}\n" for n, s, d in files).encode()).digest()
    listed = [message(f1=n, f2=s, f3=d) for n, s, d in files]

    # The operations' parameters, operations.proto.
    size, rect = message(f1=300, f2=200), lambda y, x, h, w: message(f1=y, f2=x, f3=h, f4=w)
    coefficients = message(f1=0.5, f2=-0.25, f3=message(f1=1.0), f4=1.5, f5=0.5, f6=0.25, f7=0.125)
    enlargement = message(f1=message(f1=75, f2=50), f2=size, f3=rect(1, 2, 20, 20))
    tile = lambda answer, element=0: message(
        f1=size, f2=rect(8, 16, 64, 64), f3=rect(16, 24, 40, 48), f4=3, f5=499.0, f6=coefficients, f7=3, f8=1, f9=Fixed64(9), f10=answer, f11=element)
    frame, blob, noise = message(f1=b""), message(f2=sha), message(f3=Fixed32(1 << 24 | 1 << 16))
    latents = lambda scale, **more: message(f1=tile(1), f2=77, f3=8, f4=scale, **more)
    tasks = {
        "first": ("denoise-pixels", message(f1=tile(1), f2=enlargement), [noise, frame]),
        "cell": ("denoise-pixels", message(f1=tile(1), f2=enlargement), [frame, frame]),
        "halves": ("denoise-pixels", message(f1=tile(2, 1), f2=enlargement), [frame, frame]),
        "element": ("denoise-pixels", message(f1=tile(1, 2), f2=enlargement), [frame, frame]),
        "guided": ("denoise-latents", latents(7.5), [frame, blob, blob]),
        "noised": ("denoise-latents", latents(7.5, f5=message(f1=20)), [frame, blob, frame, frame]),
        "plain": ("denoise-latents", latents(1.0), [frame, blob]),
        "text": ("encode-text", message(f1=12, f2=77, f3=32, f4=1), [frame]),
        "unknown": ("enhance", message(f1=1), [frame]),
        "source": ("encode-text", message(f1=12, f2=77, f3=32), [message(f3=Fixed32(9 << 24))]),
    }
    autoencode = dict(f3=message(f1=60, f2=40), f4=rect(0, 8, 32, 32), f5=rect(4, 12, 24, 20), f6=8, f7=4, f8=32, f9=8)
    for layers in range(3):
        more = dict(f13=enlargement) if layers != 1 else {}
        ending = dict(f14=Fixed64(5), f15=1, f16=0.5, f17=0.25)
        tasks[f"encode-{layers}"] = ("autoencode", message(f1=1, f2=layers, **autoencode, **more, **ending), [frame])
        sums = dict(f10=3, f11=2, f12=4)
        tasks[f"decode-{layers}"] = ("autoencode", message(f1=2, f2=layers, **autoencode, **sums), [blob, frame])
    coordinator = {
        "welcome": (2, message(f1=Fixed64(77), f2="avx512", f3=500, f4=5000)),
        "refused": (3, message(f1="this farm takes kernels avx2 only")),
        "chunk": (5, message(f1=1, f2=1 << 20, f3=300, f4=sha)),
        "heartbeat": (6, b""),
        "introduce": (7, b""),
        "stop": (8, message(f1="finished")),
        "prepare": (9, message(f1=manifest, f2=listed, f3="bfloat16")),
        "release": (10, message(f1=manifest)),
        "blob": (11, message(f1=sha, f2=300)),
    }
    for name, (operation, parameters, sources) in tasks.items():
        coordinator[name] = (4, message(f1=task, f2=sha, f3=operation, f4=parameters, f5=sources))
    for name, (number, body) in coordinator.items():
        yield f"coordinator-{name}", b"\x03" + message(f1=version, **{f"f{number}": body})


# Files

def safetensors():
    def file(header, data=b""):
        text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
        return struct.pack("<Q", len(text)) + text + data

    sizes = dict(F64=8, F32=4, F16=2, BF16=2, F8_E4M3=1, F8_E5M2=1, I64=8, I32=4, I16=2, I8=1, U64=8, U32=4, U16=2, U8=1, BOOL=1)
    for name, size in sizes.items():
        yield name, file({"a": {"dtype": name, "shape": [2, 3], "data_offsets": [0, 6 * size]}}, bytes(range(6 * size)))
    yield "none", file({})
    yield "metadata", file({"__metadata__": {"format": "pt"}, "é\n": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, bytes(4))
    yield "empty-tensor", file({"a": {"dtype": "F32", "shape": [3, 0, 9], "data_offsets": [0, 0]}})
    two = {"a": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]}, "b": {"dtype": "U32", "shape": [1], "data_offsets": [0, 4]}}
    yield "two", file(two, bytes(8))
    yield "numbers", file(b'{"a":{"dtype":"U8","shape":[1e0,-2,9223372036854775807],"data_offsets":[0,0.5]},"b":[true,null,"\\u00e9\\ud83d\\ude00"]}')


def settings():
    def model(path):
        text = json.dumps(json.loads((cases / path).read_text()), separators=(",", ":"))
        return text.encode()

    yield "unet2d", b"\x00" + model("unet2d-sr/model/config.json")
    yield "unet2d-ddpm", b"\x00" + model("unet2d-ddpm-cifar/model/config.json")
    for name in ["unet-one-level/model", "unet-four-levels/model", "pipeline-upscale/model/unet"]:
        yield f"condition-{name.split('/')[0]}", b"\x01" + model(name + "/config.json")
    for name in ["vae-bare/model", "vae-old-names/model", "pipeline-upscale/model/vae"]:
        yield f"vae-{name.split('/')[0]}", b"\x02" + model(name + "/config.json")
    yield "text", b"\x03" + model("pipeline-img2img/model/text_encoder/config.json")
    documents = [(default / name).read_bytes() for name in ["config.json", "scheduler_config.json", "tilefarm.json"]]
    yield "folder", b"\x04" + b"\0".join(json.dumps(json.loads(d), separators=(",", ":")).encode() for d in documents) + b"\0x"
    names = [chr(c) for c in list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256)) + list(range(256, 324))]
    vocabulary = names + [n + "</w>" for n in names] + ["ca", "cas</w>", "<|startoftext|>", "<|endoftext|>"]
    tokens = json.dumps({n: i for i, n in enumerate(vocabulary)}, ensure_ascii=False, separators=(",", ":")).encode()
    config = (cases / "tokenizer/model/tokenizer_config.json").read_bytes()
    special = (cases / "tokenizer/model/special_tokens_map.json").read_bytes()
    yield "tokenizer", b"\x05" + b"\0".join([tokens, b"#version: 0.2\nc a\nca s</w>\n", config, special, b""])
    few = {n: i for i, n in enumerate(["a", "a</w>", "<|startoftext|>", "<|endoftext|>"])}
    yield "tokenizer-small", b"\x05" + b"\0".join([json.dumps(few).encode(), b"a a</w>", b"{}", b"{}", b'{"<x>":9}'])


def png():
    def chunk(name, data=b""):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def file(color, depth, interlaced=0, extra=b"", width=5, height=3, level=0, filtered=True):
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)] if interlaced else [(0, 0, 1, 1)]
        rows = b""
        for x, y, dx, dy in passes:
            columns = len(range(x, width, dx))
            for row in range(y, height, dy):
                if columns:
                    count = (columns * channels * depth + 7) // 8
                    rows += bytes([row % 5 if filtered else 0]) + bytes((17 * row + 3 * i) % 256 for i in range(count))
        head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
        palette = chunk(b"PLTE", bytes(3 * i % 256 for i in range(3 * min(1 << depth, 16)))) if color == 3 else b""
        # Level 0 leaves the bytes as they are, for the fuzzer to change.
        return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + extra + chunk(b"IDAT", zlib.compress(rows, level)) + chunk(b"IEND"))

    for color, depths in {0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16]}.items():
        for depth in depths:
            for interlaced in [0, 1]:
                yield f"{color}-{depth}-{interlaced}", b"\x01" + file(color, depth, interlaced)
    yield "compressed", b"\x01" + file(2, 8, level=9, width=40, height=40)
    yield "grey-clear", b"\x01" + file(0, 8, extra=chunk(b"tRNS", b"\0\x11"))
    yield "rgb-clear", b"\x01" + file(2, 16, extra=chunk(b"tRNS", b"\0\x11\0\x14\0\x17"))
    yield "palette-clear", b"\x01" + file(3, 4, extra=chunk(b"tRNS", b"\0\x80\xff"))
    notes = [(b"gAMA", struct.pack(">I", 45455)), (b"sRGB", b"\0"), (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
             (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)), (b"bKGD", b"\0\0\0\0\0\0"), (b"sBIT", b"\5\6\5"), (b"tIME", b"\x07\xe9\1\1\1\1\1"),
             (b"tEXt", b"Title\0A castle"), (b"zTXt", b"Note\0\0" + zlib.compress(b"rain")),
             (b"iTXt", b"Note\0\1\0en\0Note\0" + zlib.compress(b"rain")), (b"iCCP", b"sRGB\0\0" + zlib.compress(bytes(132))),
             (b"hIST", b"\0\1"), (b"sPLT", b"p\0\x08" + bytes(6)), (b"eXIf", b"MM\0*"), (b"oFFs", bytes(9)), (b"sCAL", b"\x011\0002")]
    for name, data in notes:
        yield name.decode(), b"\x01" + file(2, 8, extra=chunk(name, data))
    yield "unrepaired", b"\x00" + file(2, 8)


for target in [messages, safetensors, settings, png]:
    folder = pathlib.Path(sys.argv[1]) / target.__name__
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in target():
        (folder / name).write_bytes(data)
