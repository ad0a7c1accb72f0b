"""What is submitted: scripts as sbatch would get them, run by bash where their lines do something."""

import os
import shlex
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from support.fake_slurm import FakeSlurm, option

from slurm.commands import ask
from slurm.errors import SlurmError
from slurm.host import JobHost
from slurm.settings import SlurmSettings
from slurm.submission import RefusedError, Submission, cancel, cancel_named, max_array_size

HOST = JobHost(("worker",), slots=2)
BACKEND = """
import zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{wheel_directory}/toy-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write("toy.py")
        wheel.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: toy\\nVersion: 1.0\\n")
        wheel.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("toy-1.0.dist-info/RECORD", "")
    open("litter", "w").close()  # as real backends do
    return "toy-1.0-py3-none-any.whl"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    return FakeSlurm(tmp_path / "bin", monkeypatch)


@pytest.fixture
def code(tmp_path):
    """A snapshot that is a small project, in a folder whose name a shell would split."""
    folder = tmp_path / "the code"
    folder.mkdir()
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (folder / "pyproject.toml").write_text(build + '[project]\nname = "toy"\nversion = "1.0"\n')
    (folder / "backend.py").write_text(BACKEND)
    (folder / "toy.py").write_text("WHERE = __file__\n")
    return folder


@pytest.fixture
def submission(tmp_path):
    def submission(code=None, data=(), threads=3, **settings):
        return Submission("tiny jobs", tmp_path / "slurm", HOST, SlurmSettings(**settings), code, threads, list(data))

    return submission


@pytest.fixture
def execute(slurm, tmp_path):
    """Run a script as the node would: (its exit code, what it said); srun's program runs in place of the worker."""

    def execute(script, program="", **environment):
        (tmp_path / "scratch of the node").mkdir(exist_ok=True)
        slurm.runs("srun", program)
        variables = {"PATH": f"{slurm.folder}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8"}
        variables |= {"TMPDIR": str(tmp_path / "scratch of the node"), "HOME": str(tmp_path), **environment}
        done = subprocess.run(["/bin/bash"], input=script, env=variables, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    return execute


def test_every_option_lands_in_the_script_and_no_slurm_is_needed(submission, slurm):
    script = submission(
        partition="gpu",
        account="lab",
        qos="high",
        constraint="a100|h100",
        exclude="old[01-17]",
        time="1-12:30",
        gpus=2,
        cpus=12,
        mem="16G",
        array_parallelism=5,
        signal_delay_s=90,
        extra={"mail-type": "END,FAIL", "exclusive": True, "hold": False, "nice": 100},
    ).script(20)
    expected = {
        "job-name": "tiny jobs",
        "partition": "gpu",
        "account": "lab",
        "qos": "high",
        "constraint": "a100|h100",
        "exclude": "old[01-17]",
        "time": "2190",
        "gpus-per-node": "2",
        "cpus-per-task": "12",
        "mem": "16G",
        "array": "0-19%5",
        "signal": "USR2@90",
        "mail-type": "END,FAIL",
        "exclusive": "",
        "hold": None,
        "nice": "100",
        "requeue": "",
        "nodes": "1",
        "ntasks-per-node": "1",
        "open-mode": "append",
        "wckey": None,
        "dependency": None,
    }
    assert {name: option(script, name) for name in expected} == expected
    assert slurm.asked("sbatch") == slurm.asked("scontrol") == []


def test_what_is_not_asked_for_is_left_to_the_site(submission):
    script = submission(gpus=0).script(1)
    for name in ("partition", "account", "qos", "constraint", "exclude", "gpus-per-node", "mem", "array"):
        assert option(script, name) is None
    assert option(script, "cpus-per-task") == "8"  # for each of two workers its threads and one core more
    assert "rm -rf" not in script


COMBINATIONS = [
    {},
    {"stage_code": True},
    {"stage_data": True},
    {"venv": []},
    {"venv": ["--index-url", "https://x/?a=b&c", "it's"], "stage_code": True, "stage_data": True},
    {
        "environment": {"A": 'it\'s "$HOME"', "B": "two\nlines"},
        "setup": ["module load x", "if true; then", "  true", "fi"],
    },
]


@pytest.mark.parametrize("settings", COMBINATIONS)
def test_every_script_is_valid_bash(submission, code, tmp_path, settings):
    script = submission(code, [tmp_path / "data 1", tmp_path / "data'2"], **settings).script(3)
    checked = subprocess.run(["/bin/bash", "-n"], input=script, capture_output=True, text=True, timeout=10)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_workers_see_the_variables_the_threads_and_the_code(submission, code, execute, tmp_path):
    environment = {"A": 'it\'s "$HOME"', "B": "two\nlines"}
    script = submission(code, environment=environment, setup=["export C=$A"]).script(1)
    program = f"/usr/bin/env -0 > {tmp_path}/environment"
    assert execute(script, program, PYTHONPATH="/theirs")[0] == 0
    seen = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().split("\0") if line)
    assert {name: seen[name] for name in environment} == environment
    assert seen["C"] == environment["A"]
    assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == "3"
    assert seen["SRUN_CPUS_PER_TASK"] == "8"
    assert (seen["PYTHONPATH"], seen["PYTHONSAFEPATH"]) == (f"{code}:/theirs", "1")
    assert execute(script, program)[0] == 0
    assert f"\0PYTHONPATH={code}\0" in (tmp_path / "environment").read_text()


def test_code_and_data_are_copied_to_the_node_and_removed_in_the_end(submission, code, execute, tmp_path):
    for name in ("set 1", "set'2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "images").write_text(name)
    script = submission(code, [tmp_path / "set 1", tmp_path / "set'2"], stage_code=True, stage_data=True).script(1)
    program = (
        f'{{ cat "$PYTHONPATH/toy.py"; cd "$VAE_SWEEP_STAGED_DATA" && pwd && cat */images && ls; }} > {tmp_path}/seen'
    )
    scratch = tmp_path / "scratch of the node" / "vae-sweep-7"
    for _ in range(2):  # a second execution may find what a killed one left
        assert execute(script, program) == (0, "")
        seen = (tmp_path / "seen").read_text().splitlines()
        assert seen == ["WHERE = __file__", f"{scratch}/data", "set 1set'2set 1", "set'2"]
        assert not scratch.exists()
        (scratch / "code").mkdir(parents=True)
        (scratch / "data" / "set 1").mkdir(parents=True)
        (scratch / "data" / "set 1" / "images").write_text("half")


@pytest.mark.parametrize("lost", ["code", "data", "scratch"])
def test_a_job_that_cannot_be_prepared_ends_before_its_workers_start(submission, code, execute, tmp_path, lost):
    data = tmp_path / "set"
    data.mkdir()
    script = submission(code, [data], stage_code=True, stage_data=True).script(1)
    (tmp_path / "scratch of the node").mkdir()
    if lost == "scratch":
        (tmp_path / "scratch of the node" / "vae-sweep-7").write_text("in the way")
    else:
        {"code": code, "data": data}[lost].rename(tmp_path / "gone")
    assert execute(script, f"touch {tmp_path}/started")[0] == 1
    assert not (tmp_path / "started").exists()


def test_a_virtual_environment_of_the_jobs_own_has_the_code_installed(submission, code, execute, slurm, tmp_path):
    (slurm.folder / "python3").symlink_to(sys.executable)
    script = submission(code, venv=["--no-index", "--quiet"]).script(1)
    [call] = [line for line in script.splitlines() if line.startswith("srun ")]
    program = (
        'while [ "$1" != -u ]; do python="$1"; shift; done\n'
        f'cd / && "$python" -c "import toy, sys; print(toy.WHERE, sys.prefix)" > {tmp_path}/seen\n'
        f'env -u PYTHONPATH "$python" -c "import toy; print(toy.WHERE)" >> {tmp_path}/seen\n'
        f'echo "$python" >> {tmp_path}/seen'
    )
    code_before = sorted(path.name for path in code.iterdir())
    returned, said = execute(script, program, PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert returned == 0, said
    scratch = tmp_path / "scratch of the node" / "vae-sweep-7"
    first, second, python = (tmp_path / "seen").read_text().splitlines()
    assert first == f"{scratch}/code/toy.py {scratch}/venv"
    assert second.startswith(f"{scratch}/venv/lib/")
    assert python == f"{scratch}/venv/bin/python"
    assert not scratch.exists()
    assert sorted(path.name for path in code.iterdir()) == code_before  # jobs share it
    assert call.count(sys.executable) == 0


def test_without_one_the_jobs_run_the_submitters_python(submission):
    assert f" {shlex.quote(sys.executable)} -u -m submitit.core._submit " in submission().script(1)


def test_more_jobs_than_an_array_may_have_go_one_array_after_the_other(submission, slurm):
    slurm.accepts_jobs(first=100, max_array_size=4)
    jobs = submission(array_parallelism=2).submit(10)
    elements = [f"{array}_{task}" for array, size in ((100, 4), (101, 4), (102, 2)) for task in range(size)]
    assert jobs == elements
    assert slurm.options("array") == ["0-3%2", "0-3%2", "0-1%2"]
    assert slurm.options("dependency") == [None, "afterany:100", "afterany:100:101"]


def test_a_single_job_is_no_array_and_waits_for_the_array_before(submission, slurm):
    slurm.accepts_jobs(first=100, max_array_size=4)
    assert submission(array_parallelism=4).submit(5)[-1] == "101"
    assert slurm.options("array") == ["0-3%4", None]
    assert slurm.options("dependency") == [None, "afterany:100"]


def test_arrays_that_may_all_run_at_once_do_not_wait_for_one_another(submission, slurm):
    slurm.accepts_jobs(first=100, max_array_size=4)
    assert len(submission(array_parallelism=10).submit(10)) == 10
    assert slurm.options("dependency") == [None, None, None]


def test_of_a_site_that_does_not_say_slurms_own_limit_is_believed(slurm):
    slurm.prints("scontrol", "MaxArraySize            = 4001\nMaxJobCount = 50000\n")
    assert max_array_size() == 4001
    slurm.prints("scontrol", "MaxArraySize            = 0\n")  # no arrays at all
    assert max_array_size() == 1
    slurm.prints("scontrol", "MaxJobCount = 50000\n")
    assert max_array_size() == 1001
    slurm.refuses("scontrol")
    assert max_array_size() == 1001


def test_scripts_which_may_hold_secrets_are_for_their_owner_alone(submission, slurm, tmp_path):
    slurm.accepts_jobs(max_array_size=2)
    before = os.umask(0o022)
    try:
        submission(setup=["export TOKEN=abc"]).submit(3)
    finally:
        os.umask(before)
    folders = list((tmp_path / "slurm").iterdir())
    assert len(folders) == 2  # one for each submission: ids may repeat on a cluster set up anew
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700, 0o700]
    holders = {path.parent for path in (tmp_path / "slurm").rglob("*.sh") if "TOKEN=abc" in path.read_text()}
    assert holders == set(folders)
    assert "TOKEN=abc" in slurm.scripts()[0]


@pytest.mark.parametrize(
    ("sbatch", "reason"),
    [
        ("echo 'sbatch: error: Invalid qos' >&2; exit 1", "^sbatch: Invalid qos; the script is in "),
        ("echo Fine", '^sbatch: prints no job id but "Fine"; the script is in '),
        (None, "^sbatch is not installed here; the script is in "),
        ("exec sleep 60", "^sbatch does not answer .*timed out after 1.0 seconds.*; the script is in "),
    ],
)
def test_a_refused_submission_says_why_and_where_the_script_is(
    submission, slurm, tmp_path, monkeypatch, sbatch, reason
):
    monkeypatch.setattr("slurm.submission.ask", partial(ask, timeout_s=1.0))
    slurm.accepts_jobs()
    if sbatch is None:
        (slurm.folder / "sbatch").unlink()
    else:
        slurm.runs("sbatch", sbatch)
    with pytest.raises(RefusedError, match=reason) as refusal:
        submission().submit(2)
    assert refusal.value.accepted == []
    folder = Path(str(refusal.value).rpartition(" ")[2])
    assert folder.parent == tmp_path / "slurm"
    assert list(folder.glob("*.sh"))


def test_a_refusal_says_which_jobs_were_accepted_before(submission, slurm):
    slurm.accepts_jobs(first=100, max_array_size=4)
    slurm.takes_submissions(2)
    with pytest.raises(RefusedError, match=r"^sbatch: Batch job submission failed") as refusal:
        submission().submit(10)
    assert refusal.value.accepted == [f"{array}_{task}" for array in (100, 101) for task in range(4)]


@pytest.mark.parametrize("variables", [{}, {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}])
def test_a_job_that_sbatch_queued_without_saying_so_finds_what_it_runs(submission, slurm, execute, tmp_path, variables):
    slurm.accepts_jobs()
    slurm.runs("sbatch", f"cp \"$1\" {slurm.folder}/1.script; echo 'sbatch: error: Socket timed out' >&2; exit 1")
    with pytest.raises(RefusedError, match="Socket timed out"):
        submission().submit(4)
    [script] = slurm.scripts()
    program = 'while [ "$1" != -u ]; do shift; done; exec ' + f'"{sys.executable}" "$@"'
    tried = execute(script, program, PYTHONPATH=os.pathsep.join(sys.path), **variables)
    job = "5_3" if variables else "7"
    [found] = (tmp_path / "slurm").glob("*/*_submitted.pkl")
    assert found.name == f"{job}_submitted.pkl"
    assert "FileNotFoundError: [Errno 2] No such file or directory: 'worker'" in tried[1]  # HOST's command


def test_jobs_that_are_gone_are_cancelled_all_the_same(slurm):
    cancel([])
    assert slurm.asked("scancel") == []
    slurm.prints("scancel")
    cancel(["7", "8_1"])
    assert slurm.asked("scancel") == ["7 8_1"]
    slurm.refuses("scancel", "Kill job error on job id 7: Invalid job id specified")
    cancel(["7"])
    slurm.refuses("scancel", "Access denied")
    with pytest.raises(SlurmError, match="scancel: Access denied"):
        cancel(["7"])


def test_jobs_of_a_name_are_cancelled_if_they_are_ones_own(slurm):
    slurm.prints("scancel")
    cancel_named("tiny")
    assert slurm.asked("scancel") == [f"--name tiny --user {os.getuid()}"]
    slurm.refuses("scancel")
    with pytest.raises(SlurmError, match="scancel: Unable to contact"):
        cancel_named("tiny")


def test_whether_slurm_would_take_such_a_job_is_asked_with_its_own_script(submission, slurm):
    slurm.runs("sbatch", f"cat > {slurm.folder}/1.script; grep -q partition=gpu {slurm.folder}/1.script")
    assert submission(partition="gpu").refusal() is None
    assert slurm.asked("sbatch") == ["--test-only"]
    assert submission(partition="cpu").refusal() == "sbatch: exit code 1"
