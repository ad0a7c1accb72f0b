"""Figures of one model as PNG files: reconstructions, samples from the prior, the KL spectrum.

Shapes: C channels, h x w real pixels, M latent dimensions. Drawn without pyplot, so nothing global is
touched, and without time stamps, so equal numbers give equal files.
"""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vae_core.data.batches import padded_size
from vae_core.diagnostics import ACTIVE_VARIANCE
from vae_core.evaluation import Evaluator, evaluating
from vae_core.models.latent import LatentModel
from vae_core.random_streams import generator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 100
_CELL = 1.25  # inches; the widest side of one picture
_SAMPLES = 16
_RECONSTRUCTIONS = 8
_MOST_LABELS = 12  # rows of samples
_ACTIVE, _INACTIVE = "#2a6f97", "#c9cdd2"


def write_figures(
    model: LatentModel, evaluator: Evaluator, folder: Path, epoch: int, vectors: Mapping[str, Sequence[float]]
) -> list[Path]:
    """Write reconstructions, samples where there is a prior, the KL spectrum where measured; return the paths.

    Args:
        model: left in the mode (train or eval) that it was in.
        evaluator: gives the validation images and their reconstructions.
        folder: made where missing.
        epoch: number of finished epochs, part of the names and titles.
        vectors: of this model's evaluation; empty where there was none.
    """
    targets, reconstructions = evaluator.examples(model, _RECONSTRUCTIONS)
    corrupted = evaluator.corrupted_examples(model, _RECONSTRUCTIONS)
    title = f"epoch {epoch}, validation images"
    pages = {"reconstructions": draw_reconstructions(targets, reconstructions, title, corrupted)}
    if model.has_prior:
        pages["prior_samples"] = _page_of_samples(model, evaluator, f"epoch {epoch}")
    if vectors:
        kl, mu_std = vectors["kl_per_dim"], vectors["mu_std_per_dim"]
        pages["kl_spectrum"] = draw_kl_spectrum(kl, mu_std, f"epoch {epoch}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}_{epoch:04d}.png" for name in pages]
    for path, page in zip(paths, pages.values(), strict=True):
        _write_atomically(path, page)
    return paths


def _page_of_samples(model: LatentModel, evaluator: Evaluator, title: str) -> bytes:
    size, multiple = evaluator.typical_size, evaluator.multiple
    if not model.classes:
        return draw_samples(prior_samples(model, _SAMPLES, size, multiple), title)
    names = evaluator.label_names[:_MOST_LABELS]
    rows = [prior_samples(model, _SAMPLES // 2, size, multiple, label) for label in range(len(names))]
    return draw_labelled_samples(dict(zip(names, rows, strict=True)), title)


def prior_samples(model: LatentModel, count: int, size: tuple[int, int], multiple: int, label: int = 0) -> list[Tensor]:
    """Decode `count` draws from the prior, made from the same noise for every model of one latent size.

    Args:
        model: the model; on any device.
        count: number of images.
        size: height and width of the images (px).
        multiple: px; they are decoded at `size` rounded up to this, as padded training images are, and cut.
        label: what a conditional model is told; draws of different labels share their z.

    Returns:
        Images `(C, h, w)` float32 in [0, 1] on the CPU.
    """
    padded = padded_size(size, multiple)
    noise = torch.randn(count, model.noise_size(padded), generator=generator("prior-samples"))
    device = next(model.parameters()).device
    with evaluating(model):
        logits = model.decode(model.prior(noise.to(device), padded), padded, torch.full((count,), label))
        images = torch.sigmoid(logits.float()).cpu()
    return list(images[:, :, : size[0], : size[1]])


def draw_reconstructions(
    targets: Sequence[Tensor],
    reconstructions: Sequence[Tensor],
    title: str,
    corrupted: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
) -> bytes:
    """Return a PNG with the targets in the upper row and their reconstructions below.

    Args:
        targets: images `(C, h, w)` in [0, 1] of one or three channels, of any sizes.
        reconstructions: as many, of the same sizes.
        title: what stands above.
        corrupted: the targets corrupted, and what is reconstructed from these: two further rows.
    """
    figure, rows = _picture_grid([targets, reconstructions, *(corrupted or ())])
    figure.suptitle(f"Target and reconstruction: {title}", fontsize=11)
    for name, row in zip(("target", "reconstruction", "corrupted", "restored"), rows, strict=False):
        row[0].set_ylabel(name, fontsize=10)
    return _png(figure)


def draw_samples(images: Sequence[Tensor], title: str) -> bytes:
    """Return a PNG with the `images` `(C, h, w)` in [0, 1] in two rows."""
    half = -(-len(images) // 2)
    figure, _ = _picture_grid([images[:half], images[half:]])
    figure.suptitle(f"Samples from the prior: {title}", fontsize=11)
    return _png(figure)


def draw_labelled_samples(rows: Mapping[str, Sequence[Tensor]], title: str) -> bytes:
    """Return a PNG with a row of samples `(C, h, w)` in [0, 1] for each label, z being the same in a column."""
    figure, lines = _picture_grid(list(rows.values()))
    figure.suptitle(f"Samples from the prior by label: {title}", fontsize=11)
    for name, line in zip(rows, lines, strict=True):
        line[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    return _png(figure)


def draw_kl_spectrum(kl_per_dim: Sequence[float], mu_std_per_dim: Sequence[float], title: str) -> bytes:
    """Return a PNG with the KL of each dimension, largest first, active units in colour.

    Args:
        kl_per_dim: nats, M numbers.
        mu_std_per_dim: standard deviation of mu over images, M numbers; active where its square exceeds 0.01.
        title: what stands above.
    """
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    kl = np.asarray(kl_per_dim, dtype=np.float64)
    active = np.square(np.asarray(mu_std_per_dim, dtype=np.float64)) > ACTIVE_VARIANCE
    order = np.argsort(-kl, kind="stable")
    figure = _figure(min(12.0, max(5.0, 1.5 + 0.22 * len(kl))), 3.2)
    axes = figure.add_subplot()
    colours = [_ACTIVE if is_active else _INACTIVE for is_active in active[order]]
    axes.bar(np.arange(1, len(kl) + 1), kl[order], color=colours, width=0.8)
    count = int(active.sum())
    axes.legend(
        handles=[
            Patch(color=_ACTIVE, label=f"{count} active"),
            Patch(color=_INACTIVE, label=f"{len(kl) - count} inactive"),
        ],
        frameon=False,
        loc="upper right",
    )
    axes.set_xlabel("latent dimension, sorted")
    axes.set_ylabel("KL (nats)")
    axes.set_xlim(0.3, len(kl) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"KL spectrum: {title}, {kl.sum():.3g} nats in all", fontsize=11)
    return _png(figure)


def _picture_grid(rows: Sequence[Sequence[Tensor]]) -> tuple["Figure", list[list["Axes"]]]:
    """Return a figure of one picture per cell; all pictures are drawn to one scale, pixels as squares."""
    columns = max(len(row) for row in rows)
    sides = np.array([image.shape[-2:] for row in rows for image in row])
    height, width = (int(side) for side in sides.max(axis=0))
    inches = _CELL / max(height, width)
    size = (max(4.5, columns * (width * inches + 0.08) + 0.5), len(rows) * (height * inches + 0.08) + 0.5)
    figure = _figure(*size)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.spines[:].set_visible(False)
    for line, row in zip(grid, rows, strict=True):
        for axes, image in zip(line, row, strict=False):
            axes.imshow(
                _pixels(image),
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
                extent=(-0.5, image.shape[2] - 0.5, image.shape[1] - 0.5, -0.5),
            )
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return figure, [list(line) for line in grid]


def _pixels(image: Tensor) -> npt.NDArray[np.float32]:
    """Return `(h, w)` for gray and `(h, w, 3)` for RGB, clipped to [0, 1]."""
    pixels: npt.NDArray[np.float32] = image.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # takes most of a second, which only drawing should pay

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
