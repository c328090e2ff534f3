"""Makes the pictures beside this file from the photographs inside scikit-image: python make_examples.py"""

import pathlib

import skimage
from PIL import Image

SCALE = 4

for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"):
    original = Image.open(pathlib.Path(skimage.__file__).parent / "data" / name).convert("RGB")
    size = [side // SCALE for side in original.size]
    cut = original.crop((0, 0, size[0] * SCALE, size[1] * SCALE))
    cut.resize(size, Image.BICUBIC).save(pathlib.Path(__file__).with_name(name).with_suffix(".png"), optimize=True)
