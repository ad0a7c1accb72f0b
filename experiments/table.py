"""The ablation table as numbers: one row per cell and per reference, one column per metric."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.estimates import Estimate, digits, estimate
from experiments.references import References
from experiments.results import CellResult, RunResult, StudyResults

ELBO, RECONSTRUCTION, KL, ACTIVE_UNITS = "test/elbo", "test/reconstruction", "test/kl", "test/active_units"
ROUGHNESS = "train/roughness"
SSIM, LPIPS, MSE, PCA_MSE = "test/ssim", "test/lpips", "test/mse", "pca_au/mse"


@dataclass(frozen=True)
class Column:
    """A metric's column; `usual` decimals where there is no interval, never more than `most`."""

    key: str
    title: str
    usual: int
    most: int


_COLUMNS = (
    Column(ELBO, "ELBO ↑", 1, 3),
    Column(RECONSTRUCTION, "reconstruction ↓", 1, 3),
    Column(KL, "KL", 2, 3),
    Column(SSIM, "SSIM ↑", 3, 4),
    Column(LPIPS, "LPIPS ↓", 3, 4),
    Column(MSE, "MSE ↓", 5, 5),
    Column(PCA_MSE, "PCA(AU) MSE", 5, 5),
    Column(ACTIVE_UNITS, "AU", 1, 1),
    Column(ROUGHNESS, "roughness ↓", 2, 3),
)


@dataclass(frozen=True)
class Row:
    """A cell or a reference.

    Attributes:
        name: the cell's name or the reference's.
        cell: None for a reference.
        estimates: metric -> mean over seeds.
    """

    name: str
    cell: CellResult | None
    estimates: Mapping[str, Estimate]

    def number(self, column: Column) -> tuple[str, str | None]:
        """Return mean and half-width as text; an en dash where there is no number."""
        found = self.estimates.get(column.key)
        if found is None:
            return "–", None
        if column.key == PCA_MSE:  # no estimate over seeds, but a reference for as many units as they use
            return f"{found.mean:.{column.usual}f}", None
        whole = column.key == ACTIVE_UNITS and found.mean.is_integer() and not found.half_width
        return digits(found, 0 if whole else column.usual, column.most)

    @property
    def verdict(self) -> str:
        """Return `none 2/2` where all finished runs agree, else `partial 1, none 1`."""
        if self.cell is None or not self.cell.done:
            return "–"
        counts = self.cell.verdicts.most_common()
        if len(counts) == 1:
            return f"{counts[0][0]} {counts[0][1]}/{len(self.cell.done)}"
        return ", ".join(f"{name} {count}" for name, count in counts)

    @property
    def seeds(self) -> str:
        """Return the number of finished runs, of how many where some are missing."""
        if self.cell is None:
            return "–"
        done, planned = len(self.cell.done), len(self.cell.runs)
        return str(done) if done == planned else f"{done}/{planned}"


def columns(results: StudyResults) -> list[Column]:
    """Return the columns: LPIPS where a run measured it, roughness where the size of the batches is swept."""
    hidden = set()
    if not any(LPIPS in run.metrics for run in results.runs):
        hidden.add(LPIPS)
    if not has_roughness(results):
        hidden.add(ROUGHNESS)
    return [column for column in _COLUMNS if column.key not in hidden]


def has_roughness(results: StudyResults) -> bool:
    """Return whether the roughness of learning curves is a question of this study."""
    return results.is_swept("train.effective_batch")


def cell_rows(results: StudyResults, references: References) -> list[Row]:
    """Return one row per cell, in the order in which they were asked for."""
    return [_cell_row(cell, results, references) for cell in results.cells]


def reference_rows(references: References) -> list[Row]:
    """Return one row per reference."""
    return [_reference_row(row.name, row.metrics) for row in references.rows]


def _cell_row(cell: CellResult, results: StudyResults, references: References) -> Row:
    found = {}
    for key in dict.fromkeys(key for run in cell.done for key in run.metrics):
        found[key] = estimate(cell.values(key))
    found[PCA_MSE] = estimate(_pca_mse(cell.done, results, references))
    return Row(cell.cell, cell, {key: value for key, value in found.items() if value is not None})


def _pca_mse(runs: list[RunResult], results: StudyResults, references: References) -> list[float]:
    """Return for each run PCA's MSE with as many components as the run has active units, on the same data."""
    return [
        mse
        for run in runs
        if run.data_fingerprint in (None, results.data.get("fingerprint"))
        and (mse := references.mse_of_pca(run.metrics[ACTIVE_UNITS])) is not None
    ]


def _reference_row(name: str, metrics: Mapping[str, float]) -> Row:
    shown = {column.key for column in _COLUMNS}
    values = {key: Estimate(value, None, 1) for key, value in metrics.items() if key in shown}
    return Row(name, None, values)


def plain(value: Any) -> str:
    """Return a swept value for reading: 100.0 as 100."""
    return f"{value:g}" if isinstance(value, float) else str(value)
