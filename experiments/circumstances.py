"""Under which circumstances a run was trained: code, packages, machine, data; what two runs differ in."""

import hashlib
from collections.abc import Mapping
from typing import Any

from experiments.history import read_info
from experiments.study_files import read_facts
from tracking.run_directory import RunDirectory, StudyDirectory, read_chain

_COMMIT = 10  # digits of a commit that are read
_MACHINE = ("hostname", "system", "cpu", "cpu_count", "gpu", "driver", "device_name", "cuda", "threads")


def circumstances(study: StudyDirectory, run: RunDirectory) -> dict[str, str]:
    """Return what is known of how a run was trained, name -> words; what is not known is left out.

    What the run's newest attempt wrote of its own code and machine counts before what its study's coordinator did.
    """
    found = of_provenance(recorded_provenance(study, run)) | _of_attempts(run)
    if run.info_file.is_file():
        info = read_info(run)
        found["data fingerprint"] = info["data_fingerprint"]
        found |= {f"{split} images": digest for split, digest in info.get("split_hashes", {}).items()}
    return found


def recorded_provenance(study: StudyDirectory, run: RunDirectory) -> dict[str, Any]:
    """Return the provenance of a run's newest attempt, completed by its study's; empty where neither was written."""
    found: dict[str, Any] = read_facts(study.provenance_file) if study.provenance_file.is_file() else {}
    for item in read_chain(run):
        name = item.line.fields.get("provenance") if item.line.kind == "attempt" else None
        path = run.attempt(item.attempt).path / str(name)
        if name and path.is_file():
            found |= read_facts(path)
    return found


def of_provenance(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return what `tracking.provenance.collect` found as name -> words."""
    found = {"commit": _commit(provenance), "python": provenance.get("python")}
    found |= dict(provenance.get("packages") or {})
    found |= {name: _word(provenance.get(name)) for name in _MACHINE}
    return {name: str(value) for name, value in found.items() if value is not None}


def differing(several: list[Mapping[str, str]]) -> list[str]:
    """Return the names of the circumstances that are not the same everywhere, in their order."""
    names = dict.fromkeys(name for one in several for name in one)
    return [name for name in names if len({one.get(name) for one in several}) > 1]


def _commit(provenance: Mapping[str, Any]) -> str:
    """Return `844ed69159 clean`, or with uncommitted changes and a hash of their diff."""
    if provenance.get("commit") is None:
        return "unknown (not a git checkout)"
    commit = str(provenance["commit"])[:_COMMIT]
    if not provenance.get("dirty"):
        return f"{commit} clean"
    diff = hashlib.sha256((provenance.get("diff") or "").encode()).hexdigest()[:8]
    return f"{commit} with uncommitted changes ({diff})"


def _of_attempts(run: RunDirectory) -> dict[str, str]:
    """Return device, torch build and nodes of the attempts that make up the run."""
    attempts = [item.line.fields for item in read_chain(run) if item.line.kind == "attempt"]
    names = {"device": "device", "torch": "torch build", "host": "node"}
    found = {title: [str(one[name]) for one in attempts if one.get(name)] for name, title in names.items()}
    return {title: ", ".join(dict.fromkeys(values)) for title, values in found.items() if values}


def _word(value: Any) -> str | None:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    return None if value is None else str(value)
