"""What `vae-sweep run` does besides when its workers are SLURM jobs: the code they run, the script, the coordinator."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from experiments.datasets import Datasets
from experiments.launchers import Launcher, LocalLauncher
from experiments.slurm_launcher import SlurmLauncher, worker_submission
from experiments.slurm_names import job_name
from experiments.sweep import Sweep
from experiments.sweep_file import LauncherConfig
from slurm.commands import UnansweredError, ask
from slurm.host import JobHost
from slurm.redaction import redacted
from slurm.scheduler import Scheduler
from slurm.snapshot import archive, git_state, refusal, source_root, take
from slurm.submission import Submission, cancel_named
from tracking.files import read_json, write_atomic
from tracking.run_directory import StudyDirectory
from vae_core.data.preparation import prepared_folder
from vae_core.errors import UserError


def refuse_unclean_code(study: StudyDirectory, allow_dirty: bool) -> None:
    """Refuse to take a snapshot of code that no commit or no remote holds.

    Raises:
        UserError: it is dirty or unpushed, and that was not allowed.
    """
    if study.code.exists() or allow_dirty:
        return
    if reason := refusal(git_state(source_root())):
        raise UserError(f"{source_root()}: {reason}")


def refuse_impossible_jobs(sweep: Sweep, study: StudyDirectory) -> None:
    """Ask SLURM whether it would take the sweep's jobs, before anything is made.

    Raises:
        UserError: there is no SLURM here, or it would refuse them; the message is SLURM's own.
    """
    launcher = sweep.file.launcher
    if shutil.which("sbatch") is None:
        raise UserError(
            f"{sweep.where}: launcher.kind: slurm needs sbatch, which is not on this machine; use local, or try jobs "
            "on one machine with vae-sweep sandbox start"
        )
    if "%" in str(study.path):
        raise UserError(f"--root {study.path.parent}: SLURM reads '%' in the paths of logs; choose another folder")
    hint = "see vae-sweep doctor for what this site offers"
    if reason := worker_submission(study, launcher, sweep.base_config.train.threads, [], study.code).refusal():
        raise UserError(f"{sweep.where}: launcher.slurm{_field(reason)}: {reason}; {hint}")
    if launcher.coordinator == "job" and (reason := _coordinator_submission(sweep, study).refusal()):
        raise UserError(f"{sweep.where}: launcher.slurm.coordinator_partition, coordinator_time: {reason}; {hint}")


def slurm_answers() -> bool:
    """Return whether there is a SLURM here to ask; its commands may be installed where no cluster is."""
    try:
        ask("scontrol", "ping")
    except UnansweredError:
        return False
    return True


def _field(reason: str) -> str:
    """Return which setting a refusal of sbatch's is about, where its words tell."""
    about = {
        "partition": "partition",
        "time limit": "time",
        "account": "account",
        "qos": "qos",
        "feature": "constraint",
        "node name": "exclude",
        "memory": "mem",
    }
    return next((f".{field}" for words, field in about.items() if words in reason.lower()), "")


def keep_code(study: StudyDirectory) -> str | None:
    """Take the study's snapshot of the code where it has none; return what to say where the code has changed since."""
    was_there = study.code.exists()
    take(source_root(), study.code)
    archive(study.code, study.code_archive)
    taken, state = read_json(study.code / "SNAPSHOT.json"), git_state(source_root())
    unchanged = taken["commit"] == state.commit and not taken["dirty"] and not state.dirty
    if not was_there or unchanged:
        return None
    changes = ", with uncommitted changes" if taken["dirty"] else ""
    return (
        f"jobs run the snapshot of {taken['time']} (commit {str(taken['commit'])[:10]}{changes}); a new study "
        "(--study NAME) takes today's code"
    )


def slurm_launcher(sweep: Sweep, study: StudyDirectory, datasets: Datasets) -> SlurmLauncher:
    """Return the launcher of a study's worker jobs."""
    return SlurmLauncher(study, submission(sweep, study, datasets))


def submission(sweep: Sweep, study: StudyDirectory, datasets: Datasets) -> Submission:
    """Return what a worker job of the sweep is."""
    launcher = sweep.file.launcher
    data: list[Path] = []
    if launcher.slurm.stage_data:
        for params in sweep.grid() if sweep.file.sampler == "grid" else [{}]:
            datasets.of(sweep.config(params, sweep.seeds[0]))
        data = [prepared_folder(config) for config in datasets.configs]
    return worker_submission(study, launcher, sweep.base_config.train.threads, data, study.code)


def script(sweep: Sweep, study: StudyDirectory, datasets: Datasets, runs: int) -> str:
    """Return the sbatch script that a run of the sweep would submit, secrets left out."""
    planned = submission(sweep, study, datasets)
    jobs = SlurmLauncher(study, planned).needed(runs)
    text = planned.script(jobs)
    return "\n".join(redacted(line) for line in text.splitlines())


def keep_launcher(study: StudyDirectory, launcher: LauncherConfig) -> None:
    """Write the launcher section, secrets and all, for a coordinator elsewhere; its owner alone may read it."""
    before = os.umask(0o077)
    try:
        write_atomic(_launcher_file(study), launcher.model_dump_json(indent=2) + "\n")
    finally:
        os.umask(before)


def kept_launcher(study: StudyDirectory) -> LauncherConfig:
    """Return the launcher section that `keep_launcher` wrote last.

    Raises:
        UserError: it never did.
    """
    path = _launcher_file(study)
    if not path.is_file():
        raise UserError(f"{path}: is missing; start the study with vae-sweep run")
    return LauncherConfig.model_validate(read_json(path))


def _launcher_file(study: StudyDirectory) -> Path:
    return study.path / "launcher.json"


def coordinator_command(study: StudyDirectory, python: str) -> list[str]:
    """Return the command of a coordinator that needs nothing but the study's folder."""
    return [python, "-m", "experiments.cli", "coordinate", study.path.name, "--root", str(study.path.parent)]


def coordinator_log(study: StudyDirectory) -> Path:
    """Return where a detached coordinator writes what it would have shown."""
    return study.path / "coordinator.log"


def start_detached(study: StudyDirectory) -> int:
    """Start a coordinator that outlives this terminal; return its pid."""
    with coordinator_log(study).open("ab") as log:
        process = subprocess.Popen(
            coordinator_command(study, sys.executable),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return process.pid


def submit_coordinator(sweep: Sweep, study: StudyDirectory) -> str:
    """Submit a small CPU job that coordinates the study, requeues itself at its time limit, and return its id.

    Raises:
        UserError: there is such a job already.
        SlurmError: sbatch refuses.
    """
    if present := coordinator_jobs(study):
        raise UserError(
            f"{study.path}: its coordinator is already job {', '.join(present)}; "
            f"follow it with vae-sweep attach {study.path.name} --root {study.path.parent}"
        )
    [job] = _coordinator_submission(sweep, study).submit(1)
    return job


def coordinator_jobs(study: StudyDirectory) -> list[str]:
    """Return the ids of the jobs that coordinate the study, or wait to; none where SLURM does not answer."""
    if not study.slurm.is_dir() or shutil.which("squeue") is None:
        return []
    return sorted(Scheduler(_coordinator_name(study), interval_s=0.0).jobs() or {})


def _coordinator_submission(sweep: Sweep, study: StudyDirectory) -> Submission:
    host = JobHost(command=tuple(coordinator_command(study, "{python}")), inner_submission=True)
    workers = sweep.file.launcher.slurm
    settings = workers.model_copy(
        update={
            "gpus": 0,
            "cpus": 1,
            "mem": None,
            "constraint": None,
            "partition": workers.coordinator_partition or workers.partition,
            "time": workers.coordinator_time,
            "stage_data": False,
        }
    )
    return Submission(_coordinator_name(study), study.slurm, host, settings, study.code)


def _coordinator_name(study: StudyDirectory) -> str:
    return f"{job_name(study)}-coordinator"


def stop_workers(study: StudyDirectory, timeout_s: float) -> str | None:
    """Have the workers of a study that no coordinator runs write checkpoints and leave, and end its jobs.

    Workers of both kinds are meant: a study may have been run by jobs first and by local processes later.

    Returns:
        What is not over after `timeout_s`; None: nothing.

    Raises:
        SlurmError: scancel does not work.
    """
    launcher = kept_launcher(study)
    stopping: list[Launcher] = [LocalLauncher(study, 1, 1, launcher.idle_timeout_s)]
    if study.slurm.is_dir() and shutil.which("scancel") is not None:
        cancel_named(_coordinator_name(study))  # of a coordinator that waits for its node
        stopping.append(SlurmLauncher(study, worker_submission(study, launcher, 1, [], study.code)))
    study.stop_file.touch()
    for workers in stopping:
        workers.request_stop()
    left = [workers.words() or "workers have not left" for workers in stopping if not workers.wait(timeout_s)]
    return "; ".join(left) or None
