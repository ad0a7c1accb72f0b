"""Checks of the site's partitions against what the jobs of a profile ask for, and of what the nodes can see."""

import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.checks import Check
from experiments.display import counted, duration
from experiments.file_system import MOUNTS, file_system_of
from experiments.root_checks import nearest_folder
from slurm.settings import SlurmSettings
from slurm.site import Partition, node_hosts
from vae_core.errors import suggestion

_SHOWN_NODES = 3


@dataclass(frozen=True)
class Wish:
    """What jobs ask for.

    Attributes:
        who: whose jobs.
        partition: one or several, as sbatch reads them; None: the site's default.
        time_min: their time limit.
        time_field: the setting that says it.
        gpus: of each job.
    """

    who: str
    partition: str | None
    time_min: int
    time_field: str
    gpus: int


def profile_checks(found: Sequence[Partition], profile: str, settings: SlurmSettings) -> Iterator[Check]:
    """Compare the partitions with what a profile's jobs ask for."""
    name = f"profile {profile}"
    workers = list(wish_checks(Wish(name, settings.partition, settings.time, "time", settings.gpus), found))
    yield from workers
    partition = settings.coordinator_partition or settings.partition
    for check in wish_checks(Wish(name, partition, settings.coordinator_time, "coordinator_time", 0), found):
        if check.verdict == "broken" and check.finding not in [known.finding for known in workers]:
            yield Check(name, f"with --coordinator job: {check.finding}", "note", check.remedy)


def usable(found: Sequence[Partition]) -> Check:
    """See whether there is a partition that takes jobs."""
    up = [partition.name for partition in found if partition.state == "UP" and partition.nodes_up]
    default = next((partition.name for partition in found if partition.default), "none")
    finding = f"{len(up)} of {len(found)} are UP with working nodes; default: {default}"
    if up:
        return Check("partitions", finding)
    return Check("partitions", finding, "broken", "no job can start: ask the administrators")


def wish_checks(wish: Wish, found: Sequence[Partition]) -> Iterator[Check]:
    """Compare a wish with each partition that it names; of several, all must exist and one must fit."""
    known = {partition.name: partition for partition in found}
    default = next((partition.name for partition in found if partition.default), None)
    named = (wish.partition or default or "").split(",")
    unknown = [name for name in named if name not in known]
    if unknown:
        yield _unknown(wish, unknown[0], known)
        return
    checks = [_fit(wish, known[name], found) for name in named]
    fits = any(check.verdict == "ok" for check in checks)
    for check in checks:
        yield replace(check, verdict="note") if fits and check.verdict == "broken" else check


def shared_with_nodes(root: Path, mounts: Path = MOUNTS) -> Check:
    """See whether other machines could see the root and this Python; that they do is not known from here."""
    own = {"localhost", socket.gethostname(), socket.gethostname().partition(".")[0]}
    others = sorted(node_hosts() - own)
    if not others:
        return Check("shared folders", "not needed: every node is this machine")
    places = {"the root": nearest_folder(root), "this Python": Path(sys.prefix)}
    systems = {what: file_system_of(path, mounts) for what, path in places.items()}
    local = [f"{what} on {system.kind}" for what, system in systems.items() if system and system.of_one_machine]
    shown = ", ".join(others[:_SHOWN_NODES]) + (", ..." if len(others) > _SHOWN_NODES else "")
    nodes = f"{counted(len(others), 'other machine')} ({shown})"
    if not local:
        return Check("shared folders", f"on file systems that {nodes} may share; see one: srun ls {sys.prefix}")
    remedy = "jobs need both under the same paths: use a folder that all nodes share (--root), and install there"
    return Check("shared folders", f"{' and '.join(local)}: not seen by {nodes}", "note", remedy)


def _unknown(wish: Wish, name: str, known: Mapping[str, Partition]) -> Check:
    if not name:
        return Check(wish.who, "names no partition, and the site has no default", "broken", "set partition")
    hint = suggestion(name, known) if known else "there are none"
    return Check(wish.who, f"there is no partition {name}", "broken", f"set another partition; {hint}")


def _fit(wish: Wish, partition: Partition, found: Sequence[Partition]) -> Check:
    misfits = list(_misfits(wish, partition, found))
    if misfits:
        findings, remedies = zip(*misfits, strict=True)
        return Check(wish.who, f"partition {partition.name} {' and '.join(findings)}", "broken", "; ".join(remedies))
    asked = f"{duration(60 * wish.time_min)}, {counted(wish.gpus, 'GPU')}"
    return Check(wish.who, f"partition {partition.name} takes its jobs ({asked} each); account and qos: not checked")


def _misfits(wish: Wish, partition: Partition, found: Sequence[Partition]) -> Iterator[tuple[str, str]]:
    """Yield what of a partition does not fit a wish, each with the remedy."""
    if partition.state != "UP":
        yield f"is {partition.state}", "wait, or set another partition"
    elif not partition.nodes_up:
        yield f"has none of its {counted(partition.nodes, 'node')} up", "wait, or set another partition"
    longest = partition.max_time_min
    if longest is not None and wish.time_min > longest:
        yield f"ends jobs after {longest} min, not {wish.time_min}", f"{wish.time_field}: at most {longest}"
    if wish.gpus > partition.gpus:
        yield f"has {counted(partition.gpus, 'GPU')} per node, not {wish.gpus}", _fewer_gpus(wish, partition, found)


def _fewer_gpus(wish: Wish, partition: Partition, found: Sequence[Partition]) -> str:
    larger = [f"{other.name} ({other.gpus})" for other in found if other.gpus >= wish.gpus]
    return f"gpus: at most {partition.gpus}" + (f", or set partition to one of {', '.join(larger)}" if larger else "")
