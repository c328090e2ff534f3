"""Synthetic training images ("dead leaves"), so that no photograph is needed.

Opaque shapes of power-law sizes that hide one another have nearly the local
statistics of photographs: sharp occlusion edges, scale invariance, a 1/f
spectrum.  What plain discs lack is added here: textures inside the shapes,
hair and fur, lettering, regular patterns, shading, defocus by depth, and a lens
that is rarely perfectly sharp.  All of it follows from one seed.

    python make_images.py --out pool --count 700 --seed 1

writes pool/NNNNN.npy (uint8, size x size x 3).  A trainer may read the folder
while it still grows: every file appears complete, under its final name.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np

SUPERSAMPLING = 2  # rendered this much larger and reduced: antialiased edges
TEXTURE_SIZE = 1024


def spectral_noise(rng, exponent, size=TEXTURE_SIZE, angle=None, stretch=1.0):
    """Periodic 1/f^exponent noise, unit deviation; stretched along an angle if given."""
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    if angle is not None:
        c, s = np.cos(angle), np.sin(angle)
        fy, fx = (-s * fx + c * fy), (c * fx + s * fy) * stretch
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)).astype(np.float32))
    spectrum *= radius ** -exponent
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size, size)).astype(np.float32)
    return noise / noise.std()


def texture_bank(rng):
    """A few textures that all shapes of an image (and process) share by random crops."""
    bank = [spectral_noise(rng, a) for a in (0.3, 0.7, 1.0, 1.3, 1.6, 2.0)]
    for _ in range(6):
        bank.append(spectral_noise(rng, rng.uniform(0.5, 1.6), angle=rng.uniform(0, np.pi),
                                   stretch=rng.uniform(3, 12)))
    # Ridges and blotches: nonlinear functions of noise have edges, plain noise has none.
    bank.append(np.abs(spectral_noise(rng, 1.4)) * 1.6 - 1.3)
    bank.append(np.tanh(4 * spectral_noise(rng, 1.6)))
    bank.append(np.tanh(6 * spectral_noise(rng, 1.2) - 6) + 0.7)
    return bank


def palette(rng):
    """Colours as in one scene: a few hues, mostly little saturation, shared light."""
    light = 1 + rng.normal(0, 0.08, 3)
    count = rng.integers(3, 9)
    luma = rng.beta(1.2, 1.4, count)
    saturation = rng.beta(1.1, 5, count) if rng.random() < 0.85 else rng.beta(2, 2, count)
    hue = rng.normal(rng.uniform(0, 1), rng.choice([0.05, 0.3]), count) % 1
    hsv = np.stack([hue * 360, saturation, luma], -1).astype(np.float32)[None]
    return np.clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0] * light, 0, 1).astype(np.float32)


def pick_colour(rng, colours, jitter=0.05):
    base = colours[rng.integers(len(colours))]
    return base * (1 + rng.normal(0, 3 * jitter)) + rng.normal(0, jitter) + rng.normal(0, 0.015, 3)


def outline(rng, radius):
    """Vertices of one shape around the origin."""
    kind = rng.choice(5, p=[0.25, 0.2, 0.25, 0.2, 0.1])
    turn = rng.uniform(0, 2 * np.pi)
    if kind <= 1:  # disc, ellipse
        aspect = 1.0 if kind == 0 else rng.uniform(0.15, 0.9)
        a = np.linspace(0, 2 * np.pi, int(np.clip(radius, 10, 96)), endpoint=False)
        p = np.stack([np.cos(a), aspect * np.sin(a)], -1)
    elif kind == 2:  # polygon
        a = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        p = np.stack([np.cos(a), np.sin(a)], -1) * rng.uniform(0.5, 1.2, (len(a), 1))
    elif kind == 3:  # rectangle, often a thin bar
        h = rng.uniform(0.03, 1) ** 1.5
        p = np.array([[-1, -h], [1, -h], [1, h], [-1, h]])
        if rng.random() < 0.4:
            turn = rng.normal(0, 0.05) + rng.integers(4) * np.pi / 2
    else:  # smooth blob
        a = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        r = 1 + sum(rng.normal(0, 0.5 / k) * np.sin(k * a + rng.uniform(0, 6.3)) for k in (2, 3, 4, 5, 7))
        p = np.stack([np.cos(a), np.sin(a)], -1) * np.abs(r)[:, None]
    c, s = np.cos(turn), np.sin(turn)
    return (p @ np.array([[c, s], [-s, c]])) * radius


def fill(rng, shape, origin, colours, bank):
    """Colour of a rectangle of the canvas: flat, shaded, textured or striped."""
    h, w = shape
    colour = pick_colour(rng, colours).astype(np.float32)
    value = np.zeros((h, w), np.float32)
    y = np.arange(h, dtype=np.float32)[:, None]
    x = np.arange(w, dtype=np.float32)[None]
    if rng.random() < 0.6:  # shading
        gy, gx = rng.normal(0, 0.18, 2)
        value += gy * (y / h - 0.5) + gx * (x / w - 0.5)
    if rng.random() < 0.75:  # texture: mostly faint
        amplitude = min(0.003 * np.exp(rng.exponential(1.5)), 0.25)
        t = bank[rng.integers(len(bank))]
        oy, ox = rng.integers(TEXTURE_SIZE, size=2)
        if h <= TEXTURE_SIZE and w <= TEXTURE_SIZE:
            oy, ox = oy % (TEXTURE_SIZE - h + 1), ox % (TEXTURE_SIZE - w + 1)
        value += amplitude * t[oy:oy + h, ox:ox + w]
    if rng.random() < 0.05:  # stripes or a grid
        angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(5), np.log(60)))
        phase = (np.cos(angle) * x + np.sin(angle) * y) * (2 * np.pi / period)
        wave = np.sin(phase)
        if rng.random() < 0.4:
            wave = np.maximum(wave, np.sin((np.cos(angle) * y - np.sin(angle) * x) * (2 * np.pi / period)))
        value += rng.normal(0, 0.15) * np.clip(wave * rng.choice([1, 4, 12]), -1, 1)
    return (colour[None, None] + value[..., None] * (0.6 + 0.8 * colour)[None, None]) * 255


def blend(canvas, mask, box, paint):
    y0, y1, x0, x1 = box
    m = mask[..., None].astype(np.float32) * (1 / 255)
    region = canvas[y0:y1, x0:x1]
    region += m * (np.clip(paint, 0, 255) - region)


def draw_leaf(rng, canvas, radius, colours, bank, blur=0.0):
    size = canvas.shape[0]
    centre = rng.uniform(-0.1 * radius, size + 0.1 * radius, 2)
    points = outline(rng, radius) + centre
    margin = 3 + int(3 * blur)
    x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - margin, 0)
    x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + margin, size)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(mask, [np.round((points - (x0, y0)) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    if rng.random() < 0.1 and radius > 12:  # a hollow shape: outlines, rims, wires
        inner = np.round(((points - centre) * rng.uniform(0.6, 0.95) + centre - (x0, y0)) * 16)
        cv2.fillPoly(mask, [inner.astype(np.int32)], 0, cv2.LINE_AA, 4)
    paint = fill(rng, mask.shape, (y0, x0), colours, bank)
    if blur > 0.3:
        mask = cv2.GaussianBlur(mask, (0, 0), blur)
        paint = cv2.GaussianBlur(paint, (0, 0), blur)
    elif rng.random() < 0.15:  # a soft edge: shadows, rounded objects
        mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.7, 8))
    box = (y0, y1, x0, x1)
    if radius > 15 and rng.random() < 0.25:  # the shadow cast on what lies beneath
        shift = rng.normal(0, 4, 2)
        shadow = cv2.warpAffine(mask, np.float32([[1, 0, shift[0]], [0, 1, shift[1]]]), mask.shape[::-1])
        shadow = cv2.GaussianBlur(shadow, (0, 0), rng.uniform(1, 8)).astype(np.float32) / 255
        canvas[y0:y1, x0:x1] *= 1 - rng.uniform(0.1, 0.5) * shadow[..., None]
    blend(canvas, mask, box, paint)


def draw_fur(rng, canvas, colours, bank):
    """Hair: many strokes along a smooth field of directions, coloured by a smooth noise."""
    size = canvas.shape[0]
    layer = np.clip(canvas, 0, 255).astype(np.uint8)
    region = size * rng.uniform(0.15, 0.6)
    centre = rng.uniform(0, size, 2)
    tone = bank[rng.integers(3, 6)]
    field = bank[5]
    oy, ox = rng.integers(TEXTURE_SIZE, size=2)
    angle, swing = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.9)
    length = np.exp(rng.uniform(np.log(10), np.log(140)))
    width = rng.choice([1, 1, 2, 2, 3, 4])
    contrast, patches = np.exp(rng.uniform(np.log(0.01), np.log(0.13))), rng.uniform(0.02, 0.15)
    base = colours[rng.integers(len(colours))] * 255
    count = int(np.clip(region * region * rng.uniform(0.5, 3) / (length * width), 100, 6000))
    start = centre + rng.normal(0, 0.5, (count, 2)) * region
    steps = np.linspace(0, 1, 5)
    for x, y in start:
        iy, ix = (int(y) + oy) % TEXTURE_SIZE, (int(x) + ox) % TEXTURE_SIZE
        a = angle + swing * field[iy, ix] + rng.normal(0, 0.12)
        bend = rng.normal(0, 0.4)
        l = length * rng.uniform(0.5, 1.3)
        aa = a + bend * steps
        p = np.stack([x + l * steps * np.cos(aa), y + l * steps * np.sin(aa)], -1)
        c = base * (1 + patches * 2 * tone[iy, ix]) + 255 * (rng.normal(0, contrast))
        cv2.polylines(layer, [np.round(p * 8).astype(np.int32)], False, [float(v) for v in np.clip(c, 0, 255)],
                      int(width), cv2.LINE_AA, 3)
    canvas[:] = layer


def draw_strands(rng, canvas, colours):
    """Single long curves: wires, twigs, cables, cracks."""
    layer = np.clip(canvas, 0, 255).astype(np.uint8)
    size = canvas.shape[0]
    for _ in range(rng.integers(3, 30)):
        p = np.cumsum(rng.normal(0, 1, (4, 2)) * size * rng.uniform(0.02, 0.3), 0) + rng.uniform(0, size, 2)
        t = np.linspace(0, 1, 24)[:, None]
        curve = (1 - t) ** 3 * p[0] + 3 * t * (1 - t) ** 2 * p[1] + 3 * t * t * (1 - t) * p[2] + t ** 3 * p[3]
        colour = np.clip(pick_colour(rng, colours) * 255, 0, 255)
        cv2.polylines(layer, [np.round(curve * 8).astype(np.int32)], False, [float(v) for v in colour],
                      int(rng.choice([1, 2, 3, 4, 6, 9])), cv2.LINE_AA, 3)
    canvas[:] = layer


def draw_text(rng, canvas, colours):
    """Lettering in stroke fonts, turned a little or a lot."""
    size = canvas.shape[0]
    letters = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,-/&%"))
    mask = np.zeros((size, size), np.uint8)
    scale = np.exp(rng.uniform(np.log(0.5), np.log(4)))
    x, y = rng.uniform(0, 0.7 * size), rng.uniform(0, size)
    font = int(rng.choice([0, 1, 2, 3, 4, 5, 6, 7]))
    thickness = max(1, int(scale * rng.uniform(0.8, 4)))
    for _ in range(rng.integers(1, 8)):
        text = "".join(rng.choice(letters, rng.integers(2, 18)))
        cv2.putText(mask, text, (int(x), int(y)), font, scale, 255, thickness, cv2.LINE_AA)
        y += 36 * scale
    turn = cv2.getRotationMatrix2D((x, y), rng.normal(0, 5) if rng.random() < 0.7 else rng.uniform(0, 360), 1)
    mask = cv2.warpAffine(mask, turn, (size, size))
    paint = np.broadcast_to((pick_colour(rng, colours) * 255).astype(np.float32), canvas.shape)
    blend(canvas, mask, (0, size, 0, size), paint)


def make_image(rng, bank, size):
    """One image: layers from back to front, each nearer one sharper or blurred anew."""
    big = size * SUPERSAMPLING
    colours = palette(rng)
    canvas = np.empty((big, big, 3), np.float32)
    canvas[:] = fill(rng, (big, big), (0, 0), colours, bank)
    busy = rng.beta(1.2, 1.2)  # from calm scenes with large smooth parts to crowded ones
    layers = rng.integers(2, 5)
    smallest = np.exp(rng.uniform(np.log(2.0), np.log(14)))
    largest = big * rng.uniform(0.15, 0.6)
    exponent = rng.choice([2.0, 2.5, 3.0])
    for layer in range(layers):
        front = layer == layers - 1
        count = int(np.exp(rng.uniform(np.log(40), np.log(200 + 1300 * busy))) / layers) + 5
        # Sizes r^-exponent by inverse transform, the largest first so that small ones stay seen (mostly).
        u = rng.random(count)
        e = 1 - exponent
        radii = (smallest ** e + u * (largest ** e - smallest ** e)) ** (1 / e)
        if rng.random() < 0.5:
            radii = -np.sort(-radii)
        # A few large shapes first, or the ground would stay uniform between the small ones.
        radii = np.concatenate([big * rng.uniform(0.08, 0.5, rng.integers(2, 16)), radii])
        count = len(radii)
        soft = rng.uniform(0.5, 6) if front and rng.random() < 0.1 else 0.0
        own = colours if rng.random() < 0.5 else palette(rng)
        extras = rng.random(4) < (0.25, 0.2, 0.2, 0.15)
        if extras[0]:
            for _ in range(rng.integers(1, 4)):
                draw_fur(rng, canvas, own, bank)
        for i, radius in enumerate(radii):
            draw_leaf(rng, canvas, radius, own, bank, soft)
            if extras[1] and i == count // 2:
                draw_strands(rng, canvas, own)
        if extras[2]:
            for _ in range(rng.integers(1, 4)):
                draw_text(rng, canvas, own)
        if extras[3] and front:
            draw_fur(rng, canvas, own, bank)
        if not front and rng.random() < 0.5:  # what lies behind is out of focus
            canvas = cv2.GaussianBlur(canvas, (0, 0), np.exp(rng.uniform(np.log(0.7), np.log(16))))
    if rng.random() < 0.5:  # large shapes shade each other: slow change of light
        light = bank[5] if big <= TEXTURE_SIZE else cv2.resize(bank[5], (big, big))
        canvas *= 1 + rng.uniform(0, 0.15) * light[:big, :big, None]
    # The lens: seldom perfect.  Deviation in pixels of the finished image.
    lens = rng.uniform(0, 1.2) if rng.random() < 0.8 else 0.0
    if lens > 0.1:
        canvas = cv2.GaussianBlur(canvas, (0, 0), lens * SUPERSAMPLING)
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.3:  # sharpening, as cameras and resizers do
        image += rng.uniform(0.1, 0.8) * (image - cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.5)))
    if rng.random() < 0.5:  # sensor noise
        deviation = rng.exponential(1.5)
        noise = rng.normal(0, deviation, image.shape).astype(np.float32)
        image += noise if rng.random() < 0.5 else 1.5 * cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.6, 1.4))
    image = np.clip(np.round(image), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:  # most photographs have been a JPEG once; its errors are no detail
        quality = int(rng.uniform(65, 97))
        image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return image


_bank = {}


def write_image(job):
    """Worker: image number `index` depends on (seed, index) alone, whoever draws it."""
    out, seed, index, size = job
    cv2.setNumThreads(1)
    group = index // 40  # a new set of textures now and then
    if _bank.get("group") != group:
        _bank.update(group=group, bank=texture_bank(np.random.default_rng([seed, 1, group])))
    image = make_image(np.random.default_rng([seed, 2, index]), _bank["bank"], size)
    temporary = os.path.join(out, f".{index:05d}.tmp")
    with open(temporary, "wb") as f:
        np.save(f, image)
    os.replace(temporary, os.path.join(out, f"{index:05d}.npy"))
    return index


def generate(out, count, seed, size=512, workers=None, first=0):
    """Images first .. first + count - 1 of a seed, drawn by several processes."""
    os.makedirs(out, exist_ok=True)
    jobs = [(out, seed, i, size) for i in range(first, first + count)
            if not os.path.exists(os.path.join(out, f"{i:05d}.npy"))]
    if workers == 1:
        for job in jobs:
            write_image(job)
        return
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(write_image, jobs, chunksize=10))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=700)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=None)
    a = parser.parse_args()
    generate(a.out, a.count, a.seed, a.size, a.workers, a.first)
