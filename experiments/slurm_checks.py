"""Checks of the site's SLURM: does it answer, and which of its settings matter to jobs of workers."""

import shutil
import time
from collections.abc import Iterator
from functools import partial

from experiments.checks import Check, attempted
from slurm.commands import UnansweredError, ask
from slurm.settings import SlurmSettings
from slurm.site import Configuration, configuration

_SLOW_S = 5.0
_SHORT_KILL_WAIT_S = 30
_PROBE_NAME = "vae-sweep-doctor"  # no job is called so
_NO_SLURM = "nothing to do on a laptop; to try jobs, vae-sweep sandbox start makes a SLURM here"


def has_slurm() -> bool:
    """Tell whether jobs can be submitted from this machine."""
    return shutil.which("sbatch") is not None


def no_slurm(profile: str | None) -> Check:
    """Say that there is none, and what was therefore not checked."""
    unchecked = f"; profile {profile} is valid, but not compared with a site" if profile else ""
    return Check("SLURM", f"no sbatch on PATH{unchecked}", "note", _NO_SLURM)


def setting_checks(settings: SlurmSettings) -> Iterator[Check]:
    """Look at what of the site's configuration matters to jobs with these settings."""
    try:
        site = configuration()
    except UnansweredError as error:
        remedy = "jobs cannot requeue themselves without it: see what scontrol ping says"
        yield Check("scontrol", _said("scontrol", error), "broken", remedy)
        return
    yield Check("version", site.text("SLURM_VERSION") or "unknown")
    for name, check in (("preemption", preemption), ("KillWait", kill_wait), ("limits", limits)):
        yield attempted(name, partial(check, site))
    yield attempted("requeue", lambda: requeue(site, settings))


def squeue() -> Check:
    """Time the question that a coordinator asks again and again."""
    began = time.perf_counter()
    try:
        ask("squeue", "--noheader", "--array", "--name", _PROBE_NAME, "--format", "%i")
    except UnansweredError as error:
        remedy = (
            'see what scontrol ping says; for a sandbox: eval "$(vae-sweep sandbox env)"; otherwise ask the '
            "administrators"
        )
        return Check("squeue", _said("squeue", error), "broken", remedy)
    return judged_answer(time.perf_counter() - began)


def judged_answer(seconds: float) -> Check:
    """Judge how long squeue takes."""
    finding = f"answers in {1000 * seconds:.0f} ms"
    if seconds > _SLOW_S:
        return Check("squeue", finding, "note", f"ask it more rarely: poll_s of {10 * seconds:.0f} or more")
    return Check("squeue", finding)


def sacct() -> Check:
    """Find out whether jobs are accounted for."""
    try:
        ask("sacct", "--noheader", "--allocations", "--name", _PROBE_NAME, "--format", "JobID")
    except UnansweredError as error:
        return Check("sacct", _said("sacct", error), "note", "nothing to do: squeue and the runs' journals suffice")
    return Check("sacct", "accounting is on")


def preemption(site: Configuration) -> Check:
    """Find out how a job learns that another takes its place."""
    if not site.preempts:
        return Check("preemption", "off")
    kind = f"{site.text('PreemptType').removeprefix('preempt/')}, {site.text('PreemptMode')}"
    if site.signals_preemption:
        return Check("preemption", f"{kind}; a preempted job gets the signal of its --signal at once")
    remedy = (
        "works as well: a preempted job gets SIGTERM at the start of its GraceTime, writes checkpoints and requeues "
        "itself. Administrators can have it get SIGUSR2, as before the time limit: "
        "SlurmctldParameters=preempt_send_user_signal (newer: PreemptParameters=send_user_signal)"
    )
    return Check("preemption", f"{kind}; without preempt_send_user_signal", "note", remedy)


def kill_wait(site: Configuration) -> Check:
    """Judge the time that a job has for its checkpoints where no grace time gives it more."""
    seconds = site.number("KillWait")
    finding = "unknown" if seconds is None else f"{seconds} s from SIGTERM to SIGKILL"
    if seconds is None or seconds >= _SHORT_KILL_WAIT_S:
        return Check("KillWait", finding)
    remedy = (
        "a job that is cancelled, requeued or preempted without GraceTime must write its checkpoints within it; "
        "otherwise its runs go on from the checkpoints before"
    )
    return Check("KillWait", finding, "note", remedy)


def limits(site: Configuration) -> Check:
    """Show how many jobs the site takes at once."""
    array, jobs = site.number("MaxArraySize"), site.number("MaxJobCount")
    return Check("limits", f"MaxArraySize {array} (more jobs become several arrays), MaxJobCount {jobs}")


def requeue(site: Configuration, settings: SlurmSettings) -> Check:
    """Compare how long a requeued job waits at least with how long its runs wait for it."""
    waits_s, patience_s = site.credential_s, settings.requeue_patience_s
    default = "" if site.number("JobRequeue") else "JobRequeue is 0, but jobs ask for --requeue; "
    finding = f"{default}a requeued job waits {waits_s} s or more (cred_expire), its runs {patience_s:.0f} s"
    if patience_s > waits_s:
        return Check("requeue", finding)
    remedy = f"runs go to other workers before their job is back; to avoid that: requeue_patience_s above {waits_s}"
    return Check("requeue", finding, "note", remedy)


def _said(command: str, error: UnansweredError) -> str:
    """Return why a command has failed, without its name, which may stand there twice."""
    text = str(error)
    while text.startswith(f"{command}: "):
        text = text.removeprefix(f"{command}: ")
    return text
