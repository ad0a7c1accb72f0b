"""A contact sheet of augmentations: one row each, at a strength that shows, and one with a config's own.

Letters: C channels, h x w px of one image.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vae_core.data import Dataset
from vae_core.data.augment import AUGMENTATIONS, Augmenter, augmenter_of
from vae_core.errors import UserError
from vae_core.schema.augment import AugmentConfig

_VARIANTS = 7
_CELL = 120  # px; the larger side of a picture
_GAP = 8  # px
_LINE = 22  # px; the text above a row
_INK, _PAPER = "#222222", "#e8e4da"

Row = tuple[str, list[Tensor]]  # what stands above, and the pictures `(C, h, w)` in [0, 1]


def write_preview(settings: AugmentConfig, dataset: Dataset, path: Path) -> None:
    """Write the contact sheet of one training image, as the encoder sees it, as a PNG.

    Args:
        settings: the subsection `data.augment`; makes the last row.
        dataset: its training image of median height is shown.
        path: of the picture.

    Raises:
        UserError: the file cannot be written.
    """
    train = dataset.splits["train"]
    index = int(train[np.argsort(dataset.sizes[train, 0], kind="stable")[len(train) // 2]])
    sheet = _sheet(list(_rows(settings, dataset, index)))
    try:
        sheet.save(path, format="PNG")
    except OSError as error:
        raise UserError(f"-o {path}: cannot be written ({error.strerror})") from error


def _rows(settings: AugmentConfig, dataset: Dataset, index: int) -> Iterator[Row]:
    plain = Augmenter(AugmentConfig())
    original, _ = plain.reader(dataset.cropped(None))(index)
    height = max(8, original.shape[1] // 2)
    yield (
        f"crop: {_written({'crop_height': height})}",
        [original, *_variants(plain, dataset.cropped(height), index)],
    )
    for name, entry in AUGMENTATIONS.items():
        shown = Augmenter(AugmentConfig.model_validate(entry.shown))
        kind = " (input only)" if entry.input_only else ""
        yield f"{name}{kind}: {_written(entry.shown)}", [original, *_variants(shown, dataset, index)]
    words = _written(settings.model_dump(exclude_defaults=True)) if augmenter_of(settings) else "everything is off"
    yield f"this config: {words}", [original, *_variants(Augmenter(settings), dataset, index)]


def _variants(augmenter: Augmenter, dataset: Dataset, index: int) -> list[Tensor]:
    readers = (augmenter.reader(dataset, "augment-preview", number) for number in range(_VARIANTS))
    return [read(index)[1] for read in readers]


def _written(values: Mapping[str, Any]) -> str:
    return "  ".join(f"data.augment.{name}={value}" for name, value in values.items())


def _sheet(rows: Sequence[Row]) -> Image.Image:
    """Return the rows one below the other, the original first in each."""
    pictures = [[_picture(image) for image in images] for _, images in rows]
    heights = [_LINE + max(picture.height for picture in row) + _GAP for row in pictures]
    cell = max(picture.width for row in pictures for picture in row) + _GAP
    font = ImageFont.load_default()
    width = max(_GAP + cell * (1 + _VARIANTS), *(int(font.getlength(text)) + 2 * _GAP for text, _ in rows))
    sheet = Image.new("RGB", (width, sum(heights) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for (text, _), row, height in zip(rows, pictures, heights, strict=True):
        draw.text((_GAP, top + 4), text, fill=_INK, font=font)
        for column, picture in enumerate(row):
            sheet.paste(picture, (_GAP + column * cell, top + _LINE))
        top += height
    return sheet


def _picture(image: Tensor) -> Image.Image:
    """Return `image (C, h, w)` enlarged by a whole number, or shrunk, so that its larger side is about `_CELL` px."""
    pixels = image.mul(255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    side = max(picture.size)
    if side <= _CELL:
        factor = _CELL // side
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = (max(1, picture.width * _CELL // side), max(1, picture.height * _CELL // side))
    return picture.resize(size, Image.Resampling.BOX)
