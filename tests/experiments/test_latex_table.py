"""The LaTeX of a report: users' names are escaped, and a real TeX compiles it."""

import re
import shutil
import subprocess

import pytest
from support.study_builder import StudyBuilder, beta_study

from experiments.ablation import tabulate
from experiments.latex_text import latex, latex_number
from experiments.references import ReferenceRow, References
from experiments.report import Report
from experiments.results import collect

NASTY = r"50% of_a & b #1 $x ~y ^z \cmd {c} <d> |e| [f] *g* «é» β Ω ± ≤ 中 ﬁ ł “q” …"
DOCUMENT = r"""\documentclass[OPTIONS]{article}
\usepackage{booktabs}
\usepackage{graphicx}
\begin{document}
\input{report.tex}
\end{document}
"""


def table_of(builder):
    rows = (ReferenceRow("mean image", None, {"test/mse": 0.04}),)
    return tabulate(builder.study, collect(builder.study), References(rows, (0.04, 0.03, 0.02, 0.01, 0.005)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss.beta_schedule", r"loss.beta\_schedule"),
        ("50 % & #1 $", r"50 \% \& \#1 \$"),
        (r"a\b{c}", r"a\textbackslash{}b\{c\}"),
        ("β = λ, Δ", r"$\beta$ = $\lambda$, $\Delta$"),
        ("é ł", "é ł"),
        ("中", r"\texttt{U+4E2D}"),
        ("1 ± 2 – 3", r"1 $\pm$ 2 -- 3"),
        ("two\nlines", "two lines"),
        ("by -0.5, at 2020-01-02", "by $-$0.5, at 2020-01-02"),
    ],
)
def test_text_is_escaped(text, expected):
    assert latex(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-9.5 ± 1.2", r"$-9.5 \pm 1.2$"),
        ("1,234", "$1{,}234$"),
        ("–", "--"),
        ("9.7 s", "9.7 s"),
        ("4.20e-07 ± 1.0e-08", r"$4.20\times 10^{-7} \pm 1.0\times 10^{-8}$"),
        ("1e+12", r"$1\times 10^{12}$"),
    ],
)
def test_numbers_stand_in_math_mode(text, expected):
    assert latex_number(text) == expected


def test_a_study_is_one_booktabs_table_with_its_question_as_caption_and_the_methods_below(tmp_path):
    text = Report((table_of(beta_study(tmp_path / "beta_1")),)).to_latex()
    main = text[text.index(r"\begin{table*}") : text.index(r"\end{table*}")]

    assert main.count(r"\midrule") == 2
    assert r"\caption{\textbf{beta\_1.} What does the axis do? Every seed collapses at loss.beta = 100;" in main
    assert r"loss.beta=1.0 (baseline) & $-7.5" in main
    assert "with the weights of the epoch with the best val/elbo" in main
    assert r"SSIM $\uparrow$" in main
    assert text.count(r"\label{tab:beta-1}") == 1


def test_tiny_numbers_and_their_differences_have_powers_of_ten(tmp_path):
    text = Report((table_of(tiny_numbers(tmp_path / "tiny")),)).to_latex()

    assert r"$1.11\times 10^{-7} \pm 2.7\times 10^{-8}$" in text
    assert r"$+9.90\times 10^{-8}\ [+9.65\times 10^{-8}, +1.015\times 10^{-7}]$" in text
    assert not re.search(r"\de[-+]\d", text)


def tiny_numbers(path):
    builder = StudyBuilder(path, {"loss.beta": [1.0, 2.0]}, seeds=(0, 1, 2), baseline={"loss.beta": 1.0})
    for beta in (1.0, 2.0):
        for seed, run in enumerate(builder.cell(loss__beta=beta)):
            builder.done(run, mse=1e-7 * beta + 1e-8 * seed * (1.1 if beta == 1 else 1))
    return builder


def nasty_study(path):
    axes = {"data.path": [NASTY, "plain"], "model.latent_dim": [2, 4]}
    builder = StudyBuilder(path, axes, baseline={"data.path": "plain", "model.latent_dim": 2})
    for name in axes["data.path"]:
        for dims in (2, 4):
            for seed, run in enumerate(builder.cell(data__path=name, model__latent_dim=dims)):
                builder.done(run, ssim=0.1 * dims + 0.01 * seed * dims, lpips=0.3, epochs=2 + seed, parameters=dims)
    return builder


def many_cells(path, count=60, base="/data"):
    paths = [f"{base}{number}" for number in range(count)]
    builder = StudyBuilder(path, {"data.path": paths}, baseline={"data.path": paths[0]})
    for number, name in enumerate(paths):
        for seed, run in enumerate(builder.cell(data__path=name)):
            noise = 0.01 * seed * (number % 7)
            builder.done(run, ssim=0.2 + 0.001 * number + noise, lpips=0.3, mse=0.01 + noise, epochs=1)
    return builder


def test_a_table_longer_than_a_page_goes_on_in_further_floats_under_the_same_number(tmp_path):
    text = Report((table_of(many_cells(tmp_path / "many")),)).to_latex()
    floats = text.split(r"\begin{table*}")[1:]

    kinds = [part[part.index(r"\caption{") + 9 :][:20] for part in floats]
    continued = sum(kind.startswith("many (continued)") for kind in kinds)
    assert continued == text.count(r"\addtocounter{table}{-1}") == len(floats) - 2 > 3
    assert text.count(r"\label{tab:many}") == text.count(r"\label{tab:many-differences}") == 1
    for part in floats:
        rows = part[part.index(r"\midrule") : part.index(r"\bottomrule")]
        assert rows.count(r"\raggedright") <= 37
        assert not rows.split(r"\raggedright")[1].lstrip().startswith("&")  # no row is torn in two
    assert all(len(re.findall(rf"data\.path=/data{number} ", text)) == 2 for number in range(1, 60))
    assert text.count("mean image &") == 1
    assert text.count("with the weights of the epoch with the best val/elbo") == 1


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "twocolumn"])
def test_a_real_tex_compiles_every_kind_of_table(tmp_path, options):
    compiler = shutil.which("pdflatex") or shutil.which("tectonic")
    if compiler is None:
        pytest.skip("no pdflatex or tectonic here (Debian: apt-get install texlive-latex-recommended)")
    studies = [
        beta_study(tmp_path / "beta_1"),
        tiny_numbers(tmp_path / "tiny"),
        nasty_study(tmp_path / "100%_nasty & more"),
        many_cells(tmp_path / "many"),
        many_cells(tmp_path / "long", 40, "/a path that is as long/as they are on a machine of many users/data"),
    ]
    report = Report(tuple(table_of(builder) for builder in studies))
    (tmp_path / "report.tex").write_text(report.to_latex(), encoding="utf-8")
    (tmp_path / "main.tex").write_text(DOCUMENT.replace("OPTIONS", options))

    flags = ["-interaction=nonstopmode", "-halt-on-error"] if "pdflatex" in compiler else []
    result = subprocess.run(
        [compiler, *flags, "main.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=200, errors="replace"
    )

    assert result.returncode == 0, result.stdout[-3000:]
    assert (tmp_path / "main.pdf").read_bytes().startswith(b"%PDF")
    assert "Float too large" not in result.stdout, result.stdout[-3000:]
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", result.stdout)]
    assert max(wide, default=0) < 5, result.stdout[-3000:]
