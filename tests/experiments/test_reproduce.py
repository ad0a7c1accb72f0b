"""`vae-sweep reproduce`: the same bits again, what counts as rounding, and everything that is refused or explained."""

import csv
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import contextmanager

import pytest
from rich.console import Console
from support.engine import assert_same_weights, best_weights, journal_lines
from support.tiny import TINY

from experiments import reproduce_code
from experiments.history import RunHistory, read_history
from experiments.reproduce import reproduce
from experiments.reproduce_code import unpacked
from experiments.reproduce_rows import agreement
from experiments.runner import run_sweep
from experiments.sweep import load_sweep
from slurm.snapshot import archive, source_root, take
from tracking.files import read_json, write_json
from tracking.journal import JournalWriter, read_journal
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError

PATIENCE_S = 240.0
COMMAND = [sys.executable, "-m", "experiments.cli"]
NAME = "tiny/loss.beta=0.1 seed=1"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A root with a study of one cell and two seeds, trained."""
    folder = tmp_path_factory.mktemp("reproduce")
    os.environ["VAE_SWEEP_CACHE"] = str(tmp_path_factory.getbasetemp() / "data-cache")
    sweep = folder / "tiny.yaml"
    sweep.write_text(TINY.lstrip())
    options = ["space.loss.beta=[0.1]"]
    assert run_sweep(load_sweep(str(sweep), options), folder / "runs", Console(file=io.StringIO()), "inline") == 0
    return folder / "runs"


@pytest.fixture
def root(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


def again(root, name=NAME, *, into=None, changes=(), tolerance=1e-5, code="here"):
    """Reproduce in this process; return the exit code and what was printed."""
    console = Console(file=io.StringIO(), width=200)
    exit_code = reproduce(root, name, into, list(changes), tolerance, code, console)
    return exit_code, console.file.getvalue()


def original_of(root):
    [path] = [path for path in (root / "tiny" / "runs").iterdir() if read_json(path / "run.json")["seed"] == 1]
    return StudyDirectory(root / "tiny").run(path.name)


def reproduced(root, suffix=""):
    return root / "reproductions" / f"reproduce-{original_of(root).id}{suffix}"


def retouched(run, kind, change):
    """Rewrite a run's journal with the fields of its lines of a kind changed."""
    path = run.attempt(0).journal_file
    lines = read_journal(path)
    path.unlink()
    with JournalWriter(path) as journal:
        for line in lines:
            fields = json.loads(json.dumps(line.fields))
            if line.kind == kind:
                change(fields)
            journal.append(line.kind, **fields)


def test_the_same_training_gives_the_same_bits_in_a_root_of_its_own(root):
    before = (root / "tiny" / "sweep.yaml").read_bytes(), sorted(root.iterdir())
    code, printed = again(root)
    assert code == 0, printed
    assert "bit-equal: all" in printed
    assert "values of 3 epochs and of the test are the same to the last digit" in printed
    study = reproduced(root)
    [run] = (study / "runs").iterdir()
    assert run.name == original_of(root).id
    assert_same_weights({"run": best_weights(run)}, {"run": best_weights(original_of(root).path)})
    with (study / "report" / "reproduction.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = [line for line in journal_lines(original_of(root).path) if line["kind"] in ("epoch", "result")]
    expected = sum(not key.startswith("time/") for line in measured for key in line["metrics"]) + 1
    assert len(rows) == expected
    assert {row["relative_difference"] for row in rows} == {"0.0"}
    assert (root / "tiny" / "sweep.yaml").read_bytes() == before[0]
    assert set(root.iterdir()) - set(before[1]) == {root / "reproductions"}
    assert f"Written: {study / 'report' / 'reproduction.md'}" in printed
    assert "vae-sweep compare" in printed
    assert "The selected weights are the same, bit for bit." in printed
    assert "trained earlier" not in printed

    def nudge(fields):
        fields["metrics"]["val/elbo"] *= 1 + 1e-7

    retouched(original_of(root), "epoch", nudge)  # trained already, so what follows only compares
    code, printed = again(root)
    assert code == 0, printed
    assert "equal to rounding (tolerance 1e-05)" in printed
    assert "the largest relative difference is 1e-07, in val/elbo of epoch" in printed

    def move(fields):
        fields["metrics"]["test/mse"] *= 1.5

    retouched(original_of(root), "result", move)
    provenance = root / "tiny" / "provenance.json"
    attempt = original_of(root).attempt(0).artifacts / "provenance.json"
    for path in (provenance, attempt):
        if path.exists():
            known = read_json(path)
            write_json(path, known | {"packages": {**known["packages"], "torch": "1.0"}})
    commit = {"commit": "c" * 40, "dirty": False}
    reproduction = StudyDirectory(study).run(run.name).attempt(0).artifacts / "provenance.json"
    write_json(reproduction, read_json(reproduction) | commit)
    code, printed = again(root)
    assert code == 1
    assert "This was trained earlier, with commit cccccccccc clean; now the code is" in printed
    assert "1 differ by more than 1e-05, first test/mse" in printed
    likely = re.compile(r"Likely reason: .*torch 1\.0 then")  # the commit too, where all is committed
    assert likely.search(printed)
    text = (study / "report" / "reproduction.md").read_text()
    assert "| test/mse | 1 | test | test |" in text
    assert likely.search(text)


def test_other_data_are_refused_before_anything_is_trained(root):
    path = original_of(root).info_file
    info = read_json(path)
    info["split_hashes"]["val"] = "another"
    write_json(path, info | {"data_fingerprint": "0" * 16})
    with pytest.raises(UserError, match=r"had the fingerprint 0{16}, now it is [0-9a-f]{16}; the images of val differ"):
        again(root)
    assert not (root / "reproductions").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"changes": ["model.latent_dim=8"]}, "would be another run; only fields that change no result"),
        ({"changes": ["model.latnt_dim=8"]}, "did you mean model.latent_dim"),
        ({"tolerance": -1.0}, "must be a relative difference of at least 0"),
        ({"tolerance": math.nan}, "must be a relative difference of at least 0"),
        ({"code": "old"}, "no such code; valid: here, snapshot, commit"),
        ({"code": "snapshot"}, r"keeps no code\.tar\.gz"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(root, options, message):
    with pytest.raises(UserError, match=message):
        again(root, **options)
    assert not list(root.glob("reproductions/*/runs/*"))


def test_a_run_without_an_epoch_cannot_be_reproduced(root):
    shutil.rmtree(original_of(root).path / "attempts")
    with pytest.raises(UserError, match="has no finished epoch to compare with"):
        again(root)


def history(epochs, result=None):
    found = RunHistory(epochs=epochs)
    if result is not None:
        found.result = {"metrics": result, "best_epoch": 2}
    return found


EPOCHS = {1: {"val/elbo": -5.0, "val/kl": 5.0, "time/epoch_s": 1.0}, 2: {"val/elbo": -4.0, "val/kl": 1e-9}}


def test_times_do_not_count_and_everything_else_does():
    other = {1: {**EPOCHS[1], "time/epoch_s": 9.0}, 2: EPOCHS[2]}
    found = agreement(history(EPOCHS, {"test/mse": 0.1}), history(other, {"test/mse": 0.1}), 1e-5)
    assert found.verdict == "bit-equal"
    assert [row.where for row in found.rows] == [
        "val/elbo of epoch 1",
        "val/kl of epoch 1",
        "val/elbo of epoch 2",
        "val/kl of epoch 2",
        "test/mse",
        "best epoch",
    ]


def test_a_difference_is_relative_to_the_metrics_largest_magnitude():
    other = {1: EPOCHS[1], 2: {"val/elbo": -4.0, "val/kl": 3e-9}}
    found = agreement(history(EPOCHS), history(other), 1e-8)
    assert found.verdict == "equal to rounding"
    assert found.largest.where == "val/kl of epoch 2"
    assert found.largest.relative == pytest.approx(2e-9 / 5)
    assert agreement(history(EPOCHS), history(other), 1e-10).verdict == "different"


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (math.nan, math.nan, "bit-equal"),
        (math.inf, math.inf, "bit-equal"),
        (math.nan, 1.0, "different"),
        (1.0, math.nan, "different"),
        (0.0, 1e-30, "different"),
        (1.0, math.nextafter(1.0, 2.0), "equal to rounding"),
    ],
)
def test_values_that_are_not_finite_and_zeros(before, now, verdict):
    found = agreement(history({1: {"val/elbo": before}}), history({1: {"val/elbo": now}}), 1e-5)
    assert found.verdict == verdict


def test_an_epoch_or_a_metric_that_is_missing_is_a_difference_and_a_new_one_is_none():
    more = {1: {**EPOCHS[1], "val/new": 1.0}, 2: EPOCHS[2], 3: EPOCHS[2]}
    assert agreement(history(EPOCHS), history(more), 1e-5).verdict == "bit-equal"
    found = agreement(history(more), history(EPOCHS), 1e-5)
    assert found.verdict == "different"
    assert [row.where for row in found.apart] == ["val/new of epoch 1", "val/elbo of epoch 3", "val/kl of epoch 3"]
    assert found.to_csv().splitlines()[0] == "metric,epoch,original,reproduction,relative_difference"


def git(folder, *arguments):
    who = {f"GIT_{role}_{what}": f"{what}@x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | who).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository whose file says `one` in its first commit, `two` in its second, and `edited` since; its commits."""
    folder = tmp_path / "checkout"
    (folder / "vae_core").mkdir(parents=True)
    git(folder, "init", "--quiet")
    commits = []
    for words in ("one", "two"):
        (folder / "vae_core" / "code.py").write_text(f"{words}\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", words)
        commits.append(git(folder, "rev-parse", "HEAD"))
    (folder / "vae_core" / "code.py").write_text("edited\n")
    monkeypatch.setattr(reproduce_code, "source_root", lambda: folder)
    return folder, commits


def study_at(path, **provenance):
    study = StudyDirectory(path)
    study.create()
    write_json(study.provenance_file, {"commit": None, "dirty": False, "diff": "", "diff_cut": False} | provenance)
    return study


def test_the_code_of_a_commit_is_unpacked_beside_the_run_and_the_checkout_stays_as_it_is(repository, tmp_path):
    folder, (first, _) = repository
    target = study_at(tmp_path / "target")
    code, words = unpacked(study_at(tmp_path / "plain", commit=first), target, "commit")
    assert (code / "vae_core" / "code.py").read_text() == "one\n"
    assert words == f"commit {first[:10]}"
    assert (folder / "vae_core" / "code.py").read_text() == "edited\n"
    assert git(folder, "worktree", "list").count("\n") == 0
    assert [path.name for path in target.path.iterdir() if path.name.startswith(".")] == []


def test_uncommitted_changes_of_then_are_applied(repository, tmp_path):
    folder, (_, second) = repository
    diff = git(folder, "diff", "HEAD") + "\n"
    code, words = unpacked(study_at(tmp_path / "dirty", commit=second, diff=diff), study_at(tmp_path / "t"), "commit")
    assert (code / "vae_core" / "code.py").read_text() == "edited\n"
    assert words.endswith("with the uncommitted changes of then")


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({"commit": "0" * 40}, f"does not have commit {'0' * 40}"),
        ({"commit": None}, "names no commit"),
    ],
)
def test_a_commit_that_is_not_there_is_refused(repository, tmp_path, provenance, message):
    with pytest.raises(UserError, match=message):
        unpacked(study_at(tmp_path / "s", **provenance), study_at(tmp_path / "t"), "commit")


def test_changes_that_were_cut_are_refused(repository, tmp_path):
    _, (first, _) = repository
    with pytest.raises(UserError, match="too long to be kept whole"):
        unpacked(study_at(tmp_path / "s", commit=first, diff="x", diff_cut=True), study_at(tmp_path / "t"), "commit")


def test_a_snapshot_is_unpacked_and_nothing_outside_of_its_folder_is_written(tmp_path):
    original, target = study_at(tmp_path / "s"), study_at(tmp_path / "t")
    with tarfile.open(original.code_archive, "w:gz") as tar:
        member = tarfile.TarInfo("../escaped.py")
        tar.addfile(member, io.BytesIO())
    with pytest.raises(tarfile.OutsideDestinationError, match="escaped"):
        unpacked(original, target, "snapshot")
    assert not target.code.exists()
    assert not (target.path / "escaped.py").exists()


@contextmanager
def started(root):
    command = [*COMMAND, "reproduce", NAME, "--root", str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_a_checkpoint(root, process):
    deadline = time.monotonic() + PATIENCE_S
    journals = "runs/*/attempts/0/journal.jsonl"
    while not any('"checkpoint"' in path.read_text() for path in reproduced(root).glob(journals)):
        assert time.monotonic() < deadline, "no checkpoint"
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_interrupted_reproduction_goes_on_where_it_stopped(tmp_path):
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(TINY.lstrip().replace("train.epochs: 3", "train.epochs: 60"))
    options = ["space.loss.beta=[0.1]"]
    root = tmp_path / "runs"
    assert run_sweep(load_sweep(str(sweep), options), root, Console(file=io.StringIO()), "inline") == 0
    with started(root) as process:
        wait_for_a_checkpoint(root, process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output
    assert "Nothing was compared. Stopped; the same command goes on." in output
    with started(root) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    assert "bit-equal: all" in output
    [run] = (reproduced(root) / "runs").iterdir()
    assert len(list((run / "attempts").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_with_a_snapshot_is_trained_again_with_that_code(root):
    study = StudyDirectory(root / "tiny")
    take(source_root(), study.code)
    archive(study.code, study.code_archive)
    shutil.rmtree(study.code)
    code, printed = again(root, code="snapshot")
    assert code == 0, printed
    assert "Training with the study's snapshot" in printed
    assert "bit-equal: all" in printed
    study = StudyDirectory(reproduced(root, "-snapshot"))
    assert read_history(study.run(original_of(root).id)).status == "done"
    assert (study.code / "experiments" / "cli.py").is_file()
