"""The source `trees`: JSON layout trees painted to gray images."""

from collections.abc import Iterator
from pathlib import Path

from vae_core.data.deep_json import parse_json
from vae_core.data.files import find_labels, input_folder, list_files, stamp_files, stamp_labels
from vae_core.data.layout import Layout, LayoutError, trim_to_content
from vae_core.data.painting import output_height, paint_gray, to_uint8
from vae_core.data.sources import Item, Skipped, with_channels
from vae_core.data.tree_formats import parse_layout

WANTED = "a folder of layout trees (.json)"


def read_layout(path: Path) -> Layout:
    """Read the tree in a file.

    Raises:
        LayoutError: the file cannot be read, is not JSON, or holds nothing that can be painted.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LayoutError(f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise LayoutError(f"is not UTF-8 text ({error.reason} at byte {error.start})") from error
    if not text.strip():
        raise LayoutError("the file is empty")
    try:
        tree = parse_json(text)
    except ValueError as error:
        raise LayoutError(f"is not JSON ({error})") from error
    return parse_layout(tree)


class TreeSource:
    """Every .json file below a folder, painted additively; see `painting`."""

    def __init__(
        self,
        *,
        path: str | None,
        labels: str | None,
        width: int,
        max_height: int,
        max_pixels: int,
        trim: bool,
        channels: int,
    ) -> None:
        self.label_names: tuple[str, ...] | None = None
        self._folder = input_folder(path, WANTED)
        self._names = list_files(self._folder, (".json",), WANTED)
        self._labels = labels
        self._width, self._max_height, self._max_pixels = width, max_height, max_pixels
        self._trim, self._channels = trim, channels

    def __len__(self) -> int:
        return len(self._names)

    def stamp(self) -> object:
        """Return names, sizes and modification times."""
        return stamp_files(self._folder, self._names) + stamp_labels(self._labels)

    def items(self) -> Iterator[Item | Skipped]:
        """Yield the painted trees in order of their names."""
        labels = find_labels(self._names, self._labels)
        for name in self._names:
            try:
                yield self._paint(name, labels[name])
            except LayoutError as error:
                yield Skipped(name, str(error))

    def _paint(self, name: str, label: str | None) -> Item:
        layout = read_layout(self._folder / name)
        if self._trim:
            layout = trim_to_content(layout)
        pixels = self._width * min(output_height(layout, self._width), self._max_height)
        if pixels > self._max_pixels:
            raise LayoutError(f"would have {pixels} px, more than data.max_pixels ({self._max_pixels})")
        gray = to_uint8(paint_gray(layout, self._width, self._max_height))
        return Item(name, with_channels(gray, self._channels), label)
