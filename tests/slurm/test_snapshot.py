import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from slurm import snapshot
from slurm.snapshot import GitState, archive, git_state, refusal, source_root, take

PACKAGES = ("vae_core", "tracking", "slurm", "experiments", "sweeps")


@pytest.fixture(autouse=True)
def no_git_above(tmp_path, monkeypatch):
    """Keep git from the repository that the temporary folder may lie in, and from a hook's."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"):
        monkeypatch.delenv(name, raising=False)


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def packages():
    return {f"{name}/__init__.py": f"'''{name}'''\n" for name in PACKAGES}


def project():
    return packages() | {
        "vae_core/bases/tiny.yaml": "a: 1\n",
        "vae_core/py.typed": "",
        "experiments/table.csv": b"\xff\x00 not text\r\n",
        "sweeps/notes.txt": "# Why?\n",
        "pyproject.toml": "[project]\n",
        "constraints.txt": "",
        "README.md": "read\n",
        "LICENSE": "MIT\n",
        "tests/test_a.py": "assert True\n",
        ".gitignore": "__pycache__/\n*.log\n",
    }


def commit_all(folder):
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "change")


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    write(folder, project())
    git(folder, "init", "-q", "-b", "main")
    commit_all(folder)
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def belongs(name):
    return name.split("/")[0] in PACKAGES or name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE")


def code(folder):
    """Return the files of a checkout or a snapshot that a snapshot holds."""
    return {name: content for name, content in contents(folder).items() if belongs(name)}


def test_sweep_files_are_no_code_and_stay_out(checkout, tmp_path):
    """They may hold secrets, and an edited or new one is no reason to refuse the code."""
    lines = "launcher: {slurm: {setup: [export FOO_TOKEN=abc]}}\n"
    write(checkout, {"sweeps/mine.yaml": lines, "sweeps/other.yml": lines, "slurm/new.py": ""})
    assert git_state(checkout).dirty == ["slurm/new.py"]
    take(checkout, tmp_path / "code")
    assert not list((tmp_path / "code" / "sweeps").glob("*.y*ml"))
    assert "abc" not in "".join(path.read_text(errors="replace") for path in (tmp_path / "code").rglob("*.*"))


def test_the_source_is_the_folder_of_the_packages():
    assert (source_root() / "slurm" / "snapshot.py").samefile(snapshot.__file__)


def test_a_clean_checkout_without_a_remote_is_fine(checkout):
    state = git_state(checkout)
    assert state == GitState(git(checkout, "rev-parse", "HEAD"), [], False, "")
    assert refusal(state) is None


def test_changes_deletions_and_new_files_of_the_snapshot_are_dirty_and_no_others(checkout):
    write(checkout, {"vae_core/bases/tiny.yaml": "a: 2\n", "slurm/new.py": "", "tests/test_a.py": "", "notes": ""})
    write(checkout, {"slurm/a.log": "", "slurm/__pycache__/new.cpython-311.pyc": ""})
    (checkout / "sweeps" / "notes.txt").unlink()
    write(checkout, {"tracking/staged.py": "x = 1\n"})
    git(checkout, "add", "tracking")
    git(checkout, "mv", "experiments/table.csv", "experiments/moved.csv")
    state = git_state(checkout)
    assert state.dirty == [
        *("experiments/moved.csv", "experiments/table.csv", "slurm/new.py", "sweeps/notes.txt", "tracking/staged.py"),
        "vae_core/bases/tiny.yaml",
    ]
    assert "-a: 1\n+a: 2\n" in state.diff
    message = refusal(state)
    assert message is not None
    assert message.startswith("6 file(s) of the code differ from the last commit: experiments/moved.csv, experiments/t")
    assert message.endswith("tracking/staged.py, ...; commit and push, or give --allow-dirty to run this code as it is")


def test_a_refusal_names_five_files_at_most(checkout):
    write(checkout, {f"slurm/new{index}.py": "" for index in range(7)})
    assert "7 file(s)" in str(refusal(git_state(checkout)))
    assert "new4.py, ...;" in str(refusal(git_state(checkout)))


def test_a_commit_counts_as_pushed_on_any_branch_of_the_remote(checkout, tmp_path):
    git(tmp_path, "init", "-q", "--bare", "remote")
    git(checkout, "remote", "add", "origin", str(tmp_path / "remote"))
    state = git_state(checkout)
    assert state.unpushed
    assert str(refusal(state)).startswith(f"commit {str(state.commit)[:10]} is on no branch of a remote; commit and")
    git(checkout, "push", "-q", "origin", "main:someone/else")
    assert not git_state(checkout).unpushed
    write(checkout, {"README.md": "more\n"})
    commit_all(checkout)
    assert git_state(checkout).unpushed
    git(checkout, "checkout", "-q", "--detach", "HEAD~1")  # an earlier commit of a pushed branch
    assert refusal(git_state(checkout)) is None


def test_both_reasons_are_one_message():
    assert refusal(GitState("0123456789abc", ["a.py"], True, "")) == (
        "1 file(s) of the code differ from the last commit: a.py; commit 0123456789 is on no branch of a remote; "
        "commit and push, or give --allow-dirty to run this code as it is"
    )


def test_the_diff_turns_the_commit_into_the_snapshot(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_COUNT", "2")  # a user's configuration that would make another format of it
    for index, (key, value) in enumerate([("color.ui", "always"), ("diff.noprefix", "true")]):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{index}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{index}", value)
    write(checkout, {"experiments/table.csv": b"\xfe\x00 other\r\n", "slurm/latin.py": b"# caf\xe9\r\nlast line"})
    write(checkout, {"sweeps/empty.txt": "", "tests/test_a.py": "", "sweeps/mine.bin": bytes(range(256))})
    (checkout / "vae_core" / "bases" / "tiny.yaml").rename(checkout / "vae_core" / "bases" / "small.yaml")
    take(checkout, tmp_path / "code")
    git(tmp_path, "clone", "-q", "checkout", "clone")
    git(tmp_path / "clone", "apply", "--whitespace=nowarn", str(tmp_path / "code" / "uncommitted.diff"))
    assert code(tmp_path / "clone") == code(checkout) == code(tmp_path / "code")


def test_a_project_in_a_folder_of_a_repository_is_judged_by_its_own_files(tmp_path):
    write(tmp_path / "all", {f"ours/{name}": content for name, content in project().items()})
    write(tmp_path / "all", {"slurm/theirs.py": "", "README.md": ""})
    git(tmp_path / "all", "init", "-q")
    commit_all(tmp_path / "all")
    write(tmp_path / "all", {"slurm/theirs.py": "x\n", "README.md": "x\n", "ours/slurm/new.py": "y\n"})
    write(tmp_path / "all", {"ours/slurm/__init__.py": "z\n"})
    state = git_state(tmp_path / "all" / "ours")
    assert state.dirty == ["slurm/__init__.py", "slurm/new.py"]
    assert "b/slurm/__init__.py" in state.diff
    assert "b/slurm/new.py" in state.diff


def test_an_installation_inside_an_unrelated_repository_is_no_checkout(tmp_path):
    site = tmp_path / ".venv" / "site-packages"
    write(tmp_path, {"pyproject.toml": "[project]\n", "vae_core/other.py": ""})
    git(tmp_path, "init", "-q")
    commit_all(tmp_path)
    write(site, packages() | {"slurm/__pycache__/a.pyc": "", "slurm/b.pyc": "", "sweeps/notes.txt": "# Q?\n"})
    write(site, {"README.md": "of another package", "LICENSE": "of another package", "torch/__init__.py": ""})
    state = git_state(site)
    assert state == GitState(None, [], False, "")
    assert refusal(state) is None
    take(site, tmp_path / "code")
    assert set(contents(tmp_path / "code")) == {*packages(), "sweeps/notes.txt", "SNAPSHOT.json"}
    assert json.loads((tmp_path / "code" / "SNAPSHOT.json").read_text())["commit"] is None


def test_without_git_every_file_is_copied_and_nothing_refused(checkout, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    write(checkout, {"slurm/__pycache__/a.pyc": "", "README.md": "changed\n"})
    (checkout / "constraints.txt").unlink()
    assert refusal(git_state(checkout)) is None
    take(checkout, tmp_path / "code")
    expected = code(checkout)
    del expected["slurm/__pycache__/a.pyc"]
    assert code(tmp_path / "code") == expected


def test_git_that_fails_half_way_is_not_taken_for_a_clean_tree(checkout, tmp_path, monkeypatch):
    write(checkout, {"slurm/__init__.py": "changed\n"})
    git_program = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    program = tmp_path / "bin" / "git"
    write(tmp_path, {"bin/git": f'#!/bin/sh\ncase " $* " in *" diff "*) exit 3;; esac\nexec {git_program} "$@"\n'})
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(subprocess.CalledProcessError, match=r"exit status 3"):
        git_state(checkout)
    with pytest.raises(subprocess.CalledProcessError, match=r"exit status 3"):
        take(checkout, tmp_path / "study" / "code")
    assert list((tmp_path / "study").iterdir()) == []


def test_the_repository_of_a_git_hook_is_not_asked(checkout, tmp_path, monkeypatch):
    commit = git(checkout, "rev-parse", "HEAD")
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert git_state(checkout).commit == commit


def test_a_snapshot_holds_the_code_its_commit_and_its_time(checkout, tmp_path):
    write(checkout, {"slurm/a.log": "", "slurm/__pycache__/new.cpython-311.pyc": ""})
    (checkout / "slurm" / "__init__.py").chmod(0o755)
    commit_all(checkout)
    take(checkout, tmp_path / "study" / "code")
    found = contents(tmp_path / "study" / "code")
    assert set(found) == {name for name in project() if belongs(name)} | {"SNAPSHOT.json"}
    assert code(tmp_path / "study" / "code") == {name: git_show(checkout, name) for name in found if belongs(name)}
    facts = json.loads(found["SNAPSHOT.json"])
    assert (facts["commit"], facts["dirty"]) == (git(checkout, "rev-parse", "HEAD"), [])
    assert abs(datetime.fromisoformat(facts["time"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert (tmp_path / "study" / "code" / "slurm" / "__init__.py").stat().st_mode & 0o100


def git_show(folder, name):
    return subprocess.run(["git", "-C", folder, "show", f"HEAD:{name}"], check=True, capture_output=True).stdout


def test_later_edits_and_a_second_call_change_nothing(checkout, tmp_path):
    target = tmp_path / "code"
    take(checkout, target)
    before = contents(target)
    write(checkout, {"slurm/__init__.py": "edited\n", "slurm/new.py": ""})
    take(checkout, target)
    assert contents(target) == before


def test_a_dirty_tree_is_copied_as_it_is_and_says_so(checkout, tmp_path):
    write(checkout, {"slurm/__init__.py": "edited\n", "slurm/new.py": "fresh\n"})
    (checkout / "sweeps" / "notes.txt").unlink()
    take(checkout, tmp_path / "code")
    assert code(tmp_path / "code") == code(checkout)
    assert json.loads((tmp_path / "code" / "SNAPSHOT.json").read_text())["dirty"] == git_state(checkout).dirty
    assert "+edited" in (tmp_path / "code" / "uncommitted.diff").read_text()


def test_a_call_that_fails_leaves_nothing(checkout, tmp_path, monkeypatch):
    def fails(path):
        raise OSError("the disk is full")

    monkeypatch.setattr(snapshot, "_fsync", fails)
    with pytest.raises(OSError, match=r"the disk is full"):
        take(checkout, tmp_path / "study" / "code")
    with pytest.raises(OSError, match=r"the disk is full"):
        archive(checkout, tmp_path / "study" / "code.tar.gz")
    assert list((tmp_path / "study").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from slurm import snapshot
snapshot._fsync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
getattr(snapshot, sys.argv[1])(Path(sys.argv[2]), Path(sys.argv[3]))
"""


def test_what_a_killed_call_left_is_removed_by_the_next(checkout, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    for function, name in (("take", "code"), ("archive", "code.tar.gz")):
        command = [sys.executable, "-c", KILLED, function, str(checkout), str(study / name)]
        assert subprocess.run(command, cwd=source_root(), check=False).returncode == -signal.SIGKILL
    write(study, {".code.other": "not ours"})
    assert len(list(study.iterdir())) == 3
    take(checkout, study / "code")
    assert len(list(study.iterdir())) == 3  # the archive's is not the snapshot's
    archive(study / "code", study / "code.tar.gz")
    assert {path.name for path in study.iterdir()} == {"code", "code.tar.gz", ".code.other"}


def test_nothing_is_visible_before_all_of_it_is_on_disk(checkout, tmp_path, monkeypatch):
    target, synced = tmp_path / "code", []
    real = snapshot._fsync

    def fsync(path):
        synced.append((path.name, target.exists()))
        real(path)

    monkeypatch.setattr(snapshot, "_fsync", fsync)
    take(checkout, target)
    names = {path.name for path in target.rglob("*")}
    assert names <= {name for name, visible in synced if not visible}
    assert synced[-1] == (tmp_path.name, True)


def test_an_archive_has_the_same_bytes_for_the_same_content(checkout, tmp_path, monkeypatch):
    take(checkout, tmp_path / "one")
    archive(tmp_path / "one", tmp_path / "one.tar.gz")
    for name, content in sorted(contents(tmp_path / "one").items(), reverse=True):  # another time, name and order
        write(tmp_path / "two", {name: content})
        os.utime(tmp_path / "two" / name, (1, 1))
        (tmp_path / "two" / name).chmod(0o600)
    write(tmp_path / "two", {"slurm/__pycache__/run.nbi": "left by a run"})
    monkeypatch.setattr(time, "time", lambda: 1.0)
    archive(tmp_path / "two", tmp_path / "two.tar.gz")
    assert digest(tmp_path / "one.tar.gz") == digest(tmp_path / "two.tar.gz")
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        assert tar.getnames() == sorted(tar.getnames(), key=Path)
        packed = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    assert packed == contents(tmp_path / "one")
    write(tmp_path / "one", {"slurm/__init__.py": "edited\n"})
    archive(tmp_path / "one", tmp_path / "one.tar.gz")  # an existing file is left as it is
    assert digest(tmp_path / "one.tar.gz") == digest(tmp_path / "two.tar.gz")
    archive(tmp_path / "one", tmp_path / "three.tar.gz")
    assert digest(tmp_path / "three.tar.gz") != digest(tmp_path / "one.tar.gz")


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


IMPORTS = """
import json
from importlib import resources
import vae_core.config, tracking, slurm.snapshot, experiments.sweep, sweeps
modules = [vae_core.config, tracking, slurm.snapshot, experiments.sweep, sweeps]
print(json.dumps([*(module.__file__ for module in modules), str(resources.files("sweeps"))]))
"""


def origins(**environment):
    """Return where a process started in the checkout imports the packages from."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(
        command, cwd=source_root(), env=kept | environment, check=True, capture_output=True, text=True
    )
    return [Path(file) for file in json.loads(done.stdout)]


def test_a_process_started_in_the_checkout_imports_the_snapshot(tmp_path):
    """The interpreter of a developer has the project installed editable as well."""
    take(source_root(), tmp_path / "code")
    found = origins(PYTHONPATH=str(tmp_path / "code"), PYTHONSAFEPATH="1", PYTHONDONTWRITEBYTECODE="1")
    assert len(found) == 6
    assert all(file.is_relative_to(tmp_path / "code") for file in found)
    without = origins(PYTHONPATH=str(tmp_path / "code"))  # the folder it is started in comes first
    assert all(file.is_relative_to(source_root()) for file in without)
