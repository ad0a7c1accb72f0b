"""The synthetic pages as files: trees, images and labels, for a look at them or for other programs."""

import csv
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from vae_core.config import DataConfig
from vae_core.data.synthetic import page_label, page_name, page_tree, paint_page
from vae_core.data.tree_formats import parse_layout
from vae_core.data.writing import write_atomically, write_png


def synthesize_folder(config: DataConfig, out: Path) -> int:
    """Write the pages that `config` describes and return how many.

    `trees/{name}.json` (verbose format), `images/{name}.png` at `config.width` px, gray or RGB, and
    `labels.csv` (columns name,label): `data.labels` for the source `trees` on the one folder and `folder`
    on the other.

    Raises:
        UserError: `out` cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "label"])
    for index in range(config.count):
        name, label = page_name(index), page_label(index)
        tree = page_tree(config.synthetic_seed, index)
        write_atomically(out / "trees" / f"{name}.json", json.dumps(tree).encode())
        pixels = paint_page(parse_layout(tree), label, config.width, config.max_height, config.channels)
        image = Image.fromarray(pixels[0] if config.channels == 1 else np.moveaxis(pixels, 0, 2))
        write_png(out / "images" / f"{name}.png", image)
        table.writerow([name, label])
    write_atomically(out / "labels.csv", text.getvalue().encode())
    return config.count
