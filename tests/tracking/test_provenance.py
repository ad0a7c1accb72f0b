import json
import socket
import subprocess
import sys
from importlib.metadata import version

import pytest

from tracking import provenance
from tracking.provenance import collect


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a.txt").write_text("one\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_commit_and_changes_of_the_code_are_recorded(repository):
    clean = collect(repository)
    assert clean["commit"] == git(repository, "rev-parse", "HEAD")
    assert (clean["dirty"], clean["diff"], clean["diff_cut"]) == (False, "", False)
    (repository / "a.txt").write_text("two\n")
    changed = collect(repository)
    assert changed["dirty"] is True
    assert "-one\n+two\n" in changed["diff"]


@pytest.mark.parametrize("inside", [".", "project"])
def test_changes_of_sweep_files_are_known_and_not_shown(tmp_path, inside):
    """Whatever form a secret has in them: this one is on a line of its own."""
    project = tmp_path / inside
    (project / "sweeps").mkdir(parents=True)
    texts = {"sweeps/mine.yaml": "base: a\n", "sweeps/old.yml": "base: a\n", "sweeps/__init__.py": "", "a.py": "one\n"}
    for name, text in texts.items():
        (project / name).write_text(text)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    for name, text in texts.items():
        (project / name).write_text(text + "API_KEY: |\n  s3cret\n" if name.startswith("sweeps/") else "two\n")
    found = collect(project)
    assert found["dirty"] is True
    assert "-one\n+two\n" in found["diff"]
    assert found["diff"].count("s3cret") == 1  # of sweeps/__init__.py, which is code
    assert "sweeps/__init__.py" in found["diff"]


def test_a_new_file_makes_the_code_dirty(repository):
    (repository / "new.txt").touch()
    assert collect(repository)["dirty"] is True


def test_a_huge_diff_is_cut_and_says_so(repository, monkeypatch):
    monkeypatch.setattr(provenance, "_LONGEST_DIFF", 50)
    (repository / "a.txt").write_text("x" * 1000)
    found = collect(repository)
    assert (len(found["diff"]), found["diff_cut"]) == (50, True)


def test_machine_packages_and_command_are_recorded_ready_for_json(repository, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vae-sweep", "run", "my sweep.yaml"])
    found = json.loads(json.dumps(collect(repository)))
    assert found["hostname"] == socket.gethostname()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["torch"] == version("torch")
    assert found["command"] == "vae-sweep run 'my sweep.yaml'"
    assert found["cpu_count"] >= 1


def test_what_cannot_be_found_out_is_none(tmp_path, monkeypatch, repository):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for place in (None, empty, tmp_path / "missing"):
        found = collect(place)
        assert (found["commit"], found["dirty"], found["diff"]) == (None, None, None)
    monkeypatch.setenv("PATH", str(empty))
    without_git = collect(repository)
    assert (without_git["commit"], without_git["gpu"], without_git["driver"]) == (None, None, None)
