"""The page's tables of words: results, differences to the baseline, matrices, the collapse map, every run."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.ablation import Ablation, Matrix, TableRow
from experiments.columns import ACTIVE_UNITS, KL, Column
from experiments.comparability import DIFFERENT_IMAGES
from experiments.matrices import has_two_axes
from experiments.naming import short_label
from experiments.page.parts import LeftOut, finite
from experiments.results import CellResult
from experiments.run_result import RunResult
from experiments.wording import difference_numbers
from tracking.replay import run_name

MOST_ROWS = 200  # of a table of cells
_MOST_RUNS = 500
_MOST_MAPPED = 60  # cells of the collapse map
_SYMBOLS = {
    "none": "○",
    "partial": "◐",
    "ignored": "⊘",
    "full": "●",
    "failed": "✕",
    "pruned": "✂",
    "running": "…",
    "waiting": "·",
}
_MOST_MATRIX = (30, 16)  # rows, columns
_STRONGEST = 34  # percent of the accent colour behind a matrix's best value


@dataclass(frozen=True)
class Difference:
    """A comparison in words; `holds`: it is significant after correction."""

    value: str
    interval: str
    effect: str
    p: str
    sign_flip: str
    holds: bool


@dataclass(frozen=True)
class DifferenceRow:
    """One cell's differences, one per compared column; None where there is none."""

    name: str
    differences: tuple[Difference | None, ...]


@dataclass(frozen=True)
class Shaded:
    """A matrix's place: text, and how strongly it is shaded, in percent; `best` as in the table."""

    text: str
    shade: int
    best: bool


@dataclass(frozen=True)
class ShadedMatrix:
    """A matrix as the page shows it."""

    matrix: Matrix
    rows: tuple[tuple[str, tuple[Shaded, ...]], ...]
    words: str


@dataclass(frozen=True)
class Mapped:
    """One run in the collapse map: a symbol, a word that is also the name of its look, and numbers."""

    symbol: str
    word: str
    numbers: str


@dataclass(frozen=True)
class CollapseMap:
    """Cells by seeds; `rest`: how many cells are not shown."""

    seeds: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Mapped | None, ...]], ...]
    key: tuple[tuple[str, str], ...]
    rest: int


@dataclass(frozen=True)
class RunRow:
    """One run of any state."""

    name: str
    run: RunResult
    verdict: str
    minutes: str


def result_rows(ablation: Ablation) -> tuple[list[TableRow], list[TableRow], int]:
    """Return the cells' rows that are shown, the references' rows, and how many rows of cells are not shown.

    Of many cells the first are shown, and the baseline and the best of each column wherever they stand.
    """
    cells = ablation.cells
    if len(cells) <= MOST_ROWS:
        return cells, ablation.reference_rows, 0
    marked = [
        row
        for row in cells[MOST_ROWS:]
        if row.cell is ablation.baseline or any(entry.best for entry in row.entries.values())
    ]
    return [*cells[:MOST_ROWS], *marked], ablation.reference_rows, len(cells) - MOST_ROWS - len(marked)


def difference_rows(ablation: Ablation, rows: Sequence[TableRow]) -> list[DifferenceRow]:
    """Return the differences to the baseline of the rows that have any."""
    found = [
        DifferenceRow(row.name, tuple(_difference(row, column) for column in ablation.compared))
        for row in rows
        if row.cell is not None and row.cell is not ablation.baseline
    ]
    return [row for row in found if any(row.differences)]


def _difference(row: TableRow, column: Column) -> Difference | None:
    comparison = row.entries[column.key].comparison
    if comparison is None:
        return None
    value, *ends = difference_numbers(comparison, column)
    sign = "+" if comparison.difference > 0 else ""
    return Difference(
        value=_minus(f"{sign}{value}"),
        interval=_minus(f"[{', '.join(ends)}]") if ends else "",
        effect="" if comparison.effect is None else _minus(f"d {comparison.effect:.2f}"),
        p=_p("p", comparison.p),
        sign_flip=_p("sign-flip p", comparison.sign_flip_p),
        holds=comparison.holds,
    )


def _p(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{name} < 0.001" if value < 0.001 else f"{name} = {value:.3f}"


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def shaded_matrices(ablation: Ablation) -> list[ShadedMatrix] | LeftOut:
    """Return the study's matrices, better values more strongly shaded, or larger ones where neither is better."""
    title, results = "Two axes as matrices", ablation.results
    if has_two_axes(results) and not ablation.matrices:
        why = "no column shown is comparable between cells" if results.one_data_set else DIFFERENT_IMAGES
        return LeftOut(title, why)
    for matrix in ablation.matrices[:1]:
        height, width = len(matrix.row_values), len(matrix.column_values)
        if height > _MOST_MATRIX[0] or width > _MOST_MATRIX[1]:
            return LeftOut(title, f"{height} by {width} values are too many for a page")
    return [_shaded(matrix) for matrix in ablation.matrices]


def _shaded(matrix: Matrix) -> ShadedMatrix:
    means = [entry.mean for row in matrix.entries for entry in row if entry and entry.mean is not None]
    low, high = min(means, default=0.0), max(means, default=0.0)
    is_lower = matrix.column.direction == "lower"
    rows = []
    for name, entries in zip(matrix.row_values, matrix.entries, strict=True):
        places = []
        for entry in entries:
            if entry is None or entry.mean is None or high == low:
                places.append(Shaded("–" if entry is None else entry.text, 0, best=False))
                continue
            share = (entry.mean - low) / (high - low)
            shade = round(_STRONGEST * (1 - share if is_lower else share))
            places.append(Shaded(entry.text, shade, entry.best))
        rows.append((name, tuple(places)))
    words = "Darker is better" if matrix.column.direction else "Darker is more"
    return ShadedMatrix(matrix, tuple(rows), words)


def collapse_map(ablation: Ablation) -> CollapseMap | LeftOut:
    """Return the verdict of every cell and seed."""
    results = ablation.results
    if not results.measured:
        return LeftOut("Collapse map", "no run has a verdict yet")
    seeds = sorted({run.seed for run in results.runs})
    cells = results.cells[:_MOST_MAPPED]
    rows = tuple((short_label(results, cell), tuple(_mapped(cell, seed) for seed in seeds)) for cell in cells)
    met = {place.word for _, places in rows for place in places if place}
    key = tuple((symbol, word) for word, symbol in _SYMBOLS.items() if word in met)
    return CollapseMap(tuple(seeds), rows, key, len(results.cells) - len(cells))


def _mapped(cell: CellResult, seed: int) -> Mapped | None:
    run = next((run for run in cell.runs if run.seed == seed), None)
    if run is None:
        return None
    word = run.verdict if run.state == "done" and run.verdict else run.state
    units, kl = finite(run.metrics, ACTIVE_UNITS), finite(run.metrics, KL)
    numbers = [f"AU {units:g}" if units is not None else "", f"KL {kl:.3g}" if kl is not None else ""]
    return Mapped(_SYMBOLS.get(word, "?"), word, ", ".join(number for number in numbers if number))


def run_rows(ablation: Ablation) -> tuple[list[RunRow], int]:
    """Return every run under its name in MLflow, at most 500 of them, and how many are not shown."""
    rows = [
        RunRow(run_name(cell.cell, cell.params, run.seed), run, run.verdict or "–", f"{run.seconds / 60:.1f}")
        for cell in ablation.results.cells
        for run in cell.runs
    ]
    return rows[:_MOST_RUNS], max(0, len(rows) - _MOST_RUNS)
