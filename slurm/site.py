"""What a site's SLURM says of itself: its configuration, its partitions and the hosts of its nodes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from slurm.commands import ask
from slurm.settings import minutes

_SETTING = re.compile(r"(\S+)\s+=(.*)")
_EXPIRY = re.compile(r"\bcred_expire=(\d+)")
_DEFAULT_EXPIRY_S = 120
_NOTHING = ("", "(null)")
_GRES = "%R|%F|%G"  # partition, nodes as allocated/idle/other/total, generic resources


@dataclass(frozen=True)
class Configuration:
    """The settings that `scontrol show config` prints.

    Attributes:
        values: by their names in lower case, which newer versions spell differently.
    """

    values: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return a setting; empty where it is unknown or not set."""
        value = self.values.get(name.lower(), "")
        return "" if value.lower() in _NOTHING else value

    def number(self, name: str) -> int | None:
        """Return a setting that begins with a number, such as `30 sec`; None where it is unknown."""
        found = re.match(r"\d+", self.text(name))
        return int(found[0]) if found else None

    @property
    def preempts(self) -> bool:
        """Whether jobs can lose their nodes to others."""
        return self.text("PreemptType") not in ("", "preempt/none") and self.text("PreemptMode").upper() != "OFF"

    @property
    def signals_preemption(self) -> bool:
        """Whether a preempted job gets the signal of its --signal; the setting has had two places."""
        places = {"SlurmctldParameters": "preempt_send_user_signal", "PreemptParameters": "send_user_signal"}
        return any(word in self.text(name).lower().split(",") for name, word in places.items())

    @property
    def credential_s(self) -> int:
        """For how many s a requeued job waits at least: until its old credential has expired."""
        found = _EXPIRY.search(self.text("AuthInfo"))
        return int(found[1]) if found else _DEFAULT_EXPIRY_S


@dataclass(frozen=True)
class Partition:
    """One partition.

    Attributes:
        state: UP, DOWN, DRAIN or INACTIVE.
        default: jobs that name no partition go there.
        hidden: not shown to everybody.
        max_time_min: the longest job, in minutes; None: there is no limit.
        grace_s: s from the signal to the end of a preempted job.
        preempt_mode: what happens to a preempted job, in SLURM's word.
        nodes: how many it has.
        nodes_up: how many of them work or could.
        gres: the generic resources of its kinds of nodes, as SLURM writes them.
    """

    name: str
    state: str
    default: bool
    hidden: bool
    max_time_min: int | None
    grace_s: int
    preempt_mode: str
    nodes: int
    nodes_up: int
    gres: tuple[str, ...]

    @property
    def gpus(self) -> int:
        """The most GPUs that one of its nodes has."""
        return max((gpus_of(gres) for gres in self.gres), default=0)


def configuration() -> Configuration:
    """Return the site's settings.

    Raises:
        UnansweredError: the controller does not answer.
    """
    matches = map(_SETTING.fullmatch, ask("scontrol", "show", "config").splitlines())
    return Configuration({match[1].lower(): match[2].strip() for match in matches if match})


def partitions() -> list[Partition]:
    """Return all partitions in SLURM's order, hidden ones too.

    Raises:
        UnansweredError: the controller does not answer.
        ValueError, LookupError: it answers in another form than is known.
    """
    nodes = ask("sinfo", "--all", "--noheader", "--format", _GRES).splitlines()
    shown = ask("scontrol", "--all", "--oneliner", "show", "partition").splitlines()
    return [_partition(line, nodes) for line in shown if line.startswith("PartitionName=")]


def node_hosts() -> set[str]:
    """Return the host names of the site's nodes; several nodes may share one.

    Raises:
        UnansweredError: the controller does not answer.
    """
    return set(ask("sinfo", "--all", "--noheader", "--Node", "--format", "%n").split())


def gpus_of(gres: str) -> int:
    """Return how many GPUs a node with these generic resources has: 6 of `gpu:a100:4(S:0-1),gpu:v100:2,shard:8`."""
    total = 0
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        kind, *words = entry.strip().split(":")
        if kind == "gpu":
            total += int(words[-1]) if words and words[-1].isdigit() else 1
    return total


def _partition(line: str, nodes: list[str]) -> Partition:
    fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
    name = fields["PartitionName"]
    counts, gres = _nodes(name, nodes)
    allocated, idle, _, total = counts
    return Partition(
        name=name,
        state=fields["State"],
        default=fields["Default"] == "YES",
        hidden=fields["Hidden"] == "YES",
        max_time_min=_limit(fields["MaxTime"]),
        grace_s=int(fields["GraceTime"]),
        preempt_mode=fields["PreemptMode"],
        nodes=total,
        nodes_up=allocated + idle,
        gres=gres,
    )


def _nodes(partition: str, lines: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """Return the counts of a partition's nodes, summed over its kinds of nodes, and those kinds' resources."""
    rows = [line.split("|") for line in lines]
    own = [(row[1].split("/"), row[2]) for row in rows if row[0] == partition]
    counts = [sum(int(states[place]) for states, _ in own) for place in range(4)]
    return counts, tuple(sorted({gres for _, gres in own if gres.lower() not in _NOTHING}))


def _limit(time: str) -> int | None:
    """Return a time limit in minutes; None for none.

    Raises:
        ValueError: it is no time.
    """
    return None if time.upper() in ("UNLIMITED", "INFINITE") else int(minutes(time))
