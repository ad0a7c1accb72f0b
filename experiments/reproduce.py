"""`vae-sweep reproduce`: a run trained again from its own config, data and seed, and what came out compared with it."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from experiments.circumstances import circumstances, differing, of_provenance, recorded_provenance
from experiments.grid import Grid, words
from experiments.history import RunHistory, read_history, read_info
from experiments.reproduce_code import HERE, KINDS, train_with, unpacked, worktree_hint
from experiments.reproduce_rows import agreement
from experiments.reproduce_weights import weights_words
from experiments.reproduce_words import NO_REASON_KNOWN, difference_table, endings, verdict_words
from experiments.run_search import FoundRun, find_run
from tracking.files import write_atomic
from tracking.run_directory import RunDirectory, StudyDirectory
from vae_core.errors import UserError

if TYPE_CHECKING:
    from experiments.sweep import Sweep

_SAME, _DIFFERENT = 0, 1
_STOPPED = (3, 130, 143)  # exit codes of vae-sweep run, and of one that SIGTERM ended before it was ready
_NO_REASON = ("hostname", "node", "mlflow", "optuna")  # where and by whom it was written down changes no number
_OF_THE_PROCESS = ("threads", "cuda", "device_name")  # known only once it trains


@dataclass(frozen=True)
class _Again:
    """A run and the study in which it is trained again."""

    original: FoundRun
    sweep: "Sweep"
    study: StudyDirectory
    changes: list[str]

    @property
    def run(self) -> RunDirectory:
        """Return the folder of the repeated run, which the study holds alone."""
        [identifier] = self.study.run_ids()
        return self.study.run(identifier)


def reproduce(
    root: Path, name: str, into: Path | None, changes: list[str], tolerance: float, code: str, console: Console
) -> int:
    """Train a run again and say whether the numbers are the same; the same command again goes on where it stopped.

    Args:
        root: folder of the studies.
        name: the run, see `run_search.find_run`.
        into: root of the new study `reproduce-<run id>`, with the code's kind after it unless that is `here`; default:
            `ROOT/reproductions`.
        changes: `--set` options of fields that change no result, such as data.path or train.device.
        tolerance: relative difference (see `reproduce_rows.Row`) up to which numbers count as equal to rounding.
        code: `here`: that of this checkout; `snapshot`, `commit`: see `reproduce_code.unpacked`.
        console: where everything is shown.

    Returns:
        0: bit-equal or equal to rounding, 1: different, or the training failed, 3 and 130: stopped.

    Raises:
        UserError: no such run, nothing to compare with, other data, or a change that would make it another run.
    """
    if code not in KINDS:
        raise UserError(f"--code {code}: no such code; valid: {', '.join(KINDS)}")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UserError(f"--tolerance {tolerance}: must be a relative difference of at least 0, such as 1e-5")
    original = find_run(root, name)
    history = read_history(original.directory)
    if not history.epochs:
        raise UserError(f"{original.name}: has no finished epoch to compare with")
    again = _planned(original, into or root / "reproductions", changes, code)
    _check_data(original, again.sweep)
    console.print(f"Reproducing {original.name} ({original.id})", style="bold", markup=False, highlight=False)
    if code == HERE:
        _say_circumstances(original, console)
    exit_code, code_words = _train(again, code, console)
    if exit_code > 1 or not again.study.run_ids() or read_history(again.run).status is None:
        what = (
            "Stopped; the same command goes on." if exit_code in _STOPPED else "The training has not come to its end."
        )
        console.print(f"Nothing was compared. {what}", markup=False)
        return exit_code or _DIFFERENT
    return _conclude(again, history, tolerance, code_words, console)


def _planned(original: FoundRun, into: Path, changes: list[str], code: str) -> _Again:
    from experiments.sweep import single_run
    from vae_core.config import identity, parse_config
    from vae_core.yaml_io import load_yaml

    config = original.directory.config_file.absolute()
    seed = read_info(original.directory)["seed"]
    changes = [f"seed={seed}", *changes]
    suffix = "" if code == HERE else f"-{code}"  # each with its own code
    sweep = single_run(str(config), changes, f"reproduce-{original.id}{suffix}")
    sweep = replace(sweep, question=f"Does {original.name} come out the same again?")
    before = identity(parse_config(load_yaml(config), str(config)))
    if identity(sweep.config({}, sweep.seeds[0])) != before:
        raise UserError(
            f"--set {' '.join(changes[1:])}: would be another run; only fields that change no result can be set, such "
            "as data.path, data.cache_dir and train.device"
        )
    return _Again(original, sweep, StudyDirectory(into.absolute() / sweep.name), changes)


def _check_data(original: FoundRun, sweep: "Sweep") -> None:
    """Refuse to train on other data than the run has seen.

    Raises:
        UserError: the fingerprint differs; the message says in which splits.
    """
    from vae_core.data import prepare

    info = read_info(original.directory)
    dataset = prepare(sweep.base_config.data)
    if dataset.fingerprint == info["data_fingerprint"]:
        return
    before = info.get("split_hashes", {})
    changed = [split for split, digest in dataset.split_hashes.items() if before.get(split) != digest]
    what = f"the images of {', '.join(changed)}" if changed else "sizes or labels"
    raise UserError(
        f"{original.name}: its data set had the fingerprint {info['data_fingerprint']}, now it is "
        f"{dataset.fingerprint}; {what} differ. Bring the old data back, or say where they are with "
        "--set data.path=DIR"
    )


def _say_circumstances(original: FoundRun, console: Console) -> None:
    """Say what of the code and the machine is not as it was, before hours are spent on it."""
    known = recorded_provenance(original.study, original.directory)
    before, now = of_provenance(known), _present()
    names = [name for name in differing([before, now]) if name in before and name not in _OF_THE_PROCESS]
    if not names:
        console.print("Code, packages and machine are those of then.", markup=False)
        return
    rows = tuple(words(name, before[name], now.get(name, "unknown")) for name in names)
    note = ""
    if "commit" in names and known.get("commit"):
        note = f"The code of then: --code commit, or by hand: {worktree_hint(known['commit'])}"
    console.print(Grid("What is not as it was", ("", "then", "now"), rows, note, names=3).to_console())


def _present() -> dict[str, str]:
    """Return code, packages and machine as they are now."""
    from experiments.study import without_secrets
    from tracking.provenance import collect

    return of_provenance(without_secrets(collect(Path(__file__).parent)))


def _stale(again: _Again) -> str | None:
    """Return a remark where the repeated run was trained before the code became what it is now."""
    trained, now = circumstances(again.study, again.run).get("commit"), _present()["commit"]
    if trained in (None, now):
        return None
    return (
        f"This was trained earlier, with commit {trained}; now the code is {now}. To train with it, remove "
        f"{again.study.path} or give another root with --into."
    )


def _train(again: _Again, code: str, console: Console) -> tuple[int, str | None]:
    """Train, or go on; return the exit code, and the words for the code where it is not this checkout's."""
    if code == HERE:
        from experiments.runner import run_sweep

        return run_sweep(again.sweep, again.study.path.parent, console), None
    folder, code_words = unpacked(again.original.study, again.study, code)
    console.print(f"Training with {code_words}, in {folder}", markup=False, highlight=False, soft_wrap=True)
    config = again.original.directory.config_file.absolute()
    return train_with(folder, config, again.changes, again.study), code_words


def _conclude(again: _Again, history: RunHistory, tolerance: float, code_words: str | None, console: Console) -> int:
    """Compare, show and write down what came out."""
    repeated = read_history(again.run)
    found = agreement(history, repeated, tolerance)
    reasons = _reasons(again, code_words)
    weights = weights_words(again.original.directory, history, again.run, repeated)
    sentences = [verdict_words(found, history), *([weights] if weights else []), *endings(history, repeated)]
    if code_words is None and (stale := _stale(again)):
        sentences.append(stale)
    grid = difference_table(found)
    if found.verdict == "different":
        sentences.append(f"Likely reason: {'; '.join(reasons)}." if reasons else NO_REASON_KNOWN)
    elif reasons:
        sentences.append(f"Although this was not the same: {'; '.join(reasons)}.")
    style = {"bit-equal": "bold green", "equal to rounding": "bold green", "different": "bold red"}[found.verdict]
    console.print(f"\n{sentences[0]}", style=style, markup=False, highlight=False, soft_wrap=True)
    if grid is not None:
        console.print(grid.to_console())
    console.print("\n".join(sentences[1:]), markup=False, highlight=False, soft_wrap=True)
    folder = again.study.report
    parts = [f"# {again.sweep.question}", sentences[0], grid.to_markdown().rstrip() if grid else "", *sentences[1:]]
    write_atomic(folder / "reproduction.md", "\n\n".join(part for part in parts if part) + "\n")
    write_atomic(folder / "reproduction.csv", found.to_csv())
    console.print(
        f"Written: {folder / 'reproduction.md'}, reproduction.csv (every row)\n"
        f"Side by side: vae-sweep compare {again.original.directory.path} {again.run.path}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return _DIFFERENT if found.verdict == "different" else _SAME


def _reasons(again: _Again, code_words: str | None) -> list[str]:
    """Return what of code, packages, machine and device was not the same in the end."""
    original, run = again.original, again.run
    before, now = circumstances(original.study, original.directory), circumstances(again.study, run)
    if code_words is not None:  # the original's own code, of which the unpacked folder knows no commit
        now["commit"] = before.get("commit", code_words)
    names = [name for name in differing([before, now]) if name not in _NO_REASON and name in before]
    reasons = [f"{name} {before[name]} then, {now.get(name, 'unknown')} now" for name in names]
    if run.id != original.id and "commit" not in names:
        reasons.append("the config has other fields in this code than it had then")
    return reasons
