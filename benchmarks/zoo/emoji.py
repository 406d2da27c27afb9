"""Emoji by category: real colour images in two styles, from npm packages that a user unpacked.

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0

Layout (below the data folder): emoji-datasource-google/ and emoji-datasource-twitter/, each a
package's content with emoji.json and img/<style>/64/. Licences: Noto (google) Apache-2.0, Twemoji
(twitter) CC-BY 4.0.

The class is the category (nine of them; "Component" is left out). Both styles of an emoji are in
the same part, so that no part holds a near-copy of an image in another part; variants by skin tone
are left out.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.data import SPLIT_SEED, Dataset
from guard.ml.cleanset import Labelled

STYLES = ("google", "twitter")
SIDE = 32
_NO_CLASS = "Component"


def load(folder: Path, sizes: tuple[int, int, int]) -> Dataset:
    """The emoji below `folder` on white, RGB, 32 x 32.

    Args:
        sizes: images of train, clean and test, over all classes together.

    Raises:
        FileNotFoundError: a package is missing.
        ValueError: too few images of a class.
    """
    known = _known(folder)
    names = tuple(sorted({category for category, _ in known}))
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    chosen: list[list[tuple[Path, int]]] = [[], [], []]
    for label, name in enumerate(names):
        own = [files for category, files in known if category == name]
        order = torch.randperm(len(own), generator=generator).tolist()
        for part, files in zip(
            chosen, _parts([own[place] for place in order], name, sizes, len(names)), strict=True
        ):
            part += [(file, label) for file in files]
    train, clean, test = (_opened(part, generator) for part in chosen)
    return Dataset("emoji", len(names), names, train, clean, test)


def _known(folder: Path) -> list[tuple[str, tuple[Path, ...]]]:
    """Category and image files of each emoji that all styles have."""
    places = {style: folder / f"emoji-datasource-{style}" for style in STYLES}
    for place in places.values():
        if not (place / "emoji.json").is_file():
            raise FileNotFoundError(
                f"{place / 'emoji.json'} is missing: unpack the npm package {place.name} there."
            )
    rows = json.loads((places[STYLES[0]] / "emoji.json").read_text())
    return [
        (
            row["category"],
            tuple(place / "img" / style / "64" / row["image"] for style, place in places.items()),
        )
        for row in rows
        if row["category"] != _NO_CLASS and all(row[f"has_img_{style}"] for style in STYLES)
    ]


def _parts(
    emoji: Sequence[tuple[Path, ...]], name: str, sizes: tuple[int, int, int], classes: int
) -> list[list[Path]]:
    """Images of one class for each part; an emoji whose second image has no room is used up."""
    left, parts = list(emoji), []
    for size in sizes:
        part: list[Path] = []
        while len(part) < size // classes:
            if not left:
                raise ValueError(
                    f"emoji: class {name!r} has only {len(emoji) * len(STYLES)} images; ask for "
                    "smaller "
                    "parts."
                )
            part += left.pop()
        parts.append(part[: size // classes])
    return parts


def _opened(files: Sequence[tuple[Path, int]], generator: torch.Generator) -> Labelled:
    mixed = [files[place] for place in torch.randperm(len(files), generator=generator).tolist()]
    images = np.stack([_image(file) for file, _ in mixed])
    return Labelled(torch.from_numpy(images), torch.tensor([label for _, label in mixed]))


def _image(file: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    from PIL import Image  # not on every machine that only trains

    with Image.open(file) as opened:
        drawn = opened.convert("RGBA")
        white = Image.new("RGBA", drawn.size, "white")
        small = (
            Image.alpha_composite(white, drawn)
            .convert("RGB")
            .resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        )
        return np.asarray(small, dtype=np.uint8).transpose(2, 0, 1)
