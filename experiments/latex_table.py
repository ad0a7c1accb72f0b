"""Studies as LaTeX: one booktabs table each, its matrices and its differences to the baseline."""

from collections.abc import Iterable, Sequence

from experiments.ablation import Ablation
from experiments.columns import Column
from experiments.entries import Entry, EqualEpochs, Matrix
from experiments.latex_text import latex, latex_number, powers_of_ten
from experiments.markdown_table import head, holds, named
from experiments.wording import difference_text, effect_text, p_text

_PREAMBLE = r"""% Made by vae-sweep report. The document needs
%   \usepackage{booktabs}
%   \usepackage{graphicx}  % shrinks what is wider than the page
"""
_LONGEST_NAME = 48  # characters on one line
_WRAPPED = 20  # characters on a line of what is longer
_WIDE = 60  # characters of a table that a column of a two-column paper cannot hold
_MOST_LINES = 34  # of a float, which no page break can divide: what fits on a page with a caption
_MOST_WITH_NOTES, _NOTES_LINE = 38, 80  # lines that fit with notes in their small print; characters on a line of it
_FEWEST_LINES = 6  # of the last float, however long its notes are


def to_latex(tables: Sequence[Ablation]) -> str:
    """Return the tables of the studies, to be put into a document with \\input."""
    return _PREAMBLE + "".join(f"\n{part}" for table in tables for part in _study(table))


def _study(table: Ablation) -> list[str]:
    label = "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in table.results.name)
    name, words = latex(table.results.name), " ".join([table.results.question, *table.answers[:1]])
    caption = f"\\textbf{{{name}.}} {latex(words)}"
    notes = [*table.answers[1:], *table.caption, *table.methods, *table.costs]
    parts = _floats(_main(table), name, caption, f"tab:{label}", notes)
    for number, matrix in enumerate(table.matrices):
        words = f"{name}: {latex(matrix.column.head)} over two axes."
        parts += _floats(_matrix(matrix), name, words, f"tab:{label}-matrix-{number}", [])
    if table.compared and table.baseline is not None:
        words = f"{name}: differences to the baseline, {latex(table.baseline.cell)}; 95\\% intervals."
        parts += _floats(_differences(table), name, words, f"tab:{label}-differences", table.methods)
    if table.equal_epochs is not None:
        body, notes = _at_equal_epochs(table.equal_epochs), [*table.equal_epochs.notes]
        parts += _floats(body, name, f"{name}: at equal epochs.", f"tab:{label}-epochs", notes)
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
    text = "$" + powers_of_ten(difference_text(comparison, column)).replace(" [", r"\ [") + "$"
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


def _floats(lines: Sequence[Sequence[str]], name: str, caption: str, label: str, notes: Iterable[str]) -> list[str]:
    """Return a table as one float, or as several under one number where a page cannot hold it; the last has the notes.

    Args:
        lines: its head, a rule (an empty line), its rows and rules between them, and a rule at its end.
        name: of the study, which the floats after the first are captioned with.
        caption: of the first.
        label: of the first, for references to it.
        notes: sentences to stand below the table.
    """
    head, _, *body = lines
    notes = [*notes]
    first, *others = _on_pages(body, -(-sum(map(len, notes)) // _NOTES_LINE))
    begun = [f"\\caption{{{caption}}}", f"\\label{{{label}}}"]
    continued = [r"\addtocounter{table}{-1}%", f"\\caption{{{name} (continued).}}"]
    floats = [(begun, first), *((continued, rows) for rows in others)]
    last = len(floats) - 1
    return [
        _float([head, [], *rows, []], above, notes if place == last else [])
        for place, (above, rows) in enumerate(floats)
    ]


def _on_pages(body: Sequence[Sequence[str]], below: int) -> list[list[Sequence[str]]]:
    """Return the lines of a table in parts of about equal height, the last with room for `below` lines of notes.

    The second line of a row stays with its first.
    """
    longest = max((len(line[0]) for line in body if line), default=0)
    line_length = _LONGEST_NAME if longest <= _LONGEST_NAME else _WRAPPED
    heights = [max(1, -(-len(line[0]) // line_length)) if line else 0 for line in body]
    most = _most_lines(sum(heights), below)
    parts: list[list[Sequence[str]]] = [[]]
    filled = 0
    for line, height in zip(body, heights, strict=True):
        if line and line[0] and filled + height > most and parts[-1]:
            parts.append([])
            filled = 0
        if line or parts[-1]:
            parts[-1].append(line)
            filled += height
    return [part if not part or part[-1] else part[:-1] for part in parts]


def _most_lines(total: int, below: int) -> int:
    """Return how many of a table's lines each of its floats has."""
    pages = -(-total // _MOST_LINES) or 1
    most = -(-total // pages)
    room = max(_FEWEST_LINES, _MOST_WITH_NOTES - below)
    if most <= room:
        return most
    before_last = max(1, -(-(total - room) // _MOST_LINES))
    return max(-(-total // (before_last + 1)), -(-(total - room) // before_last))


def _float(lines: Sequence[Sequence[str]], above: Sequence[str], notes: Iterable[str]) -> str:
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
            *above,
            r"\footnotesize\setlength{\tabcolsep}{4pt}%",
            r"\sbox{0}{%",
            *tabular,
            "}%",
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox{0}}\else\usebox{0}\fi",
            *below,
            f"\\end{{{kind}}}\n",
        ]
    )
