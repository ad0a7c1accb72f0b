"""A folder of layout trees as PNG files to look at, with a table of what was painted, what not, and why."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from vae_core.data.files import list_files
from vae_core.data.layout import Layout, LayoutError
from vae_core.data.painting import Floats, max_depth, paint_gray, to_uint8
from vae_core.data.sources import Pixels, Progress, Skipped
from vae_core.data.trees import WANTED, read_layout
from vae_core.data.writing import write_atomically, write_png
from vae_core.errors import UserError

MAX_HEIGHT = 2048  # px; a taller page is cropped to its middle
_MAX_PIXELS = 50_000_000  # px; a larger canvas is skipped


@dataclass(frozen=True)
class Painted:
    """A tree that was painted: its name, the size of its PNG in px, its boxes and its maximum depth."""

    name: str
    width: int
    height: int
    boxes: int
    depth: int


@dataclass(frozen=True)
class PaintSummary:
    """What `paint_folder` did; also in the file `table`."""

    painted: list[Painted]
    skipped: list[Skipped]
    table: Path


def paint_folder(directory: Path, out: Path, gamma: float = 2.0, progress: Progress | None = None) -> PaintSummary:
    """Paint every .json tree below `directory` at its own size, at most `MAX_HEIGHT` px high.

    Writes `{name}_linear.png` (depth / maximum depth, 8-bit gray), `{name}_visu.png` (that to the power
    `gamma`), each in the subfolder that the tree lies in, and `summary.csv`.

    Raises:
        UserError: no such folder, no tree in it, gamma not positive, or `out` cannot be written.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: is not a folder; give {WANTED}")
    if not (np.isfinite(gamma) and gamma > 0):
        raise UserError(f"gamma: must be a positive number; got {gamma}")
    painted: list[Painted] = []
    skipped: list[Skipped] = []
    names = list_files(directory, (".json",), WANTED)
    for done, name in enumerate(names):
        if progress is not None:
            progress("painting", done, len(names))
        try:
            layout = read_layout(directory / name)
            image = _paint(layout)
        except LayoutError as error:
            skipped.append(Skipped(name, str(error)))
            continue
        _write_pair(out / PurePosixPath(name).with_suffix(""), image, gamma)
        height, width = image.shape
        painted.append(Painted(name, width, height, len(layout.boxes), max_depth(layout.boxes)))
    table = out / "summary.csv"
    write_atomically(table, _table(painted, skipped).encode())
    return PaintSummary(painted, skipped, table)


def _paint(layout: Layout) -> Floats:
    pixels = layout.width * min(layout.height, MAX_HEIGHT)
    if pixels > _MAX_PIXELS:
        raise LayoutError(f"its canvas of {layout.width} x {layout.height} px is larger than {_MAX_PIXELS} px")
    return paint_gray(layout, layout.width, MAX_HEIGHT)


def _write_pair(stem: Path, image: Floats, gamma: float) -> None:
    for ending, values in (("linear", image), ("visu", image**gamma)):
        pixels: Pixels = to_uint8(values)
        write_png(stem.with_name(f"{stem.name}_{ending}.png"), Image.fromarray(pixels))


def _table(painted: list[Painted], skipped: list[Skipped]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "status", "width_px", "height_px", "boxes", "depth", "reason"])
    for item in painted:
        writer.writerow([item.name, "painted", item.width, item.height, item.boxes, item.depth, ""])
    for left_out in skipped:
        writer.writerow([left_out.name, "skipped", "", "", "", "", left_out.reason])
    return text.getvalue()
