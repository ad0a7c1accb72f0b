"""`vae-sweep doctor`: each check on what is fine and on what is broken, on a real Slurm and on other sites."""

import errno
import fcntl
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from rich.console import Console
from support.fake_site import CONFIGURATION, NODES, PARTITIONS, alone_on_path, fake_site
from support.slurm import running_sandbox, slurm

from experiments import machine_checks, root_checks, slurm_checks
from experiments.checks import Check, attempted
from experiments.doctor import show_checks
from experiments.file_system import file_system_of
from experiments.partition_checks import profile_checks, shared_with_nodes
from experiments.slurm_profiles import with_profile
from experiments.store_checks import database, journal
from experiments.sweep_file import LauncherConfig
from slurm.settings import SlurmSettings
from slurm.site import partitions
from vae_core.errors import UserError

COMMAND = [sys.executable, "-m", "experiments.cli", "doctor"]
PROFILES = """
fits: {partition: main, gpus: 2, time: 60}
default: {gpus: 0, time: 60}
typo: {partition: mian}
greedy: {partition: main, gpus: 3}
either: {partition: "main,high", gpus: 1, time: 60}
one-typo: {partition: "main,hihg"}
short: {partition: cpu, gpus: 0, time: 481, coordinator_time: 480}
cpu: {partition: cpu, gpus: 0, time: 480}
cards: {partition: cpu, gpus: 8, time: 60, coordinator_partition: gpu}
down: {partition: long, gpus: 0}
empty: {partition: empty, gpus: 1, time: 20, coordinator_time: 20}
two: {partition: "cpu,gpu", gpus: 4, time: 60, coordinator_time: 60}
hidden: {partition: staff, gpus: 8}
"""


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """A user with profiles, and without weights."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "vae-sweep").mkdir()
    (folder / "vae-sweep" / "slurm.yaml").write_text(PROFILES)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    return folder


@pytest.fixture
def no_slurm(tmp_path_factory, monkeypatch):
    alone_on_path(tmp_path_factory.mktemp("bin"), monkeypatch, {})


@pytest.fixture(scope="module")
def sandbox():
    with running_sandbox() as cluster:
        yield cluster


@pytest.fixture
def site(tmp_path_factory, monkeypatch):
    """Return a function that makes a site with other answers than usual, and returns what it will be asked."""

    def make(**answers):
        folder = tmp_path_factory.mktemp("bin")
        fake_site(folder, monkeypatch, **answers)
        return folder / "asked"

    return make


def doctor(root, profile=None, width=400):
    """Return the exit code, the checks' rows as {name: [verdict and text of each]}, and all that was printed."""
    console = Console(file=io.StringIO(), width=width)
    code = show_checks(root, profile, console)
    text = console.file.getvalue()
    rows: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("   ") if cell.strip()]
        if len(cells) >= 3 and cells[1].split()[0] in ("ok", "note", "broken"):
            name = cells[0]
            rows.setdefault(name, []).append(" ".join(cells[1:]))
        elif len(cells) == 1 and cells[0].startswith("→"):
            rows[name][-1] += f" {cells[0]}"
    return code, rows, text


def verdict(rows, name):
    [row] = rows[name]
    return row.split()[0]


# the whole command


def test_a_laptop_is_fine_without_slurm_and_nothing_is_left_behind(tmp_path, no_slurm):
    code, rows, text = doctor(tmp_path / "a" / "runs")
    assert code == 0
    assert list(tmp_path.iterdir()) == []
    assert rows["root"] == [f"ok {tmp_path}/a/runs can be made"]
    assert rows["SLURM"] == ["note no sbatch on PATH → " + slurm_checks.no_slurm(None).remedy]
    assert "vae-sweep sandbox start" in slurm_checks.no_slurm(None).remedy
    for name in ("Python", "torch", "locks", "rename", "mlflow.db", "optuna.journal"):
        assert verdict(rows, name) == "ok"
    assert text.splitlines()[-1] == (
        f"{sum(row[0].startswith('ok') for row in rows.values())} ok, "
        f"{sum(row[0].startswith('note') for row in rows.values())} notes, 0 broken"
    )


def test_a_root_that_is_in_use_stays_as_it_is(tmp_path, no_slurm):
    (tmp_path / "beta").mkdir()
    (tmp_path / "beta" / "sweep.yaml").write_text("a: 1\n")
    (tmp_path / "optuna.journal").write_bytes(b'{"a": 1}\n{"tor')
    sqlite3.connect(tmp_path / "mlflow.db").executescript("CREATE TABLE runs (a); INSERT INTO runs VALUES (1);")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, rows, _ = doctor(tmp_path)
    assert code == 0
    assert rows["root"] == [f"ok {tmp_path} can be written"]
    assert (verdict(rows, "mlflow.db"), verdict(rows, "optuna.journal")) == ("ok", "note")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"beta", "optuna.journal", "mlflow.db"}


def test_one_broken_check_is_exit_code_1_and_the_others_are_shown(tmp_path, no_slurm, monkeypatch):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 10**8, 10**8))
    code, rows, text = doctor(tmp_path)
    assert code == 1
    assert rows["free space"] == [f"broken 0.1 GB → {root_checks.free_space(0).remedy}"]
    assert verdict(rows, "locks") == "ok"
    assert text.splitlines()[-1].endswith(" 1 broken")


def test_a_torch_that_cannot_be_imported_is_one_row_and_exit_code_1(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file\\nmore')\n")
    variables = os.environ | {"PYTHONPATH": str(tmp_path), "PATH": "/nowhere", "COLUMNS": "400"}
    command = [*COMMAND, "--root", str(tmp_path / "runs")]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert " ".join(result.stdout.split()).count("broken cannot be imported: libcudart.so.12: cannot open") == 1
    assert "GPUs" not in result.stdout
    assert "optuna.journal" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["torch.py"]


def test_the_command_imports_torch_only_when_it_checks_it():
    code = "import experiments.doctor, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "mlflow", "optuna", "submitit", "numpy"} & set(loaded)


def test_at_100_columns_no_line_is_longer_and_no_word_is_lost(tmp_path, site):
    site(configuration=CONFIGURATION.replace(",preempt_send_user_signal", ""))

    def words(text):  # measured numbers differ, rules and paths fit their width
        return {word for word in text.split() if word.isascii() and not any(map(str.isdigit, word)) and "/" not in word}

    wide, narrow = doctor(tmp_path)[2], doctor(tmp_path, width=100)[2]
    assert max(map(len, narrow.splitlines())) <= 100
    assert words(wide) <= words(narrow)
    assert len(words(narrow)) > 100


@pytest.mark.parametrize(
    "error",
    [OSError(5, "I/O error"), ValueError("a\nb"), sqlite3.DatabaseError("a"), subprocess.TimeoutExpired("a", 1)],
)
def test_a_check_that_fails_itself_is_broken_and_says_why(error):
    def check():
        raise error

    found = attempted("name", check)
    assert (found.name, found.verdict) == ("name", "broken")
    assert found.finding == f"this check failed: {type(error).__name__}: {str(error).splitlines()[0]}"
    assert found.remedy


# the machine


@pytest.mark.parametrize(
    ("version", "expected"), [((3, 10), "broken"), ((3, 11), "ok"), ((3, 14), "ok"), ((2, 12), "broken")]
)
def test_the_version_of_python(version, expected):
    assert machine_checks.python_version(version).verdict == expected


def test_the_version_of_torch_is_shown():
    assert machine_checks.torch_version().finding.startswith(torch.__version__)


def test_gpus_are_named_and_counted(monkeypatch):
    names = ["A100", "A100", "V100"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", names.__getitem__)
    assert machine_checks.gpus() == Check("GPUs", "2 × A100; 1 × V100")


def test_without_gpus_training_uses_the_cpu_and_what_torch_says_of_it_is_shown(monkeypatch):
    def count():
        import warnings

        warnings.warn("CUDA initialization: the NVIDIA driver is too old\nsee", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", count)
    found = machine_checks.gpus()
    assert found.verdict == "note"
    assert "(CUDA initialization: the NVIDIA driver is too old): training here uses the CPU" in found.finding


def test_cores_that_are_not_ours_are_a_note(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6})
    found = machine_checks.cores()
    assert (found.verdict, found.finding.split(",")[0]) == ("note", "64 cores")
    assert "at most 3 /" in found.remedy
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert machine_checks.cores().verdict == "ok"


def test_weights_are_looked_for_where_they_are_loaded_from(home):
    path = home / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    found = machine_checks.lpips_weights()
    assert found.verdict == "note"
    assert str(path) in found.finding
    assert "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth" in found.remedy
    path.parent.mkdir(parents=True)
    path.touch()
    assert machine_checks.lpips_weights().verdict == "ok"


def test_code_in_a_checkout_is_clean_dirty_or_unpushed(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    source, remote = tmp_path / "source", tmp_path / "remote"
    for name in ("pyproject.toml", "vae_core/__init__.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    assert machine_checks.code(source) == Check("code", f"{source}: an installed package, no git checkout")

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *words], cwd=source, check=True, capture_output=True)

    for words in (["init", "-b", "main"], ["add", "."], ["commit", "-m", "a"], ["init", "--bare", str(remote)]):
        git(*words)
    git("remote", "add", "origin", str(remote))
    unpushed = machine_checks.code(source)
    git("push", "origin", "main")
    clean = machine_checks.code(source)
    (source / "vae_core/__init__.py").write_text("a = 1\n")
    dirty = machine_checks.code(source)
    assert [check.verdict for check in (unpushed, clean, dirty)] == ["note", "ok", "note"]
    assert "is on no branch of a remote" in unpushed.finding
    assert dirty.finding.endswith("1 file(s) of the code differ from the last commit: vae_core/__init__.py")
    assert "--allow-dirty" in dirty.remedy
    lines = (
        f'case "$*" in *" diff "*) echo "fatal: no space left" >&2; exit 128;; esac; exec {shutil.which("git")} "$@"'
    )
    alone_on_path(tmp_path / "bin", monkeypatch, {"git": lines})
    silent = machine_checks.code(source)
    assert (silent.verdict, "git does not say what has changed" in silent.finding) == ("note", True)


# the root


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ("file", "file is no folder"),
        ("file/below/it", "file is no folder"),
        ("dangling/runs", "dangling is no folder"),
        ("what?", "cannot hold a '?'"),
        ("/proc/runs", "/proc cannot be written ("),
    ],
)
def test_a_root_that_cannot_be(tmp_path, no_slurm, root, reason):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    code, rows, _ = doctor(tmp_path / root)
    assert code == 1
    assert rows["root"][0].startswith(f"broken {tmp_path / root}: ")
    assert reason in rows["root"][0]
    assert "--root" in rows["root"][0]
    assert "write speed" not in rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


@pytest.mark.parametrize(
    ("free", "expected"), [(999 * 10**6, "broken"), (10**9, "note"), (10**10, "ok"), (10**13, "ok")]
)
def test_free_space(free, expected):
    assert root_checks.free_space(free).verdict == expected


def test_a_disk_that_is_full_is_a_broken_check(tmp_path, no_slurm, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, rows, _ = doctor(tmp_path)
    assert code == 1
    for name in ("write speed", "small files"):
        assert rows[name][0].startswith("broken this check failed: OSError: [Errno 28] No space left on device")
    assert list(tmp_path.iterdir()) == []


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:27 / {0}/memory rw shared:3 - tmpfs tmpfs rw,size=24684092k
31 27 0:28 / {0}/home\\040two rw,noatime - nfs4 server:/home rw,vers=4.2,local_lock=none
32 27 0:29 / {0}/lustre rw,localflock - lustre 10.0.0.1@o2ib:/fs rw
33 27 0:30 / {0}/old rw - nfs server:/old rw,nolock
34 27 0:31 / {0}/box rw - overlay overlay rw
35 27 0:32 / {0}/twice rw - ext4 /dev/vdb rw
36 35 0:33 / {0}/twice rw - beegfs beegfs_nodev rw
"""


@pytest.mark.parametrize(
    ("folder", "kind", "expected", "words"),
    [
        (".", "ext4", "ok", "mounted at /"),
        ("memory/deep/below", "tmpfs", "note", "lost when this machine restarts"),
        ("memory2", "ext4", "ok", ""),
        ("home two", "nfs4", "note", "a network file system"),
        ("lustre/x", "lustre", "note", "a network file system"),
        ("box", "overlay", "note", "of a container"),
        ("twice/x", "beegfs", "note", "a network file system"),
    ],
)
def test_the_file_system_of_a_folder(tmp_path, folder, kind, expected, words):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(tmp_path))
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    found = file_system_of(tmp_path / folder, mounts)
    check = root_checks.file_system(found)
    assert (found.kind, check.verdict) == (kind, expected)
    assert words in check.finding
    assert (check.remedy != "") == (expected == "note")


def test_a_link_leads_to_the_file_system_of_its_target(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(tmp_path))
    (tmp_path / "lustre").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "lustre")
    assert file_system_of(tmp_path / "link", mounts).kind == "lustre"


def test_a_system_without_a_list_of_mounts_is_no_trouble(tmp_path):
    assert file_system_of(tmp_path, tmp_path / "nothing") is None
    assert root_checks.file_system(None).verdict == "ok"


@pytest.mark.skipif(shutil.which("findmnt") is None, reason="needs findmnt")
@pytest.mark.parametrize("path", [Path(__file__), Path("/proc/self"), Path("/sys"), Path("/")])
def test_the_file_system_is_what_findmnt_says(path):
    said = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", path], capture_output=True, text=True).stdout
    assert file_system_of(path).kind == said.split()[-1]  # the last of several on one place is seen


def test_locks_are_tried_with_two_holders(tmp_path, monkeypatch):
    assert root_checks.locks(tmp_path) == Check("locks", "flock refuses a second holder")
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert root_checks.locks(tmp_path).verdict == "broken"

    def none(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert root_checks.locks(tmp_path).finding == "flock fails (No locks available)"
    assert root_checks.locks(tmp_path).verdict == "broken"


@pytest.mark.parametrize(("folder", "expected"), [("lustre", "note"), ("old", "note"), ("home two", "ok"), (".", "ok")])
def test_locks_that_other_machines_do_not_see_are_a_note(tmp_path, folder, expected):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(tmp_path))
    (tmp_path / folder).mkdir(exist_ok=True)
    assert root_checks.reach_of_locks(file_system_of(tmp_path / folder, mounts)).verdict == expected


def test_a_rename_has_to_replace(tmp_path, monkeypatch):
    assert root_checks.rename(tmp_path).verdict == "ok"
    monkeypatch.setattr(Path, "replace", lambda self, _: self.unlink())
    assert root_checks.rename(tmp_path).verdict == "broken"


def test_speeds_are_of_what_is_on_disk(tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def slow(descriptor):
        calls.append(os.fstat(descriptor).st_size)
        time.sleep(0.01)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    assert root_checks.write_speed(tmp_path).verdict == "ok"
    assert calls == [32 * 10**6]
    found = root_checks.small_files(tmp_path)
    assert len(calls) == 1 + 2 * 10  # each file and its folder
    assert float(found.finding.split()[0]) >= 20


@pytest.mark.parametrize(("speed", "expected"), [(9.9, "note"), (10, "ok"), (2000, "ok")])
def test_a_speed_is_judged(speed, expected):
    assert root_checks.judged_speed(speed).verdict == expected


@pytest.mark.parametrize(("latency_ms", "expected"), [(0.1, "ok"), (100, "ok"), (101, "note")])
def test_a_latency_is_judged(latency_ms, expected):
    assert root_checks.judged_latency(latency_ms).verdict == expected


# the stores


@pytest.fixture
def mlflow(tmp_path):
    """A database of several pages, in a folder whose name means something in addresses."""
    (tmp_path / "a b#%3f").mkdir()
    path = tmp_path / "a b#%3f" / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE runs (name TEXT); CREATE INDEX names ON runs (name);")
    connection.executemany("INSERT INTO runs VALUES (?)", [(f"{number:0100}",) for number in range(1000)])
    connection.commit()
    connection.close()
    return path


def test_a_database_that_is_missing_whole_damaged_or_busy(mlflow):
    assert database(mlflow.with_name("other")).verdict == "ok"
    assert database(mlflow).verdict == "ok"
    writer = sqlite3.connect(mlflow)
    writer.execute("BEGIN EXCLUSIVE")
    busy = database(mlflow, patience_s=0.05)
    writer.close()
    content = bytearray(mlflow.read_bytes())
    content[4096 * 5 : 4096 * 6] = os.urandom(4096)
    mlflow.write_bytes(content)
    damaged = database(mlflow)
    mlflow.write_text("no database at all, but a text that is longer than its header" * 100)
    foreign = database(mlflow)
    assert (busy.verdict, busy.finding) == ("note", "not checked: database is locked")
    assert (damaged.verdict, foreign.verdict) == ("broken", "broken")
    assert foreign.finding == "damaged: file is not a database"
    assert "vae-sweep rebuild" in damaged.remedy


def test_a_database_that_a_killed_writer_left_half_written_is_not_touched(mlflow, tmp_path):
    writer = sqlite3.connect(mlflow)
    writer.execute("PRAGMA cache_size = 1")
    writer.executemany("INSERT INTO runs VALUES (?)", [(f"{number:0100}",) for number in range(1000)])
    for path in mlflow.parent.iterdir():
        shutil.copy(path, tmp_path)
    writer.close()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("mlflow.db*")}
    found = database(tmp_path / "mlflow.db")
    assert sorted(before) == ["mlflow.db", "mlflow.db-journal"]
    assert {path.name: path.read_bytes() for path in tmp_path.glob("mlflow.db*")} == before
    assert found.verdict == "note"
    assert found.finding.startswith("not checked: ")


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "ok"), (b"", "ok"), (b"{}\n", "ok"), (b"{}\n{", "note"), (b"{}", "note")]
)
def test_a_journal_ends_with_a_whole_line(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "optuna.journal").write_bytes(content)
    assert journal(tmp_path / "optuna.journal").verdict == expected


# SLURM


def test_a_real_site_is_fit_and_its_partitions_are_shown(tmp_path, sandbox):
    code, rows, text = doctor(tmp_path, "fits")
    assert code == 0
    for name in (
        "squeue",
        "version",
        "preemption",
        "limits",
        "requeue",
        "partitions",
        "profile fits",
        "shared folders",
    ):
        assert verdict(rows, name) == "ok"
    assert rows["sacct"][0].startswith("note Slurm accounting storage is disabled →")
    assert rows["KillWait"][0].startswith("note 5 s ")
    assert "MaxArraySize 1001" in rows["limits"][0]
    assert rows["partitions"] == ["ok 2 of 2 are UP with working nodes; default: main"]
    shown = [" ".join(line.split()) for line in text.splitlines()]
    assert "main (default) UP none 2/2 gpu:2 20 s REQUEUE" in shown
    assert "high UP none 2/2 gpu:2 0 s OFF" in shown


@pytest.mark.parametrize(
    ("profile", "options", "words"),
    [
        ("typo", ["-p", "mian"], "there is no partition mian → set another partition; did you mean main?"),
        ("one-typo", ["-p", "main,hihg"], "there is no partition hihg → set another partition; did you mean high?"),
        ("greedy", ["-p", "main", "--gpus-per-node=3"], "partition main has 2 GPUs per node, not 3 → gpus: at most 2"),
    ],
)
def test_a_profile_that_a_real_site_refuses_is_broken(tmp_path, sandbox, profile, options, words):
    assert slurm("sbatch", *options, "--wrap", "true", check=False).returncode != 0
    code, rows, _ = doctor(tmp_path, profile)
    assert code == 1
    assert rows[f"profile {profile}"] == [f"broken {words}"]


def test_profiles_follow_what_an_administrator_changes(tmp_path, sandbox):
    slurm("scontrol", "update", "partitionname=main", "maxtime=30")
    slurm("scontrol", "update", "partitionname=high", "state=down")
    try:
        code, rows, _ = doctor(tmp_path, "either")
        _, other, _ = doctor(tmp_path, "default")
    finally:
        slurm("scontrol", "update", "partitionname=main", "maxtime=unlimited")
        slurm("scontrol", "update", "partitionname=high", "state=up")
    assert code == 1
    assert rows["profile either"][:2] == [
        "broken partition main ends jobs after 30 min, not 60 → time: at most 30",
        "broken partition high is DOWN → wait, or set another partition",
    ]
    assert other["profile default"][0].startswith("broken partition main ends jobs after 30 min")
    assert doctor(tmp_path, "either")[0] == doctor(tmp_path, "default")[0] == 0


@pytest.mark.parametrize(
    ("profile", "broken", "words"),
    [
        (
            "cpu",
            False,
            [
                "ok partition cpu takes its jobs (8 h 00 min, 0 GPUs each)",
                "note with --coordinator job: partition cpu ends jobs after 480 min, not 1440 coordinator_time: ",
            ],
        ),
        ("short", True, ["broken partition cpu ends jobs after 480 min, not 481 time: at most 480"]),
        (
            "cards",
            True,
            ["broken partition cpu has 0 GPUs per node, not 8 gpus: at most 0, or set partition to one of "],
        ),
        ("down", True, ["broken partition long is DOWN"]),
        ("empty", True, ["broken partition empty has none of its 2 nodes up"]),
        ("two", False, ["note partition cpu has 0 GPUs per node, not 4", "ok partition gpu takes its jobs"]),
        ("hidden", False, ["ok partition staff takes its jobs (4 h 00 min, 8 GPUs each)"]),
    ],
)
def test_a_profile_is_compared_with_its_partitions(site, profile, broken, words):
    site()
    settings = with_profile(LauncherConfig(profile=profile), "--profile").slurm
    checks = list(profile_checks(partitions(), profile, settings))
    rows = [f"{check.verdict} {check.finding} {check.remedy}" for check in checks]
    assert {check.name for check in checks} == {f"profile {profile}"}
    assert any(check.verdict == "broken" for check in checks) == broken
    assert len(rows) == len(words)
    for row, beginning in zip(rows, words, strict=True):
        assert row.startswith(beginning)


def test_hidden_partitions_are_not_shown_and_times_are_words(tmp_path, site):
    site()
    _, rows, text = doctor(tmp_path)
    shown = [" ".join(line.split()) for line in text.splitlines()]
    assert "cpu (default) UP 8 h 00 min 4/4 0 s OFF" in shown
    assert "gpu UP 48 h 00 min 4/5 gpu:a100:4(S:0-1) or gpu:v100:2,shard:8 60 s REQUEUE" in shown
    assert not any(line.startswith("staff") for line in shown)
    assert rows["partitions"] == ["ok 3 of 5 are UP with working nodes; default: cpu"]


@pytest.mark.parametrize(
    ("old", "new", "name", "expected", "words"),
    [
        ("23.02", "23.02", "preemption", "ok", "--signal"),
        (",preempt_send_user_signal", "", "preemption", "note", "SlurmctldParameters=preempt_send_user_signal"),
        ("preempt/partition_prio", "preempt/none", "preemption", "ok", "off"),
        ("30 sec", "29 sec", "KillWait", "note", "29 s from SIGTERM to SIGKILL"),
        ("30 sec", "30 sec", "KillWait", "ok", "30 s"),
        ("AuthInfo                = (null)", "AuthInfo = cred_expire=300", "requeue", "note", "requeue_patience_s"),
        ("AuthInfo                = (null)", "AuthInfo = cred_expire=299", "requeue", "ok", "waits 299 s"),
        ("AuthInfo", "Else", "requeue", "ok", "waits 120 s"),
        ("JobRequeue              = 1", "JobRequeue = 0", "requeue", "ok", "jobs ask for --requeue"),
        ("4001", "17", "limits", "ok", "MaxArraySize 17"),
        ("KillWait  ", "Else  ", "KillWait", "ok", "unknown"),
    ],
)
def test_settings_of_a_site(site, old, new, name, expected, words):
    assert old in CONFIGURATION
    site(configuration=CONFIGURATION.replace(old, new))
    [check] = [check for check in slurm_checks.setting_checks(SlurmSettings()) if check.name == name]
    assert check.verdict == expected
    assert words in f"{check.finding} {check.remedy}"
    assert (check.remedy == "") == (expected == "ok")


def test_a_scheduler_that_does_not_answer_is_asked_nothing_more(tmp_path, site):
    asked = site(squeue="echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1")
    code, rows, _ = doctor(tmp_path, "cpu")
    assert code == 1
    assert rows["squeue"][0].startswith("broken Unable to contact slurm controller → see what scontrol ping")
    assert "partitions" not in rows
    assert [line.split()[0] for line in asked.read_text().splitlines()] == ["squeue"]


def test_a_slow_scheduler_should_be_asked_more_rarely(site):
    site(squeue="sleep 0.2")
    assert int(slurm_checks.squeue().finding.split()[2]) >= 200
    assert slurm_checks.judged_answer(5.0).verdict == "ok"
    slow = slurm_checks.judged_answer(6.0)
    assert (slow.verdict, "poll_s of 60" in slow.remedy) == ("note", True)


def test_accounting_that_is_on(site):
    site(sacct="true")
    assert slurm_checks.sacct() == Check("sacct", "accounting is on")


@pytest.mark.parametrize(
    ("answers", "name", "words"),
    [
        ({"nodes": NODES.replace("3/1/0/4", "1.5K/1/0/4")}, "partitions", "this check failed: ValueError: invalid lit"),
        ({"partitions": PARTITIONS.replace("State=", "Mood=")}, "partitions", "this check failed: KeyError: 'State'"),
        ({"partitions": ""}, "partitions", "0 of 0 are UP with working nodes; default: none"),
    ],
)
def test_what_cannot_be_understood_is_broken_and_no_traceback(tmp_path, site, answers, name, words):
    site(**answers)
    code, rows, _ = doctor(tmp_path, "cpu")
    assert code == 1
    assert rows[name][0].startswith(f"broken {words}")


def test_a_site_without_a_default_partition_needs_one_named(tmp_path, site):
    site(partitions=PARTITIONS.replace("Default=YES", "Default=NO"))
    code, rows, _ = doctor(tmp_path, "default")
    assert code == 1
    assert rows["profile default"] == ["broken names no partition, and the site has no default → set partition"]


def test_folders_of_this_machine_alone_are_not_seen_by_other_nodes(tmp_path, site, monkeypatch):
    site()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(tmp_path))
    local = shared_with_nodes(tmp_path / "runs", mounts)
    (tmp_path / "lustre").mkdir()
    half = shared_with_nodes(tmp_path / "lustre" / "runs", mounts)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "lustre"))
    shared = shared_with_nodes(tmp_path / "lustre" / "runs", mounts)
    assert local.verdict == half.verdict == "note"
    assert (
        local.finding == "the root on ext4 and this Python on ext4: not seen by 5 other machines (c01, c02, c03, ...)"
    )
    assert half.finding.startswith("this Python on ext4: ")
    assert shared.verdict == "ok"
    site(hosts=f"localhost\n{os.uname().nodename}\n")
    assert shared_with_nodes(tmp_path / "runs", mounts).verdict == "ok"


def test_a_profile_without_slurm_is_checked_for_being_one(tmp_path, no_slurm):
    code, rows, _ = doctor(tmp_path, "fits")
    assert code == 0
    assert "profile fits is valid, but not compared with a site" in rows["SLURM"][0]


def test_a_profile_that_is_none_is_a_mistake(tmp_path, no_slurm, home):
    with pytest.raises(UserError, match=r"no profile 'fitz' in .*slurm.yaml; did you mean fits"):
        doctor(tmp_path, "fitz")
    (home / "vae-sweep" / "slurm.yaml").write_text("fits: {partitoin: main}\n")
    with pytest.raises(UserError, match=r"slurm.yaml: fits.*partitoin"):
        doctor(tmp_path, "fits")


def test_the_patience_of_a_profile_counts(site):
    site()
    found = list(slurm_checks.setting_checks(SlurmSettings(requeue_patience_s=60)))
    assert {check.name: check.verdict for check in found}["requeue"] == "note"
