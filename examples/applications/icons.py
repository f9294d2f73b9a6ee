"""Icons and their names in the package qtawesome: read, compared, and drawn."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from typing import Any

import numpy as np
import packages
from PIL import Image, ImageDraw, ImageFont


def load() -> tuple[Any, list[list[str]]]:
    """Return different pictures (N, 24, 24) in 0..1, and words, each of five names or more."""
    with zipfile.ZipFile(packages.archive("qtawesome", "1.4.2")) as wheel:
        stem = "qtawesome/fonts/materialdesignicons6-webfont"
        charmap = json.loads(wheel.read(f"{stem}-charmap-6.9.96.json"))
        font = ImageFont.truetype(io.BytesIO(wheel.read(f"{stem}-6.9.96.ttf")), 24)
    names = {name: name.split("-") for name in sorted(charmap)}
    often = Counter(word for words in names.values() for word in words)
    found: dict[bytes, tuple[Any, list[str]]] = {}
    for name, words in names.items():
        if all(often[word] >= 5 for word in words):
            image = Image.new("L", (24, 24))
            ImageDraw.Draw(image).text((0, 0), chr(int(charmap[name], 16)), 255, font=font)
            found.setdefault(image.tobytes(), (np.asarray(image, np.float32) / 255, words))
    return np.stack([image for image, _ in found.values()]), [words for _, words in found.values()]


def nearest(known: Any, images: Any, count: int) -> Any:
    """Return the numbers (N, count) of the most similar of the known pictures."""
    a, b = (each.reshape(len(each), -1) for each in (images, known))
    far = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return np.argsort(far, axis=1)[:, :count]


def picture(path: Any, images: Any, found: Any, right: Any) -> None:
    """Draw icons with what was written and their names."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 6, figsize=(12, 5), layout="constrained")
    for place, image, a, b in zip(axes.flat, images, found, right, strict=False):
        place.imshow(image, cmap="gray_r")
        place.set_title(f"{' '.join(a)}\n({' '.join(b)})", fontsize="small")
        place.axis("off")
    figure.savefig(path, dpi=120)
    plt.close(figure)
