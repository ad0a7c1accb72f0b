"""The source `folder`: PNG and JPEG files at any depth below a folder."""

from collections.abc import Iterator

from vae_core.data.files import find_labels, input_folder, list_files, stamp_files, stamp_labels
from vae_core.data.images import ImageError, read_image
from vae_core.data.sources import Item, Skipped

WANTED = "a folder of PNG or JPEG images"
_SUFFIXES = (".png", ".jpg", ".jpeg")


class FolderSource:
    """Images of a folder, labelled by a CSV or by the first folder of their path."""

    def __init__(
        self,
        *,
        path: str | None,
        labels: str | None,
        width: int,
        max_height: int,
        max_pixels: int,
        channels: int,
    ) -> None:
        self.label_names: tuple[str, ...] | None = None
        self._folder = input_folder(path, WANTED)
        self._names = list_files(self._folder, _SUFFIXES, WANTED)
        self._labels = labels
        self._width, self._max_height, self._max_pixels = width, max_height, max_pixels
        self._channels = channels

    def __len__(self) -> int:
        return len(self._names)

    def stamp(self) -> object:
        """Return names, sizes and modification times."""
        return stamp_files(self._folder, self._names) + stamp_labels(self._labels)

    def items(self) -> Iterator[Item | Skipped]:
        """Yield the images in order of their names."""
        labels = find_labels(self._names, self._labels)
        for name in self._names:
            try:
                pixels = read_image(
                    self._folder / name,
                    channels=self._channels,
                    width=self._width,
                    max_height=self._max_height,
                    max_pixels=self._max_pixels,
                )
            except ImageError as error:
                yield Skipped(name, str(error))
            else:
                yield Item(name, pixels, labels[name])
