"""Learning curves: what val metrics did over epochs, mean and spread over seeds; and spectra of the KL."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from experiments.page.axes import plain_ticks
from experiments.page.histories import Curves
from experiments.page.parts import FigureGroup, LeftOut, Numbers, Panel, finite
from experiments.page.svg import INK, MUTED, inline_svg, new_axes, page_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_USED_KL = 0.1  # nats: from here NVAE counts a dimension as used
_PANELS = (
    ("val/elbo", "ELBO (val)", "nats per image"),
    ("val/kl", "KL (val)", "nats per image"),
    ("val/ssim", "SSIM (val)", "SSIM"),
    ("val/mse", "MSE (val)", "squared pixel units"),
    ("latent/active_units", "Active units (val)", "dimensions"),
)
_BAND = 1.2  # opacity of all bands together
_FLOOR = 1e-4  # nats; smaller KLs are drawn here


def learning_curves(curves: Sequence[Curves], prefix: str, *, same_elbo: bool, note: str) -> FigureGroup | LeftOut:
    """Draw every val metric that was measured more than once.

    Args:
        curves: of the cells to show.
        prefix: what the charts' ids start with.
        same_elbo: whether the cells' ELBOs mean the same; else they are not drawn together.
        note: a sentence on the cells that are not among them.
    """
    title = "Learning curves"
    panels, rows = [], []
    for number, (key, name, unit) in enumerate(_PANELS):
        if key == "val/elbo" and not same_elbo:
            continue
        found = [(curve, _stack(curve, key)) for curve in curves]
        if max((len(epochs) for _, (epochs, _) in found), default=0) < 2:
            continue
        panels.append(_panel(f"{prefix}-curve{number}", name, unit, key, curves, found))
        rows += [(curve.series.label, name, *_ends(epochs, values)) for curve, (epochs, values) in found if len(epochs)]
    if not panels:
        return LeftOut(title, "no cell has finished two epochs on every seed")
    lead = "Line: mean over seeds; band: from the lowest to the highest seed; dotted: a run that did not finish." + note
    legend = tuple(curve.series.legend for curve in curves)
    numbers = Numbers(
        ("cell", "metric", "first epoch", "last epoch of all seeds", "lowest to highest seed there"), tuple(rows)
    )
    return FigureGroup("curves", title, lead, tuple(panels), legend, numbers)


def _stack(curve: Curves, key: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the epochs that all finished runs of a cell measured, and their values `(runs, epochs)`."""
    done = [view.epochs for view in curve.runs if view.run.state == "done"]
    known = [{epoch for epoch, metrics in epochs.items() if finite(metrics, key) is not None} for epochs in done]
    shared = sorted(set.intersection(*known)) if known else []
    values = [[epochs[epoch][key] for epoch in shared] for epochs in done]
    return np.array(shared, dtype=np.int64), np.array(values, dtype=np.float64)


def _panel(
    key: str,
    name: str,
    unit: str,
    metric: str,
    curves: Sequence[Curves],
    found: Sequence[tuple[Curves, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]],
) -> Panel:
    with page_style(key):
        figure, axes = new_axes()
        for curve, (epochs, values) in found:
            colour, dash = curve.series.colour, curve.series.dash
            if len(epochs):
                axes.fill_between(
                    epochs,
                    values.min(axis=0),
                    values.max(axis=0),
                    color=colour,
                    alpha=min(0.2, _BAND / len(found)),
                    linewidth=0,
                )
                axes.plot(epochs, values.mean(axis=0), color=colour, linestyle=dash)
        for curve in curves:
            _draw_unfinished(axes, curve, metric)
        axes.grid(axis="y")
        axes.set(xlabel="epoch", ylabel=unit)
        plain_ticks(axes.xaxis, whole=True)
        return Panel(name, inline_svg(figure, key, f"{name} in {unit} over epochs, one line per cell."))


def _draw_unfinished(axes: "Axes", curve: Curves, metric: str) -> None:
    for view in curve.runs:
        if view.run.state != "done":
            points = [(epoch, metrics[metric]) for epoch, metrics in sorted(view.epochs.items())
                      if finite(metrics, metric) is not None]  # fmt: skip
            if len(points) > 1:
                axes.plot(*zip(*points, strict=True), color=curve.series.colour, linestyle=":", linewidth=1)


def _ends(epochs: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> tuple[str, str, str]:
    mean = values.mean(axis=0)
    return (
        f"{mean[0]:.4g} (epoch {epochs[0]})",
        f"{mean[-1]:.4g} (epoch {epochs[-1]})",
        f"{values[:, -1].min():.4g} to {values[:, -1].max():.4g}",
    )


def kl_spectra(curves: Sequence[Curves], prefix: str, note: str) -> FigureGroup | LeftOut:
    """Draw the KL of each latent dimension, largest first, as the median over seeds, one line per cell."""
    title = "KL spectra"
    found = [(curve, _spectrum(curve)) for curve in curves]
    found = [(curve, spectrum) for curve, spectrum in found if len(spectrum)]
    if not found:
        return LeftOut(title, "no finished run has measured the KL of its dimensions")
    key = f"{prefix}-spectra"
    with page_style(key):
        figure, axes = new_axes(5.0, 3.6)
        for curve, spectrum in found:
            ranks = np.arange(1, len(spectrum) + 1)
            shown = np.maximum(spectrum, _FLOOR)
            marker = curve.series.marker if len(spectrum) <= 40 else None
            axes.plot(ranks, shown, color=curve.series.colour, linestyle=curve.series.dash, marker=marker, markersize=3)
        axes.axhline(_USED_KL, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate(
            "0.1 nat", (1.01, _USED_KL), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=INK
        )
        axes.set(xlabel="latent dimension, sorted by KL", ylabel="KL, nats", yscale="log")
        axes.grid(axis="y")
        plain_ticks(axes.xaxis, whole=True)
        plain_ticks(axes.yaxis)
        svg = inline_svg(figure, key, "KL of each latent dimension in nats, largest first, one line per cell.")
    rows = [(curve.series.label, str(int((spectrum > _USED_KL).sum())), f"{spectrum.sum():.4g}",
             ", ".join(f"{value:.3g}" for value in spectrum[:5])) for curve, spectrum in found]  # fmt: skip
    head = ("cell", "dimensions above 0.1 nat", "sum of medians, nats", "five largest, nats")
    lead = (
        "Test KL to the prior of each dimension, sorted within each run; median over seeds, on a logarithmic scale. "
        "Above 0.1 nat a dimension carries something; a curve that drops early uses few dimensions." + note
    )
    legend = tuple(curve.series.legend for curve, _ in found)
    return FigureGroup("spectra", title, lead, (Panel("KL by dimension", svg),), legend, Numbers(head, tuple(rows)))


def _spectrum(curve: Curves) -> npt.NDArray[np.float64]:
    """Return the median over runs of the sorted KLs; runs of another size than the first are left out."""
    sorted_kls = [sorted(view.kl_per_dim, reverse=True) for view in curve.runs if view.kl_per_dim]
    same = [kls for kls in sorted_kls if len(kls) == len(sorted_kls[0])]
    return np.median(np.array(same, dtype=np.float64), axis=0) if same else np.array([])
