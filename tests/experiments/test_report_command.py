"""`vae-sweep report`: what it prints, what it writes where, and its refusals."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from support.study_builder import CONFIG, beta_study

from experiments.publish import write_report
from experiments.report_command import show_report
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError


@pytest.fixture
def root(tmp_path):
    """Two studies whose data cannot be had, so that there are no reference rows to measure."""
    config = {**CONFIG, "data": {"source": "folder", "path": str(tmp_path / "nowhere"), "width": 16}}
    for name in ("first", "second"):
        beta_study(tmp_path / "runs" / name, config=config)
    return tmp_path / "runs"


def report(root, *names, metrics=(), baseline=None, form=None, output=None, open_page=False):
    """Return what the command prints on the terminal."""
    console = Console(width=120, file=io.StringIO())
    show_report(root, names, metrics, baseline, form, output, console, open_page=open_page)
    return console.file.getvalue()


def test_by_default_the_table_is_printed_with_where_its_files_are(root):
    (root / "first" / "report" / "table.md").write_text("| |")
    text = report(root, "first", "second")

    assert text.count("What does the axis do?") == 2
    assert f"Files of the last run: {root}/first/report/table.md" in text
    assert f"vae-sweep report first second --root {root} -o DIR" in text


@pytest.mark.parametrize(
    ("form", "start"),
    [("md", "# first"), ("csv", "study,kind,name"), ("latex", "% Made by"), ("json", "{"), ("html", "<!doctype html>")],
)
def test_a_format_goes_to_standard_output_alone(root, capsys, form, start):
    printed = report(root, "first", form=form)

    assert printed == ""
    assert capsys.readouterr().out.lower().startswith(start.lower())


def test_a_folder_gets_every_format_the_runs_and_a_picture_per_study(root, tmp_path):
    text = report(root, "first", "second", output=tmp_path / "out")

    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    names = {f"report.{suffix}" for suffix in ("md", "html", "tex", "csv", "json")}
    assert found == names | {"runs.csv", "figures/first.png", "figures/second.png"}
    assert all(f"written: {tmp_path}/out/{name}" in text for name in found)
    assert f"open file://{tmp_path}/out/report.html in a browser" in text
    assert (tmp_path / "out" / "figures" / "first.png").read_bytes().startswith(b"\x89PNG")


def test_a_format_into_a_folder_or_a_file_writes_that_one_alone(root, tmp_path):
    report(root, "first", form="json", output=tmp_path / "folder")
    report(root, "first", form="latex", output=tmp_path / "paper" / "table.txt")
    report(root, "first", output=tmp_path / "table.csv")

    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["report.json"]
    assert json.loads((tmp_path / "folder" / "report.json").read_text())["version"] == 1
    assert [path.name for path in (tmp_path / "paper").iterdir()] == ["table.txt"]
    assert (tmp_path / "table.csv").read_text().startswith("study,kind,name")


@pytest.mark.parametrize("open_page", [False, True])
def test_a_folder_may_have_a_dot_in_its_name(root, tmp_path, monkeypatch, open_page):
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    report(root, "first", output=tmp_path / "out.v2", open_page=open_page)

    found = {path.name for path in (tmp_path / "out.v2").iterdir()}
    assert found == {f"report.{suffix}" for suffix in ("md", "html", "tex", "csv", "json")} | {"runs.csv", "figures"}


@pytest.mark.parametrize("open_page", [False, True])
def test_a_file_whose_name_asks_for_no_format_is_kept(root, tmp_path, open_page):
    (tmp_path / "t.txt").write_text("mine")
    with pytest.raises(UserError, match=r"-o .*/t\.txt: is a file, .* end it in \.md, \.html, \.tex, \.csv, \.json,"):
        report(root, "first", output=tmp_path / "t.txt", open_page=open_page)

    assert (tmp_path / "t.txt").read_text() == "mine"


def test_the_page_is_written_into_the_study_and_opened(root, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    text = report(root, "first", open_page=True)

    page = root / "first" / "report" / "report.html"
    assert opened == [page.as_uri()]
    assert f"written: {page}" in text
    assert page.is_file()


def test_without_a_browser_the_pages_address_is_printed(root, monkeypatch, tmp_path):
    monkeypatch.setattr("webbrowser.open", lambda _: False)

    assert f"open {(tmp_path / 'x.html').as_uri()} in a browser" in report(
        root, "first", output=tmp_path / "x.html", open_page=True
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "pdf"}, r"--format pdf: no such format; valid: md, html, latex, csv, json"),
        ({"metrics": ["nothing"]}, r"--metric nothing: first has no such metric; valid: test/elbo"),
        ({"baseline": "loss.beta=7"}, r"--baseline loss.beta=7: first has no such cell; valid: 'loss.beta=0.1'"),
        ({"form": "csv", "open_page": True}, r"--open shows the page; --format csv makes none"),
        ({"output": Path("x.csv"), "open_page": True}, r"--open shows the page; -o x\.csv is none"),
    ],
)
def test_mistakes_are_named_with_what_is_valid(root, options, message):
    with pytest.raises(UserError, match=message):
        report(root, "first", **options)


def test_studies_are_found_by_name_and_a_page_of_several_needs_a_place(root):
    with pytest.raises(UserError, match=r"no study named 'frist'; did you mean first"):
        report(root, "first", "frist")
    with pytest.raises(UserError, match=r"--open: a page on several studies needs a place; add -o DIR"):
        report(root, "first", "second", open_page=True)


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("sweep.yaml", "", "question, config, space, objective, sampler missing"),
        ("sweep.yaml", "a: 1", "question, config, space, objective, sampler missing"),
        ("data.json", '{"fing', "restore it from a copy, or remove it"),
        ("data.json", "[]", "list instead of a mapping"),
        ("runs/run0x0/run.json", '{"c', "restore it from a copy, or remove it"),
        ("provenance.json", "{", "restore it from a copy, or remove it"),
    ],
)
def test_a_torn_file_is_named_with_what_to_do(root, file, content, why):
    (root / "first" / file).write_text(content)
    with pytest.raises(UserError, match=rf"first/{file}: is torn or was changed by hand.*{why}"):
        report(root, "first", form="html")


def test_a_name_that_no_folder_can_have_is_refused(root):
    with pytest.raises(UserError, match=r"no study 'xxx.* can be read there \(File name too long\)"):
        report(root, "x" * 300)


def test_a_place_that_cannot_be_written_is_named(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"-o .*/file/out/report\.md: cannot be written"):
        report(root, "first", form="md", output=tmp_path / "file" / "out")


def test_a_finished_run_leaves_table_page_and_picture_without_what_differs_between_equal_runs(root):
    study = StudyDirectory(root / "first")
    write_report(study)

    names = {"table.md", "table.csv", "runs.csv", "report.html", "overview.png"}
    assert {path.name for path in study.report.iterdir()} == names
    text = (study.report / "table.md").read_text()
    assert "| SSIM ↑ |" in text
    assert "| time |" not in text
    assert "Cost" not in text
