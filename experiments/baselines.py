"""Which cell the others are compared with: the sweep's baseline, or the one that a person names."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from experiments.exact_values import exactly
from experiments.results import CellResult, StudyResults
from vae_core.errors import UserError, suggestion
from vae_core.yaml_io import parse_yaml

_MOST_NAMED = 12


def cell_names(results: StudyResults) -> dict[int, str]:
    """Return number of trial -> name of its cell; cells that share a name get the number of their trial too."""
    counts = Counter(cell.cell for cell in results.cells)
    return {
        cell.trial: cell.cell if counts[cell.cell] == 1 else f"{cell.cell} (trial {cell.trial})"
        for cell in results.cells
    }


def chosen_baseline(results: StudyResults, name: str | None) -> CellResult | None:
    """Return the baseline: the cell named, else the sweep's; None where the sweep has none, or names several.

    Args:
        results: the study.
        name: a cell's name, or some of its values (`loss.beta=1`) where only one cell has them.

    Raises:
        UserError: no cell is called so, or several are.
    """
    if name is None:
        marked = [cell for cell in results.cells if cell.is_baseline]
        return marked[0] if len(marked) == 1 else None
    names = cell_names(results)
    found = [cell for cell in results.cells if name in (names[cell.trial], cell.cell)] or _with_values(results, name)
    if len(found) == 1:
        return found[0]
    if found:
        listed = _listed(found, names)
        raise UserError(f"--baseline {name}: {len(found)} cells of {results.name} are called so; {listed}")
    if not results.cells:
        raise UserError(f"--baseline {name}: {results.name} has no cells yet")
    hint = _listed(results.cells, names) if len(names) <= _MOST_NAMED else suggestion(name, names.values())
    raise UserError(f"--baseline {name}: {results.name} has no such cell; {hint}")


def _with_values(results: StudyResults, name: str) -> list[CellResult]:
    """Return the cells that have all the values of `loss.beta=1 model.latent_dim=8`."""
    parts = [part.partition("=") for part in re.split(r" +(?=[\w.]+=)", name.strip())]
    if not all(sign for _, sign, _ in parts):
        return []
    wanted = {path: parse_yaml(text, f"--baseline {path}") for path, _, text in parts}
    return [
        cell
        for cell in results.cells
        if all(exactly(cell.params.get(path)) == exactly(value) for path, value in wanted.items())
    ]


def _listed(cells: Sequence[CellResult], names: Mapping[int, str]) -> str:
    shown = ", ".join(repr(names[cell.trial]) for cell in cells[:_MOST_NAMED])
    return f"valid: {shown}" + (f" and {len(cells) - _MOST_NAMED} more" if len(cells) > _MOST_NAMED else "")
