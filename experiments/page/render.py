"""The HTML report: one file that needs nothing else, no network, and no script to be read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.ablation import Ablation, TableRow
from experiments.circumstances import of_provenance
from experiments.comparability import comparable
from experiments.markdown_table import head
from experiments.page.curves import kl_spectra, learning_curves
from experiments.page.histories import read_curves
from experiments.page.metrics import metric_charts
from experiments.page.parts import FigureGroup, LeftOut, left_out_words, shown_series
from experiments.page.pictures import Sheet, contact_sheets
from experiments.page.planes import pareto, rate_distortion
from experiments.page.space import importance, parallel_coordinates
from experiments.page.tables import (
    CollapseMap,
    DifferenceRow,
    RunRow,
    ShadedMatrix,
    collapse_map,
    difference_rows,
    result_rows,
    run_rows,
    shaded_matrices,
)
from experiments.study_files import read_facts


@dataclass(frozen=True)
class _Study:
    """One study as the template takes it."""

    anchor: str
    ablation: Ablation
    heads: dict[str, str]
    rows: list[TableRow]
    reference_rows: list[TableRow]
    rows_left: int
    differences: list[DifferenceRow]
    matrices: list[ShadedMatrix]
    figures: list[list[FigureGroup]]
    map: CollapseMap | None
    sheets: list[Sheet]
    left_out: list[LeftOut]
    versions: dict[str, str]
    runs: list[RunRow]
    runs_left: int


def render_page(ablations: Sequence[Ablation]) -> str:
    """Return the report of one or several studies as an HTML document.

    Equal studies give equal text, but for what they cost, versions and machine. Figures that do not apply are left out
    with the reason. Draws pictures with the runs' selected weights, which takes seconds per study.

    Args:
        ablations: at least one; every study is a section.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("experiments.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    anchors = _anchors([found.results.name for found in ablations])
    studies = [_study(found, anchor) for found, anchor in zip(ablations, anchors, strict=True)]
    page: str = environment.get_template("report.html.j2").render(studies=studies, page_title=_title(ablations))
    return page


def _title(ablations: Sequence[Ablation]) -> str:
    if len(ablations) == 1:
        return f"{ablations[0].results.name}: {ablations[0].results.question}"
    return f"Report: {', '.join(found.results.name for found in ablations)}"


def _anchors(names: Sequence[str]) -> list[str]:
    """Return ids that a link can hold, each once."""
    return [f"s{number}-{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}" for number, name in enumerate(names, 1)]


def _study(ablation: Ablation, anchor: str) -> _Study:
    figures, left_out = _figures(ablation, anchor)
    found_map = collapse_map(ablation)
    if isinstance(found_map, LeftOut):
        left_out.append(found_map)
    matrices = shaded_matrices(ablation)
    if isinstance(matrices, LeftOut):
        left_out.append(matrices)
    sheets, without = contact_sheets(ablation, shown_series(ablation))
    rows, references, rows_left = result_rows(ablation)
    runs, runs_left = run_rows(ablation)
    return _Study(
        anchor=anchor,
        ablation=ablation,
        heads={column.key: head(column, ablation.results) for column in ablation.columns},
        rows=rows,
        reference_rows=references,
        rows_left=rows_left,
        differences=difference_rows(ablation, rows),
        matrices=[] if isinstance(matrices, LeftOut) else matrices,
        figures=_side_by_side(figures),
        map=None if isinstance(found_map, LeftOut) else found_map,
        sheets=sheets,
        left_out=[*left_out, *without],
        versions=_versions(ablation),
        runs=runs,
        runs_left=runs_left,
    )


def _figures(ablation: Ablation, anchor: str) -> tuple[list[FigureGroup], list[LeftOut]]:
    """Return the charts that apply to the study, and why the others do not."""
    same_elbo = comparable(ablation.results)
    shown = shown_series(ablation)
    curves = read_curves(ablation.study, shown)
    note = left_out_words(ablation, shown)
    with importance(ablation, anchor, same_elbo=same_elbo) as drawn_importance:  # computed beside the others
        found: list[FigureGroup | LeftOut] = [
            metric_charts(ablation, anchor, same_elbo=same_elbo),
            learning_curves(curves, anchor, same_elbo=same_elbo, note=note),
            rate_distortion(ablation, anchor, same_elbo=same_elbo),
            pareto(ablation, anchor, same_elbo=same_elbo),
            kl_spectra(curves, anchor, note),
            parallel_coordinates(ablation, anchor, same_elbo=same_elbo),
        ]
        found.insert(-1, drawn_importance())
    groups = [one for one in found if isinstance(one, FigureGroup)]
    return groups, [one for one in found if isinstance(one, LeftOut)]


def _side_by_side(groups: Sequence[FigureGroup]) -> list[list[FigureGroup]]:
    """Return neighbours of one narrow chart each together, for the page to set side by side."""
    found: list[list[FigureGroup]] = []
    for group in groups:
        if group.is_narrow and found and found[-1][-1].is_narrow:
            found[-1].append(group)
        else:
            found.append([group])
    return found


def _versions(ablation: Ablation) -> dict[str, str]:
    """Return code, packages and machine that the study was started with; empty where nothing is known."""
    file = ablation.study.provenance_file
    provenance = read_facts(file) if file.is_file() else {}
    found = of_provenance(provenance) if provenance else {}
    return found | ({"command": str(provenance["command"])} if provenance.get("command") else {})
