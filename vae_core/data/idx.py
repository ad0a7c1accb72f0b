"""The idx files of MNIST and Fashion-MNIST, plain or gzipped (format: http://yann.lecun.com/exdb/mnist)."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np
from PIL import Image

from vae_core.data.files import input_folder, stamp_files
from vae_core.data.images import ImageError, resize
from vae_core.data.sources import Item, Pixels, Skipped, with_channels
from vae_core.errors import UserError

# torchvision's class, and the words of the labels.
CLASSES = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST"}
LABELS = {
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    "mnist": tuple("0123456789"),
}  # fmt: skip
_PREFIXES: tuple[tuple[Literal["train", "test"], str], ...] = (("train", "train"), ("test", "t10k"))
_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int, *, header_only: bool = False) -> tuple[tuple[int, ...], Pixels]:
    """Read an idx file of unsigned bytes.

    Args:
        path: the file; gzip is recognised by its content.
        dimensions: how many the file must have: 3 for images, 1 for labels.
        header_only: read the sizes alone; the array is then empty.

    Returns:
        The sizes, and the array of that shape.

    Raises:
        UserError: not such a file, truncated, too long, or damaged gzip data.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if is_gzip else raw as file:
                return _parse_idx(cast("IO[bytes]", file), path, dimensions, header_only)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"data.path: {path} cannot be read ({error}); fetch the file again") from error


def _parse_idx(file: IO[bytes], path: Path, dimensions: int, header_only: bool) -> tuple[tuple[int, ...], Pixels]:
    magic = file.read(4)
    expected = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if magic != expected:
        raise UserError(
            f"data.path: {path} is not an idx file of {dimensions} dimensions: it begins with "
            f"{magic.hex() or 'nothing'}, not {expected.hex()}"
        )
    sizes_bytes = file.read(4 * dimensions)
    if len(sizes_bytes) < 4 * dimensions:
        raise UserError(f"data.path: {path} ends within its header; fetch the file again")
    sizes = struct.unpack(f">{dimensions}I", sizes_bytes)
    if header_only:
        return sizes, np.empty(0, dtype=np.uint8)
    content = file.read()
    wanted = int(np.prod(sizes, dtype=np.int64))
    if len(content) != wanted:
        raise UserError(
            f"data.path: {path} holds {len(content)} bytes after its header, its sizes {sizes} say {wanted}; "
            "fetch the file again"
        )
    return sizes, np.frombuffer(content, dtype=np.uint8).reshape(sizes)


def find_files(source: str, folder: Path) -> dict[str, Path]:
    """Return the four files by their official names, from the folder itself or torchvision's place below it.

    Raises:
        UserError: one of them is in none of the places.
    """
    places = [folder, folder / "raw", folder / CLASSES[source] / "raw"]
    found, missing = {}, []
    for name in _file_names():
        candidates = (place / f"{name}{suffix}" for place in places for suffix in (".gz", ""))
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            missing.append(name)
        else:
            found[name] = path
    if missing:
        looked = ", ".join(map(str, places))
        raise UserError(
            f"data.path: no {', '.join(missing)} (with or without .gz) in {looked}; put the official "
            f"files there, or fetch them with torchvision.datasets.{CLASSES[source]}(root, download=True)"
        )
    return found


def _file_names() -> list[str]:
    parts = ("images-idx3-ubyte", "labels-idx1-ubyte")
    return [f"{prefix}-{part}" for _, prefix in _PREFIXES for part in parts]


def fetch_with_torchvision(source: str, root: Path) -> Path:
    """Return `root`, filled by torchvision's own dataset class, which downloads what is missing.

    Raises:
        UserError: the download failed.
    """
    from torchvision import datasets

    name = CLASSES[source]
    try:
        getattr(datasets, name)(str(root), train=True, download=True)
    except (OSError, RuntimeError) as error:
        files = ", ".join(f"{file}.gz" for file in _file_names())
        raise UserError(
            f"data.path: is not given, and torchvision could not fetch {name} into {root} ({error}); give a "
            f"folder that holds {files}, or {name}/raw with them"
        ) from error
    return root


class IdxSource:
    """The train and test images of MNIST or Fashion-MNIST."""

    def __init__(
        self, *, source: str, path: str | None, default_root: Path, width: int, max_height: int, channels: int
    ) -> None:
        self.label_names: tuple[str, ...] | None = LABELS[source]
        if path is None:
            self._folder = fetch_with_torchvision(source, default_root)
        else:
            self._folder = input_folder(path, f"a folder with the idx files of {source}")
        self._files = find_files(source, self._folder)
        self._width, self._max_height, self._channels = width, max_height, channels
        self._counts = {split: self._count(prefix) for split, prefix in _PREFIXES}

    def _count(self, prefix: str) -> int:
        images = self._files[f"{prefix}-images-idx3-ubyte"]
        labels = self._files[f"{prefix}-labels-idx1-ubyte"]
        sizes, _ = read_idx(images, 3, header_only=True)
        (count,), _ = read_idx(labels, 1, header_only=True)
        if count != sizes[0]:
            raise UserError(f"data.path: {images} has {sizes[0]} images, but {labels} has {count} labels")
        if min(sizes) < 1:
            raise UserError(f"data.path: {images} holds no pixels: its sizes are {sizes}")
        return count

    def __len__(self) -> int:
        return sum(self._counts.values())

    def stamp(self) -> object:
        """Return the files' names, sizes and modification times."""
        names = [path.relative_to(self._folder).as_posix() for path in self._files.values()]
        return stamp_files(self._folder, names)

    def items(self) -> Iterator[Item | Skipped]:
        """Yield the training images, then the test images, in the files' order."""
        for split, prefix in _PREFIXES:
            _, images = read_idx(self._files[f"{prefix}-images-idx3-ubyte"], 3)
            _, labels = read_idx(self._files[f"{prefix}-labels-idx1-ubyte"], 1)
            for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
                yield self._item(split, index, image, label)

    def _item(self, split: Literal["train", "test"], index: int, image: Pixels, label: int) -> Item | Skipped:
        name = f"{split}-{index:05d}"
        words = self.label_names or ()
        if label >= len(words):
            return Skipped(name, f"its label is {label}, not 0 to {len(words) - 1}")
        if image.shape[1] != self._width or image.shape[0] > self._max_height:
            try:
                image = resize(Image.fromarray(image), self._width, self._max_height, 2**62)[0]
            except ImageError as error:
                return Skipped(name, str(error))
        return Item(name, with_channels(image, self._channels), words[label], split)
