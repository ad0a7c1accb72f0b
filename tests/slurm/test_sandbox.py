"""The sandbox as a user meets it: a real Slurm that starts, runs jobs, survives kills and leaves nothing behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from itertools import accumulate
from pathlib import Path

import pytest
from support.processes import LISTENING, alive, sockets
from support.slurm import (
    job_fields,
    job_state,
    node_state,
    restart_slurmd,
    running_sandbox,
    sbatch,
    slurm,
    slurmd_pid,
    squeue,
    step_pids,
    task_pids,
    wait_until,
)

from slurm import sandbox as sandboxes
from slurm.errors import SlurmError, SlurmMistake
from slurm.sandbox_processes import daemons, leftovers

PROJECT = Path(__file__).parents[2]
DAEMONS = ["munged", "slurmctld", "slurmd n1", "slurmd n2"]
UNSHARE = ["unshare", "--mount", "--uts"]
MAY_UNSHARE = (
    shutil.which("unshare") is not None
    and subprocess.run([*UNSHARE, "true"], stderr=subprocess.DEVNULL).returncode == 0
)


@pytest.fixture
def folder():
    """A folder whose path is short enough, and whose sandbox is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="sandbox", dir="/tmp") as name:
        yield Path(name)
        sandboxes.stop(Path(name))


def pids(folder):
    return [pid for found in daemons(folder).values() for pid in found]


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_starting_a_running_one_returns_it_and_starts_nothing(sandbox):
    before = sandboxes.status(sandbox.folder)
    again = sandboxes.start(sandbox.folder)
    after = sandboxes.status(sandbox.folder)
    assert sandbox.started == tuple(DAEMONS)
    assert again.started == ()
    assert again.settings == sandbox.settings
    assert list(after.daemons.items()) == list(before.daemons.items())
    assert sorted(after.daemons) == sorted(DAEMONS)
    assert after.nodes == {"n1": "idle", "n2": "idle"}
    assert after.dead == []
    assert sandbox.environment == {"SLURM_CONF": f"{sandbox.folder}/slurm.conf"}


def test_a_step_runs_on_both_nodes(sandbox):
    printed = slurm("srun", "-N2", "sh", "-c", "echo $SLURMD_NODENAME").stdout
    assert sorted(printed.split()) == ["n1", "n2"]


def test_an_array_keeps_its_limit_and_each_task_has_a_gpu_of_its_own(sandbox, tmp_path):
    log = tmp_path / "log"
    script = "echo start $SLURM_ARRAY_TASK_ID $CUDA_VISIBLE_DEVICES; sleep 0.5; echo end"
    job = sbatch(script, log, "--array=0-3%2", "--gpus-per-node=1", "--nodelist=n1")
    assert {(entry.array, entry.task) for entry in squeue()} == {(job, task) for task in range(4)}
    wait_until(lambda: lines(log).count("end") == 4, "four tasks")
    running = list(accumulate(1 if line.startswith("start") else -1 for line in lines(log)))
    devices = [line.split()[2] for line in lines(log) if line.startswith("start")]
    assert max(running) == 2
    assert sorted(devices) == ["0", "0", "1", "1"]
    both = slurm("srun", "--gpus-per-node=2", "printenv", "CUDA_VISIBLE_DEVICES").stdout.strip()
    assert both == "0,1"


def test_more_gpus_than_a_node_has_and_too_large_arrays_are_refused(sandbox, tmp_path):
    refused = slurm("sbatch", "--gpus-per-node=3", "--wrap", "true", check=False)
    assert "Requested node configuration is not available" in refused.stderr
    refused = slurm("sbatch", "--array=0-1001", "--wrap", "true", check=False)
    assert "Invalid job array specification" in refused.stderr


def test_partition_high_preempts_main_whose_job_is_warned_and_requeued(sandbox, tmp_path):
    log, ready = tmp_path / "victim", tmp_path / "ready"
    script = f"trap 'echo warned; scontrol requeue $SLURM_JOB_ID' USR2; touch {ready}; while :; do sleep 0.1; done"
    victim = sbatch(script, log, "--exclusive", "-N2", "--signal=B:USR2@90", "--requeue")
    wait_until(ready.exists, "the victim")
    winner = sbatch("echo won", tmp_path / "winner", "--exclusive", "-N2", "--partition=high")
    wait_until(lambda: job_state(winner) == "COMPLETED", "the winner")
    fields = job_fields(victim)
    slurm("scancel", victim)
    assert "warned" in lines(log)
    assert lines(tmp_path / "winner") == ["won"]
    assert (fields["JobState"], fields["Restarts"]) == ("PENDING", "1")


def test_everything_listens_on_loopback_only(sandbox, tmp_path):
    ready = tmp_path / "ready"
    step = ["srun", "-N2", "sh", "-c", f"touch {ready}.$SLURM_PROCID; exec sleep 60"]
    with subprocess.Popen(step, stderr=subprocess.DEVNULL) as user:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "both tasks")
        [job] = squeue()
        ours = [*pids(sandbox.folder), *step_pids(sandbox.folder, job.id)]
        listening = [address for state, address, _, _ in sockets(ours) if state == LISTENING]
        of_user = [address for state, address, _, _ in sockets([user.pid]) if state == LISTENING]
        assert len(ours) == 4 + 2
        assert len(task_pids(sandbox.folder, job.id)) == 2
        slurm("scancel", job.id)
    assert len(listening) >= 3  # slurmctld and two slurmd
    assert set(listening) == {"127.0.0.1"}
    if socket.gethostbyname(socket.gethostname()) == "127.0.0.1":
        assert set(of_user) == {"127.0.0.1"}


def test_a_killed_slurmctld_starts_again_and_gives_no_job_id_twice(sandbox, tmp_path):
    jobs = [sbatch("true", tmp_path / "log", "--hold") for _ in range(3)]
    os.kill(sandboxes.status(sandbox.folder).daemons["slurmctld"], signal.SIGKILL)
    wait_until(lambda: "slurmctld" not in daemons(sandbox.folder), "the end of slurmctld")
    assert sandboxes.start(sandbox.folder).started == ("slurmctld",)
    after = sbatch("true", tmp_path / "log", "--hold")
    slurm("scancel", after, *(job.id for job in squeue()))
    assert len({*jobs, after}) == 4
    assert after > max(jobs)


def test_a_killed_slurmd_starts_again(sandbox):
    os.kill(slurmd_pid(sandbox.folder, "n2"), signal.SIGKILL)
    wait_until(lambda: "slurmd n2" not in daemons(sandbox.folder), "the end of slurmd")
    assert sandboxes.status(sandbox.folder).dead == ["slurmd n2"]
    restart_slurmd(sandbox.folder, "n2")
    wait_until(lambda: node_state("n2") == "idle", "node n2")
    assert sandboxes.status(sandbox.folder).dead == []


def test_a_second_one_beside_it_is_killed_whole_starts_again_and_stops_without_a_trace(sandbox, tmp_path):
    first = sandboxes.status(sandbox.folder)
    with running_sandbox(nodes=1, gpus=0) as second, pytest.MonkeyPatch.context() as patch:
        ports = {*first.settings.ports} & {*second.settings.ports}
        job = sbatch("setsid sleep 300 & sleep 300", tmp_path / "log")
        wait_until(lambda: len(task_pids(second.folder, job)) == 3, "the job and its stray process")
        for pid in pids(second.folder):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not daemons(second.folder), "the end of the daemons")
        left_by_kill = leftovers(second.folder)
        assert (second.folder / "run" / "munge.socket").exists()
        again = sandboxes.start(second.folder, nodes=1, gpus=0)
        later = sbatch("sleep 300", tmp_path / "log")
        stopped = sandboxes.stop(second.folder)
        left_by_stop = [*pids(second.folder), *leftovers(second.folder)]
        patch.setenv("SLURM_CONF", sandbox.environment["SLURM_CONF"])
        assert sorted(stopped.daemons) == ["munged", "slurmctld", "slurmd n1"]
        assert stopped.jobs >= 1
        assert sandboxes.stop(second.folder).daemons == {}
    assert ports == set()
    assert len(left_by_kill) >= 3
    assert again.started == ("munged", "slurmctld", "slurmd n1")
    assert later > job
    assert left_by_stop == []
    assert sandboxes.status(sandbox.folder).daemons == first.daemons


def test_another_size_is_refused_while_it_runs(sandbox):
    message = r"runs with --nodes 2 --gpus 2 .*, not with --nodes 3 --gpus 2 .*first: vae-sweep sandbox stop"
    with pytest.raises(SlurmMistake, match=message):
        sandboxes.start(sandbox.folder, nodes=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 0}, r"^--nodes 0: must be from 1 to 64$"),
        ({"gpus": 17}, r"^--gpus 17: must be from 0 to 16$"),
        ({"max_array_size": 1}, r"^max_array_size 1: must be from 2 to 10000$"),
        ({"folder": Path("/srv/a b")}, r"'/srv/a b': only letters, .* choose another with VAE_SWEEP_SANDBOX$"),
        ({"folder": Path("/srv/" + 80 * "x")}, r"has 85 characters, and at most \d\d leave room .*VAE_SWEEP_SANDBOX$"),
        ({"folder": Path("/proc/sandbox")}, r"/proc/sandbox: cannot be written \(.*VAE_SWEEP_SANDBOX$"),
    ],
)
def test_a_mistake_is_named_with_what_is_valid(sandbox, arguments, message):
    with pytest.raises(SlurmMistake, match=message):
        sandboxes.start(**({"folder": Path("/srv/sandbox-unused")} | arguments))
    assert not Path("/srv/sandbox-unused").exists()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("os.geteuid", lambda: 1000, "needs root"),
        ("slurm.sandbox.program", "/nonexistent/{}".format, "needs slurmctld, slurmd and munged (Debian: apt install "),
    ],
)
def test_what_is_missing_is_the_reason_for_not_starting(monkeypatch, tmp_path, name, value, reason):
    folder = tmp_path / "sandbox"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(name, value)
    assert sandboxes.missing().startswith(reason)
    with pytest.raises(SlurmMistake, match=f"^the SLURM sandbox {re.escape(reason)}"):
        sandboxes.start(folder)
    assert not folder.exists()


def test_the_default_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("VAE_SWEEP_SANDBOX", raising=False)
    assert sandboxes.default_folder() == Path("/home/me/.local/state/vae-sweep/sandbox")
    monkeypatch.setenv("VAE_SWEEP_SANDBOX", "/elsewhere")
    assert sandboxes.default_folder() == Path("/elsewhere")


def test_a_daemon_that_fails_is_shown_with_its_log_and_nothing_stays(sandbox, folder, monkeypatch):
    (folder / "state").mkdir()
    (folder / "state" / "clustername").write_text("another")
    with pytest.raises(SlurmError, match=r"^slurmctld does not start\nThe end of .*:\n.*CLUSTER NAME MISMATCH"):
        sandboxes.start(folder)
    assert daemons(folder) == {}


def test_two_starts_at_once_make_one_sandbox(sandbox, folder):
    results = []
    threads = [threading.Thread(target=lambda: results.append(sandboxes.start(folder, 1, 1))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(result.started) for result in results) == [0, 3]
    assert results[0].settings == results[1].settings


def test_stop_thaws_what_is_frozen_and_spares_what_is_not_its_own(sandbox, folder):
    with subprocess.Popen(["sleep", "60"]) as stranger:
        sandboxes.start(folder, 1, 0)
        (folder / "run" / "slurmctld.pid").write_text(f"{stranger.pid}\n")
        for pid in pids(folder):
            os.kill(pid, signal.SIGSTOP)
        stopped = sandboxes.stop(folder)
        assert alive(stranger.pid)
        stranger.kill()
    assert len(stopped.daemons) == 3
    assert pids(folder) == []


ELSEWHERE = """
import os, subprocess, sys
from pathlib import Path
from slurm import sandbox
cluster = sandbox.start(Path(sys.argv[1]), 1, 0)
try:
    command = ["srun", "sh", "-c", 'getent hosts "$(hostname)" | head -n 1 | cut -d " " -f 1']
    print(subprocess.run(command, env=os.environ | cluster.environment, capture_output=True, text=True).stdout)
finally:
    sandbox.stop(cluster.folder)
"""


@pytest.mark.skipif(not MAY_UNSHARE, reason="needs to unshare namespaces")
@pytest.mark.parametrize("line", ["127.0.1.1 elsewhere", "192.0.2.7 elsewhere", ""])
def test_a_host_name_that_is_not_loopback_hinders_neither_daemons_nor_steps(sandbox, folder, line):
    hosts = folder / "etc_hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{line}\n")
    script = f'hostname elsewhere; mount --bind {hosts} /etc/hosts; exec "$@"'
    command = [*UNSHARE, "sh", "-c", script, "-", sys.executable, "-c", ELSEWHERE, folder]
    result = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert result.stdout.split() == ["127.0.0.1"], result.stderr
