"""The code of a sweep, copied once at submission: what is edited afterwards changes nothing that is queued."""

import glob
import gzip
import json
import os
import re
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

_PACKAGES = ("vae_core", "tracking", "slurm", "experiments", "sweeps")
_PROJECT = "pyproject.toml"
_FILES = (_PROJECT, "constraints.txt", "README.md", "LICENSE")  # what an installation reads beside the packages
# sweep files: a job reads its study's copy, and their setup lines may hold secrets
_NOT_CODE = re.compile(r"sweeps/[^/]*\.ya?ml")
_NOT_SHOWN = (":(exclude)sweeps/*.yaml", ":(exclude)sweeps/*.yml")
_GIT_PATHS = (*_PACKAGES, *_FILES, *_NOT_SHOWN)
_TIMEOUT_S = 60  # of one git command; a checkout on a busy network file system is slow
_LISTED = 5  # more files than this are not read in an error message
_TEMPORARY_SUFFIX = ".tmp"
# a git hook sets these for its own repository, which need not be the one asked about
_OF_ANOTHER_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


@dataclass(frozen=True)
class GitState:
    """What git says about the files that a snapshot holds.

    Attributes:
        commit: the hash of HEAD; None for an installed package, or where git is missing.
        dirty: changed, deleted and untracked files of the snapshot, relative to the source.
        unpushed: the repository has a remote and HEAD is on none of its remote-tracking branches.
        diff: what turns the commit into the files copied, as `git apply` reads it; undecodable bytes are
            surrogates (`errors="surrogateescape"`).
    """

    commit: str | None
    dirty: list[str]
    unpushed: bool
    diff: str


def source_root() -> Path:
    """Return the folder that holds the packages: the checkout, or the site-packages of an installation."""
    return Path(__file__).resolve().parents[1]


def git_state(source: Path) -> GitState:
    """Return the commit of `source` and what of it is uncommitted or unpushed.

    Raises:
        OSError, subprocess.SubprocessError: git knows the commit but fails to say what has changed since.
    """
    commit = _commit(source)
    if commit is None:
        return GitState(None, [], False, "")
    untracked = _paths(source, "ls-files", "--others", "--exclude-standard")
    changed = _paths(source, "diff", "--name-only", "--no-renames", "--relative", "HEAD")
    diff = _diff(source, "--relative", "HEAD", "--", *_GIT_PATHS)
    additions = [_diff(source, "--no-index", "--", os.devnull, name) for name in untracked]
    return GitState(commit, sorted({*changed, *untracked}), _unpushed(source), "".join([diff, *additions]))


def refusal(state: GitState) -> str | None:
    """Return why the code in this state is refused, in one message with the remedy; None if it is fine."""
    reasons = []
    if state.dirty:
        files = ", ".join(state.dirty[:_LISTED]) + (", ..." if len(state.dirty) > _LISTED else "")
        reasons.append(f"{len(state.dirty)} file(s) of the code differ from the last commit: {files}")
    if state.unpushed:
        reasons.append(f"commit {str(state.commit)[:10]} is on no branch of a remote")
    if not reasons:
        return None
    return f"{'; '.join(reasons)}; commit and push, or give --allow-dirty to run this code as it is"


def take(source: Path, target: Path) -> None:
    """Copy the code of `source` to the folder `target`, whole and on disk, or leave an existing `target` as it is.

    `target` gets the packages, what an installation of them needs, `SNAPSHOT.json` (commit, dirty files, time)
    and, of a dirty tree, `uncommitted.diff`. Only one process at a time may take a given `target`.

    Raises:
        OSError, subprocess.SubprocessError: a file or the state of git cannot be read, or `target` not be written;
            nothing is left behind.
    """
    _remove_leftovers(target)
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        _fill(temporary, source)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _fsync(target.parent)


def archive(snapshot: Path, file: Path) -> None:
    """Pack the files of `snapshot` into `file`, a tar.gz whose bytes depend on their names and contents alone.

    The names inside are relative to `snapshot`. An existing `file` is left as it is.

    Raises:
        OSError: the snapshot cannot be read or the file not be written; nothing is left behind.
    """
    _remove_leftovers(file)
    if file.exists():
        return
    temporary = _temporary(file)
    try:
        with temporary.open("xb") as raw:
            _pack(snapshot, raw)
        _fsync(temporary)
        temporary.rename(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(file.parent)


def _commit(source: Path) -> str | None:
    """Return the commit of `source`, None where its files are not the repository's (site-packages inside one)."""
    try:
        _git(source, "ls-files", "--error-unmatch", "--", _PROJECT, f"{_PACKAGES[0]}/__init__.py")
        return _git(source, "rev-parse", "--verify", "HEAD").strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _unpushed(source: Path) -> bool:
    if not _git(source, "remote").strip():
        return False
    return not _git(source, "for-each-ref", "--count=1", "--contains=HEAD", "refs/remotes").strip()


def _paths(source: Path, *command: str) -> list[str]:
    """Return the snapshot's files that a git command lists, relative to `source`."""
    listed = _git(source, *command, "-z", "--", *_GIT_PATHS)
    return [name for name in listed.split("\0") if name]


def _diff(source: Path, *arguments: str) -> str:
    """Return a diff in git's own format, whatever the user's configuration makes of it."""
    plain = ["--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/"]
    differ = (0, 1) if "--no-index" in arguments else (0,)
    return _git(source, "diff", *plain, *arguments, fine=differ)


def _git(source: Path, *arguments: str, fine: tuple[int, ...] = (0,)) -> str:
    """Return what a git command prints, byte for byte.

    Raises:
        OSError, subprocess.SubprocessError: git is missing, exits with a code that is not `fine`, or hangs.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER_REPOSITORY}
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode not in fine:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout.decode("utf-8", "surrogateescape")


def _fill(folder: Path, source: Path) -> None:
    """Make `folder` the snapshot of `source`, every file and folder of it on disk."""
    state = git_state(source)
    for name in _names(source, state):
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, copy)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"commit": state.commit, "dirty": state.dirty, "time": time}
    (folder / "SNAPSHOT.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if state.dirty:
        (folder / "uncommitted.diff").write_bytes(state.diff.encode("utf-8", "surrogateescape"))
    for path in [*folder.rglob("*"), folder]:
        _fsync(path)


def _names(source: Path, state: GitState) -> list[str]:
    """Return the files that belong to the snapshot: git's, and those it does not ignore; without git, all."""
    if state.commit is None:
        # without the project's own file, a README or LICENSE beside the packages is somebody else's
        beside = _FILES if (source / _PROJECT).is_file() else ()
        inside = [str(path.relative_to(source)) for package in _PACKAGES for path in _files(source / package)]
        names = [*inside, *beside]
    else:
        names = _paths(source, "ls-files", "--cached", "--others", "--exclude-standard")
    return [name for name in dict.fromkeys(names) if (source / name).is_file() and not _NOT_CODE.fullmatch(name)]


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder` in order of their names, but for those that Python compiled."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.relative_to(folder).parts and path.suffix != ".pyc":
            yield path


def _pack(snapshot: Path, raw: BinaryIO) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in _files(snapshot):
            entry = tarfile.TarInfo(path.relative_to(snapshot).as_posix())  # time, owner and group: all 0
            status = path.stat()
            entry.size = status.st_size
            entry.mode = 0o755 if status.st_mode & 0o100 else 0o644
            with path.open("rb") as content:
                tar.addfile(entry, content)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}")


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed call has left beside `path`."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}{_TEMPORARY_SUFFIX}"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
