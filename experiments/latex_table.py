"""Studies as LaTeX: one booktabs table each, its matrices and its differences to the baseline."""

from collections.abc import Iterable, Sequence

from experiments.ablation import Ablation
from experiments.columns import Column
from experiments.entries import Entry, EqualEpochs, Matrix
from experiments.latex_text import latex, latex_number
from experiments.markdown_table import head, holds, named
from experiments.wording import difference_text, effect_text, p_text

_PREAMBLE = r"""% Made by vae-sweep report. The document needs
%   \usepackage{booktabs}
%   \usepackage{graphicx}  % shrinks what is wider than the page
"""
_LONGEST_NAME = 48  # characters on one line
_WIDE = 60  # characters of a table that a column of a two-column paper cannot hold


def to_latex(tables: Sequence[Ablation]) -> str:
    """Return the tables of the studies, to be put into a document with \\input."""
    return _PREAMBLE + "".join(f"\n{part}" for table in tables for part in _study(table))


def _study(table: Ablation) -> list[str]:
    label = "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in table.results.name)
    name, words = latex(table.results.name), " ".join([table.results.question, *table.answers[:1]])
    caption = f"\\textbf{{{name}.}} {latex(words)}"
    notes = [*table.answers[1:], *table.caption, *table.methods, *table.costs]
    parts = [_float(_main(table), caption, f"tab:{label}", notes)]
    for number, matrix in enumerate(table.matrices):
        words = f"{name}: {latex(matrix.column.head)} over two axes."
        parts.append(_float(_matrix(matrix), words, f"tab:{label}-matrix-{number}", []))
    if table.compared and table.baseline is not None:
        words = f"{name}: differences to the baseline, {latex(table.baseline.cell)}; 95\\% intervals."
        parts.append(_float(_differences(table), words, f"tab:{label}-differences", table.methods))
    if table.equal_epochs is not None:
        body = _at_equal_epochs(table.equal_epochs)
        parts.append(_float(body, f"{name}: at equal epochs.", f"tab:{label}-epochs", table.equal_epochs.notes))
    return parts


def _main(table: Ablation) -> list[list[str]]:
    """Return the lines of the main table; an empty line stands for a rule."""
    heads = ["cell", *[head(column, table.results) for column in table.columns], "verdict", "n"]
    lines = [[latex(text) for text in heads], []]
    for rows in (table.cells, table.reference_rows):
        for row in rows:
            numbers = [_number(row.entries[column.key]) for column in table.columns]
            lines.append([latex(named(row)), *numbers, latex(row.verdict), latex(row.seeds)])
        lines.append([])
    return lines[:-1] if lines[-1] == lines[-2] == [] else lines


def _matrix(matrix: Matrix) -> list[list[str]]:
    heads = [f"{latex(matrix.row_axis)} $\\backslash$ {latex(matrix.column_axis)}", *map(latex, matrix.column_values)]
    lines = [heads, []]
    for value, entries in zip(matrix.row_values, matrix.entries, strict=True):
        lines.append([latex(value), *("" if entry is None else _number(entry) for entry in entries)])
    return [*lines, []]


def _differences(table: Ablation) -> list[list[str]]:
    lines = [["cell", *[latex(column.head) for column in table.compared]], []]
    for row in table.cells:
        if row.cell is not table.baseline:
            found = [_difference(row.entries[column.key], column) for column in table.compared]
            for part, texts in enumerate(zip(*found, strict=True)):
                lines.append([latex(row.name) if part == 0 else "", *texts])
    return [*lines, []]


def _difference(entry: Entry, column: Column) -> tuple[str, str]:
    """Return the two lines of a difference: with its interval, and effect size with p."""
    comparison = entry.comparison
    if comparison is None:
        return "--", ""
    text = "$" + difference_text(comparison, column).replace(" [", r"\ [") + "$"
    words = [effect_text(comparison.effect), p_text(comparison.p)]
    below = f"{{\\scriptsize {latex(', '.join(word for word in words if word))}}}"
    return (f"\\boldmath{text}" if comparison.holds else text), below


def _at_equal_epochs(found: EqualEpochs) -> list[list[str]]:
    lines = [[f"at epoch {found.epoch}", *[latex(column.head) for column in found.columns], "n"], []]
    for row in found.rows:
        numbers = [latex_number(row.entries[column.key].text) for column in found.columns]
        lines.append([latex(row.name), *numbers, latex(row.seeds)])
    return [*lines, []]


def _number(entry: Entry) -> str:
    text = latex_number(entry.text)
    star = "$^{*}$" if holds(entry) else ""
    return f"{{\\boldmath{text}}}{star}" if entry.best else f"{text}{star}"


def _float(lines: Sequence[Sequence[str]], caption: str, label: str, notes: Iterable[str]) -> str:
    """Return one floating table, over both columns where it is wide, shrunk where it is wider than the page."""
    width = sum(max(len(line[place]) for line in lines if line) + 2 for place in range(len(lines[0])))
    kind = "table*" if width > _WIDE else "table"
    rows = [r"\midrule" if not line else rf"\raggedright {' & '.join(line)} \\" for line in lines[:-1]]
    longest = max(len(line[0]) for line in lines if line)
    first = "l" if longest <= _LONGEST_NAME else r"p{0.33\linewidth}"
    tabular = [
        f"\\begin{{tabular}}{{@{{}}{first}{'r' * (len(lines[0]) - 1)}@{{}}}}",
        r"\toprule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}%",
    ]
    text = " ".join(latex(note) for note in notes)
    below = (
        [r"\par\smallskip\begin{minipage}{\linewidth}\scriptsize\raggedright", text, r"\end{minipage}"] if text else []
    )
    return "\n".join(
        [
            f"\\begin{{{kind}}}[tbp]",
            r"\centering",
            f"\\caption{{{caption}}}",
            f"\\label{{{label}}}",
            r"\footnotesize\setlength{\tabcolsep}{4pt}%",
            r"\sbox{0}{%",
            *tabular,
            "}%",
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox{0}}\else\usebox{0}\fi",
            *below,
            f"\\end{{{kind}}}\n",
        ]
    )
