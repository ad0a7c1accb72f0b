"""The code for a run that is trained again: the study's own, unpacked beside it and never in the checkout."""

import io
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path
from shutil import rmtree

from experiments.failures import OperationError
from slurm.snapshot import source_root
from tracking.files import read_json, write_atomic
from tracking.run_directory import StudyDirectory
from vae_core.errors import UserError

HERE, SNAPSHOT, COMMIT = "here", "snapshot", "commit"
KINDS = (HERE, SNAPSHOT, COMMIT)
_TIMEOUT_S = 60  # of one git command


def unpacked(original: StudyDirectory, target: StudyDirectory, kind: str) -> tuple[Path, str]:
    """Return a folder with the original study's code, and what to call it.

    Args:
        original: the study whose runs that code trained.
        target: the study in whose folder (`code/`) it is unpacked, once.
        kind: SNAPSHOT: what the study keeps of its jobs' code; COMMIT: its git commit, from this checkout's
            repository, with the uncommitted changes that its provenance holds.

    Raises:
        UserError: there is no such snapshot or commit, or the changes are not known in full.
    """
    content = _snapshot(original) if kind == SNAPSHOT else _archive_of_commit(original)
    diff = None if kind == SNAPSHOT else _uncommitted(original)
    if not target.code.is_dir():
        _unpack(content, diff, target.code)
    facts = target.code / "SNAPSHOT.json"
    if kind == COMMIT:
        commit = str(read_json(original.provenance_file)["commit"])[:10]
        return target.code, f"commit {commit}{' with the uncommitted changes of then' if diff else ''}"
    taken = read_json(facts)
    changes = " with uncommitted changes" if taken["dirty"] else ""
    return target.code, f"the study's snapshot, commit {str(taken['commit'])[:10]}{changes}"


def train_with(code: Path, config: Path, changes: list[str], study: StudyDirectory) -> int:
    """Train one run with the code in a folder, in a process of its own.

    Returns:
        The exit code of `vae-sweep train`; 128 and the signal's number where a signal ended it.
    """
    command = [sys.executable, "-m", "experiments.cli", "train", str(config), "--study", study.path.name]
    command += ["--root", str(study.path.parent)] + [word for change in changes for word in ("--set", change)]
    # neither the checkout nor this folder is imported, and git takes the code for no part of a repository around it
    settings = {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1", "GIT_CEILING_DIRECTORIES": str(code.parent)}
    process = subprocess.Popen(command, env=os.environ | settings)
    handlers = {
        signal.SIGINT: lambda *_: None,  # a terminal's Ctrl-C reaches the child too, which writes a checkpoint
        signal.SIGTERM: lambda *_: process.terminate(),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        exit_code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return exit_code if exit_code >= 0 else 128 - exit_code


def worktree_hint(commit: str) -> str:
    """Return how to get the code of a commit without touching the checkout, by hand."""
    return f"git -C {shlex.quote(str(source_root()))} worktree add ../at-{commit[:10]} {commit}"


def _snapshot(original: StudyDirectory) -> bytes:
    if not original.code_archive.is_file():
        raise UserError(
            f"--code snapshot: {original.path} keeps no code.tar.gz (only sweeps of SLURM jobs do); valid: here, commit"
        )
    return original.code_archive.read_bytes()


def _archive_of_commit(original: StudyDirectory) -> bytes:
    commit = read_json(original.provenance_file).get("commit") if original.provenance_file.is_file() else None
    if commit is None:
        raise UserError(f"--code commit: {original.provenance_file} names no commit; valid: here, snapshot")
    try:
        return _git(["archive", "--format=tar", str(commit)])
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"--code commit: the repository around {source_root()} does not have commit {commit} (fetch it there first)"
        ) from error


def _uncommitted(original: StudyDirectory) -> bytes | None:
    provenance = read_json(original.provenance_file)
    diff = provenance.get("diff") or ""
    if provenance.get("diff_cut"):
        raise UserError("--code commit: the study's uncommitted changes were too long to be kept whole")
    return diff.encode() or None


def _git(arguments: list[str], folder: Path | None = None, content: bytes | None = None) -> bytes:
    command = ["git", "-C", str(folder or source_root()), "--no-optional-locks", *arguments]
    done = subprocess.run(command, input=content, capture_output=True, timeout=_TIMEOUT_S, check=True)
    return done.stdout


def _unpack(content: bytes, diff: bytes | None, folder: Path) -> None:
    """Unpack beside `folder` and rename: a kill leaves none or a whole one."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(temporary, filter="data")
        if diff is not None:
            write_atomic(temporary / "uncommitted.diff", diff)
            _apply(temporary)
        temporary.rename(folder)
    finally:
        rmtree(temporary, ignore_errors=True)


def _apply(folder: Path) -> None:
    command = ["git", "-C", str(folder), "apply", "uncommitted.diff"]
    # in a repository git would skip the files that it does not track
    outside = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    done = subprocess.run(command, env=outside, capture_output=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise OperationError(f"the study's uncommitted changes do not fit its commit: {said}")
