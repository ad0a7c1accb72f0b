"""`vae-sweep doctor`: what of this machine, the root and the site's SLURM is fit for sweeps, and what to do if not."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.checks import FAILURES, Check, attempted, failed
from experiments.display import counted, duration
from experiments.machine_checks import machine_checks
from experiments.partition_checks import profile_checks, shared_with_nodes, usable
from experiments.root_checks import root_checks
from experiments.slurm_checks import has_slurm, no_slurm, sacct, setting_checks, squeue
from experiments.slurm_profiles import with_profile
from experiments.store_checks import store_checks
from experiments.sweep_file import LauncherConfig
from slurm.settings import SlurmSettings
from slurm.site import Partition, partitions

_STYLES = {"ok": "green", "note": "yellow", "broken": "bold red"}


def show_checks(root: Path, profile: str | None, console: Console) -> int:
    """Print every check with its verdict; return 1 where something is broken, otherwise 0.

    Args:
        root: folder of the studies; need not exist.
        profile: name of SLURM settings to compare with the site; None: none.
        console: where to print.

    Raises:
        UserError: there is no such profile, or its settings are refused.
    """
    settings = with_profile(LauncherConfig(profile=profile), "--profile").slurm
    with console.status("checking: writes a few files, asks the scheduler where there is one"):
        site, found = _site_checks(root, profile, settings)
        groups = [list(machine_checks()), [*root_checks(root), *store_checks(root)], site]
    console.print(_table(groups))
    if found:
        console.print(_partition_table(found))
    counts = Counter(check.verdict for group in groups for check in group)
    words = (f"{counts['ok']} ok", counted(counts["note"], "note"), f"{counts['broken']} broken")
    console.print(", ".join(words), highlight=False)
    return 1 if counts["broken"] else 0


def _site_checks(root: Path, profile: str | None, settings: SlurmSettings) -> tuple[list[Check], list[Partition]]:
    """Return the checks of the site's SLURM and its partitions; where squeue gets no answer, nothing else is asked."""
    if not has_slurm():
        return [no_slurm(profile)], []
    answer = attempted("squeue", squeue)
    if answer.verdict == "broken":
        return [answer], []
    checks = [answer, attempted("sacct", sacct), *setting_checks(settings)]
    try:
        found = partitions()
    except FAILURES as error:
        return [*checks, failed("partitions", error)], []
    checks += [usable(found), *(profile_checks(found, profile, settings) if profile else [])]
    return [*checks, attempted("shared folders", lambda: shared_with_nodes(root))], found


def _table(groups: Sequence[Sequence[Check]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("finding, and the remedy (→) where it is not ok", overflow="fold")
    for group in groups:
        for check in group:
            remedy = f"\n→ {check.remedy}" if check.remedy else ""
            table.add_row(Text(check.name), Text(check.verdict, _STYLES[check.verdict]), Text(check.finding + remedy))
        table.add_section()
    return table


def _partition_table(found: Sequence[Partition]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("partition", "state", "time limit", "nodes up", "resources of a node", "GraceTime", "PreemptMode"):
        table.add_column(name, justify="right" if name in ("time limit", "nodes up", "GraceTime") else "left")
    for each in found:
        if not each.hidden:
            limit = "none" if each.max_time_min is None else duration(60 * each.max_time_min)
            row = [f"{each.name}{' (default)' if each.default else ''}", each.state, limit]
            row += [f"{each.nodes_up}/{each.nodes}", " or ".join(each.gres), f"{each.grace_s} s", each.preempt_mode]
            table.add_row(*map(Text, row))
    return table
