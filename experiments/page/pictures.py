"""What cells draw: the same test images reconstructed, samples from the prior, walks between two test images.

Letters: C channels, h x w px of an image.
"""

import base64
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from experiments.ablation import Ablation
from experiments.columns import MSE
from experiments.page.parts import LeftOut, Series
from experiments.reconstructions import Pictures, seen_dataset, selected_model, spread, weights_file
from vae_core.errors import UserError

if TYPE_CHECKING:
    from vae_core.data import Dataset
    from vae_core.evaluation import Evaluator
    from vae_core.models.latent import LatentModel

_Picture = npt.NDArray[np.float32]  # (C, h, w) in [0, 1]

_COUNT, _SAMPLES, _STEPS = 8, 8, 8
_LARGEST = 128  # px; larger pictures are scaled down
_LOSSLESS_PX = 64  # up to this side every pixel is kept
_GAP = 0.06  # between pictures, of their larger side
_UNREADABLE = (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError, UserError)


@dataclass(frozen=True)
class Strip:
    """One row of a contact sheet; without an address, `why` says what is missing.

    Attributes:
        label: the cell, or what else the row shows.
        note: a number or a word beside it.
        source: data URI of one image that holds the row's pictures.
        width: of that image, px.
        height: of that image, px.
        why: why there are no pictures.
    """

    label: str
    note: str
    source: str = ""
    width: int = 0
    height: int = 0
    why: str = ""


@dataclass(frozen=True)
class Sheet:
    """Rows of pictures in which a column is the same input, the same draw or the same step for every cell."""

    key: str
    title: str
    lead: str
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class _Drawn:
    """What one cell's selected weights draw; None where it does not apply; `why`: the weights cannot be used."""

    series: Series
    reconstructions: Pictures | None = None
    samples: Pictures | None = None
    walk: Pictures | None = None
    why: str = ""


def contact_sheets(ablation: Ablation, shown: Sequence[Series]) -> tuple[list[Sheet], list[LeftOut]]:
    """Draw with the selected weights of the first finished run of each cell.

    Returns:
        The sheets, and those left out with the reason.
    """
    titles = ("Reconstructions", "Samples from the prior", "Interpolations")
    if not shown:
        return [], [LeftOut(title, "no cell has a finished run") for title in titles]
    if not any(weights_file(ablation.study, series.cell.done[0]) for series in shown):
        return [], [LeftOut(title, "the selected weights are not here") for title in titles]
    try:
        dataset = seen_dataset(ablation.results)
    except UserError as error:
        return [], [LeftOut(title, error.messages[0].rstrip(".")) for title in titles]
    chosen, pair = spread(dataset, _COUNT), _pair(dataset)
    drawn = [_draw(ablation, series, dataset, chosen, pair) for series in shown]
    sheets, left_out = [], []
    targets = [_pixels(dataset, index) for index in chosen]
    sheets.append(Sheet("reconstructions", titles[0], _lead(ablation, shown, len(chosen)), _strips(
        [("test images", "", targets, ""),
         *((one.series.label, _error(one.series), one.reconstructions, one.why) for one in drawn)])))  # fmt: skip
    if any(one.samples for one in drawn):
        words = "z drawn from the prior, the same draw in each column wherever latents have one size."
        rows = [(one.series.label, "", one.samples, one.why or "no prior to draw from") for one in drawn]
        sheets.append(Sheet("samples", titles[1], words, _strips(rows)))
    else:
        left_out.append(LeftOut(titles[1], "no shown cell has a prior to draw from"))
    if any(one.walk for one in drawn):
        words = (
            "From one test image (left) to another (right): means of their posteriors, joined by a straight line in z."
        )
        rows = [(one.series.label, "", one.walk, one.why or "codes of this model do not interpolate") for one in drawn]
        first, last = (_pixels(dataset, index) for index in pair)
        ends = [first, *[None] * (_STEPS - 2), last]
        sheets.append(Sheet("walks", titles[2], words, _strips([("the two test images", "", ends, ""), *rows])))
    else:
        left_out.append(LeftOut(titles[2], "codes of the shown cells do not interpolate"))
    return sheets, left_out


def _lead(ablation: Ablation, shown: Sequence[Series], count: int) -> str:
    seeds = ", ".join(str(seed) for seed in sorted({series.cell.done[0].seed for series in shown}))
    rest = len(ablation.results.measured) - len(shown)
    words = f"{count} test images, seed {seeds}, selected weights, z sampled once; MSE: mean over seeds and images."
    return f"{words} {rest} more cells are not shown." if rest else words


def _error(series: Series) -> str:
    entry = series.row.entries.get(MSE)
    return f"MSE {entry.mean:.4f}" if entry and entry.mean is not None else ""


def _pair(dataset: "Dataset") -> npt.NDArray[np.int64]:
    """Return two test images of nearly the same, usual size, of different labels where there are labels."""
    indices = dataset.splits["test"]
    sizes = dataset.sizes[indices].astype(np.float64)
    order = indices[np.argsort(np.abs(sizes - np.median(sizes, axis=0)).sum(axis=1), kind="stable")]
    if dataset.labels is None:
        return order[:2]
    others = order[dataset.labels[order] != dataset.labels[order[0]]]
    return np.array([order[0], others[0] if len(others) else order[-1]])


def _pixels(dataset: "Dataset", index: np.int64) -> _Picture:
    return dataset.image(int(index)).astype(np.float32) / np.float32(255)


def _draw(
    ablation: Ablation,
    series: Series,
    dataset: "Dataset",
    chosen: npt.NDArray[np.int64],
    pair: npt.NDArray[np.int64],
) -> _Drawn:
    from vae_core.figures import prior_samples

    run = series.cell.done[0]
    if run.data_fingerprint not in (None, dataset.fingerprint):
        return _Drawn(series, why="trained on other data")
    try:
        model, evaluator = selected_model(ablation.study, run, dataset)
        reconstructions = [picture.numpy() for picture in evaluator.reconstruct(model, chosen)]
        samples = None
        if model.has_prior:
            drawn = prior_samples(model, _SAMPLES, evaluator.typical_size, evaluator.multiple)
            samples = [picture.numpy() for picture in drawn]
        return _Drawn(series, reconstructions, samples, _walk(model, evaluator, dataset, pair))
    except _UNREADABLE as error:
        return _Drawn(series, why=f"best.pt cannot be used here ({type(error).__name__})")


def _walk(
    model: "LatentModel", evaluator: "Evaluator", dataset: "Dataset", pair: npt.NDArray[np.int64]
) -> Pictures | None:
    """Decode points between two images' posterior means, at the first one's size; None where z does not allow it."""
    import torch

    from vae_core.data.batches import load_batch
    from vae_core.evaluation import evaluating

    if len(pair) < 2:
        return None
    with evaluating(model):
        batches = [load_batch(dataset, pair[[place]], evaluator.multiple, "cpu") for place in (0, 1)]
        ends = [
            model.infer(batch.inputs, torch.zeros(1, model.noise_size(batch.padded_size)), batch.labels)
            for batch in batches
        ]
        first, last = ends
        if first.z.shape != last.z.shape or first.skips or first.groups or first.code_counts is not None:
            return None
        share = torch.linspace(0, 1, _STEPS).reshape(-1, *[1] * (first.z.dim() - 1))
        z = torch.lerp(first.z.expand(_STEPS, *first.z.shape[1:]), last.z, share)
        labels = batches[0].labels.expand(_STEPS)
        images = torch.sigmoid(model.decode(z, batches[0].padded_size, labels).float())
        height, width = batches[0].sizes[0].tolist()
        return [image[:, :height, :width].numpy() for image in images]


def _strips(rows: Sequence[tuple[str, str, Sequence[_Picture | None] | None, str]]) -> tuple[Strip, ...]:
    """Return one strip per (label, note, pictures, why there are none); None leaves a place empty."""
    shrunk = [
        None if pictures is None else [None if picture is None else _shrunk(picture) for picture in pictures]
        for _, _, pictures, _ in rows
    ]
    known = [picture for pictures in shrunk for picture in pictures or [] if picture is not None]
    width = max(picture.shape[2] for picture in known)
    columns = max(len(pictures or []) for pictures in shrunk)
    strips = []
    for (label, note, _, why), pictures in zip(rows, shrunk, strict=True):
        if pictures is None:
            strips.append(Strip(label, note, why=why))
        else:
            joined = _joined(pictures, width, columns)
            strips.append(Strip(label, note, _data_uri(joined), joined.shape[1], joined.shape[0]))
    return tuple(strips)


def _shrunk(picture: _Picture) -> _Picture:
    """Return `(C, h, w)` with no side above `_LARGEST`, averaged over the pixels it merges."""
    from PIL import Image

    _, height, width = picture.shape
    scale = _LARGEST / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    layers = [np.asarray(Image.fromarray(layer).resize(size, Image.Resampling.BOX)) for layer in picture]
    return np.stack(layers)


def _joined(pictures: Sequence[_Picture | None], width: int, columns: int) -> npt.NDArray[np.uint8]:
    """Return the pictures side by side, `(H, W, 2)` gray and alpha or `(H, W, 4)`; transparent between them."""
    height = max(picture.shape[1] for picture in pictures if picture is not None)
    channels = next(picture.shape[0] for picture in pictures if picture is not None)
    gap = max(1, round(_GAP * max(width, height)))
    canvas = np.zeros((height, columns * (width + gap) - gap, channels + 1), dtype=np.uint8)
    for column, picture in enumerate(pictures):
        if picture is None:
            continue
        _, h, w = picture.shape
        left = column * (width + gap)
        canvas[:h, left : left + w, :-1] = np.rint(255 * picture.clip(0, 1)).transpose(1, 2, 0)
        canvas[:h, left : left + w, -1] = 255
    return canvas


def _data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Return small pictures losslessly, larger ones as browsers need them."""
    from PIL import Image

    image = Image.fromarray(pixels, "LA" if pixels.shape[2] == 2 else "RGBA")
    buffer = io.BytesIO()
    lossless = pixels.shape[0] <= _LOSSLESS_PX
    image.convert("RGBA").save(buffer, "WEBP", lossless=lossless, quality=80, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
