"""The read side of a prepared data set: one packed file of bytes, memory-mapped and shared by all processes.

Letters: N images, C channels, H and W height and width in px.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_core.data.sources import Pixels, Skipped
from vae_core.data.splits import SPLITS, combined_hash

__all__ = ["Dataset", "Records", "Skipped", "Summary"]

Indices = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]

# What is known of every image; `label` is a position in label_names or -1, `split` one in SPLITS.
RECORD = np.dtype(
    [
        ("height", "<u4"),
        ("width", "<u4"),
        ("label", "<i4"),
        ("group", "<i4"),
        ("split", "u1"),
        ("hash", "S32"),
    ]
)


@dataclass(frozen=True)
class Summary:
    """What is known of the data set as a whole; JSON-able but for the dataclass.

    Attributes:
        source: `data.source`.
        fingerprint: 16 hex digits.
        channels: C.
        names: N names.
        label_names: the words that labels are positions in; empty where nothing is labelled.
        skipped: images left out because they could not be used.
        excluded: why and how many sound images were left out.
    """

    source: str
    fingerprint: str
    channels: int
    names: list[str]
    label_names: list[str]
    skipped: list[Skipped]
    excluded: dict[str, int]


class Dataset:
    """A prepared data set. Open one with `vae_core.data.prepare`.

    Attributes:
        fingerprint: 16 hex digits over pixels, size, label and split of every image, in order; names do not
            count. That of a cropped data set differs where an image is cropped.
        channels: C, 1 or 3.
        sizes: `(N, 2)` int64, height and width in px.
        names: N names.
        labels: `(N,)` int64, positions in `label_names`, -1 where unlabelled; None where nothing is labelled.
        label_names: the words of the labels.
        splits: "train", "val" and "test" -> ascending indices, int64.
        hashes: N hashes of the images' contents, hex digits.
        split_hashes: 16 hex digits over the contents of each split.
        groups: `(N,)` int64, the near-duplicate group of each image.
        skipped: what could not be used, and why.
        excluded: why and how many sound images were left out.
    """

    def __init__(self, summary: Summary, records: Records, pixels: Pixels, crop_height: int | None = None) -> None:
        self._summary, self._records, self._pixels = summary, records, pixels
        self._heights: Indices = records["height"].astype(np.int64)  # px, before the crop
        heights = np.minimum(self._heights, crop_height or self._heights)
        is_cropped = bool((heights < self._heights).any())
        self.fingerprint = _fingerprint(summary.fingerprint, crop_height) if is_cropped else summary.fingerprint
        self.channels = summary.channels
        self.sizes = np.stack([heights, records["width"].astype(np.int64)], axis=1)
        self.names = summary.names
        self.label_names = summary.label_names
        self.labels: Indices | None = records["label"].astype(np.int64) if summary.label_names else None
        self.groups: Indices = records["group"].astype(np.int64)
        self.splits: dict[str, Indices] = {
            name: np.flatnonzero(records["split"] == position) for position, name in enumerate(SPLITS)
        }
        self.hashes: list[str] = [digest.decode() for digest in records["hash"]]
        self.split_hashes = {
            name: combined_hash([self.hashes[index] for index in indices]) for name, indices in self.splits.items()
        }
        self.skipped = summary.skipped
        self.excluded = summary.excluded
        ends = (self._heights * self.sizes[:, 1] * self.channels).cumsum()
        self._offsets = np.concatenate([np.zeros(1, dtype=np.int64), ends])

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int, top: int | None = None) -> Pixels:
        """Return the image at `index` as a read-only `(C, H, W)` view of the packed file.

        Args:
            index: of the image.
            top: px, at most `hidden_rows`; where the window of a cropped image starts, default: in the middle.
        """
        height, width = self.sizes[index]
        start, end = self._offsets[index], self._offsets[index + 1]
        first = self.hidden_rows(index) // 2 if top is None else top
        whole = self._pixels[start:end].reshape(self.channels, self._heights[index], width)
        return whole[:, first : first + height]

    def hidden_rows(self, index: int) -> int:
        """Return how many rows of the image at `index` are cropped away."""
        return int(self._heights[index] - self.sizes[index, 0])

    def cropped(self, height: int | None) -> "Dataset":
        """Return this data set with taller images cropped to `height` px; None: without a crop."""
        return Dataset(self._summary, self._records, self._pixels, height)

    def describe(self) -> dict[str, Any]:
        """Return counts, sizes, splits, labels and what was left out, as a JSON-able mapping."""
        heights, widths = self.sizes[:, 0], self.sizes[:, 1]
        return {
            "source": self._summary.source,
            "fingerprint": self.fingerprint,
            "images": len(self),
            "channels": self.channels,
            "bytes": int(self._offsets[-1]),
            "heights_px": _spread(heights),
            "widths_px": _spread(widths),
            "splits": {
                name: {"images": len(indices), "hash": self.split_hashes[name]} | self._label_counts(indices)
                for name, indices in self.splits.items()
            },
            "label_names": list(self.label_names),
            "near_duplicates": self._near_duplicates(),
            "skipped": [{"name": item.name, "reason": item.reason} for item in self.skipped],
            "excluded": dict(self.excluded),
        }

    def _label_counts(self, indices: Indices) -> dict[str, Any]:
        if self.labels is None:
            return {}
        counts = Counter(self.labels[indices].tolist())
        words = dict(enumerate(self.label_names)) | {-1: "(unlabelled)"}
        return {"labels": {words[position]: counts[position] for position in words if counts[position]}}

    def _near_duplicates(self) -> dict[str, int]:
        sizes = np.bincount(self.groups)
        return {
            "groups": int((sizes > 1).sum()),
            "images": int(sizes[sizes > 1].sum()),
            "largest_group": int(sizes.max(initial=0)),
        }


def _fingerprint(whole: str, crop_height: int | None) -> str:
    """Return the 16 hex digits of a data set, `whole` its own, as a crop shows it."""
    return combined_hash([whole, f"cropped to {crop_height} px"])


def _spread(values: Indices) -> dict[str, int]:
    return {
        "min": int(values.min()),
        "median": int(np.median(values)),
        "max": int(values.max()),
        "distinct": len(np.unique(values)),
    }
