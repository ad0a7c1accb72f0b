"""What `vae-sweep run` shows while it works: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Literal, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from experiments.run_watch import RunWatch

_MAX_ROWS = 24
_PLAIN_EVERY_S = 20.0
_STYLES = {"waiting": "dim", "running": "bold cyan", "done": "green", "failed": "bold red", "pruned": "dim"}
_JOB_COLUMNS = ("job", "node", "queued")
_COLUMNS = (
    ("val ELBO", "val/elbo", "{:.2f}"),
    ("SSIM", "val/ssim", "{:.3f}"),
    ("AU", "latent/active_units", "{:.0f}"),
)


class Shown(Protocol):
    """A study with its runs in their order; a coordinator, or somebody who looks on."""

    runs: "dict[str, RunWatch]"

    @property
    def warning(self) -> str | None:
        """Return the trouble that there is, in one line."""

    def words(self) -> str | None:
        """Return what there is to say beside the runs, in one line."""


def duration(seconds: float) -> str:
    """Return seconds as people say them: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(count: int, noun: str) -> str:
    """Return `1 run`, `2 runs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def remaining_s(watch: "RunWatch", usual_epoch_s: float | None) -> float | None:
    """Return the s of training that a run still needs, judged by its own epochs or the usual one; None: unknown."""
    if watch.ended:
        return 0.0
    seconds = list(watch.history.seconds.values())[-5:]
    epoch_s = fmean(seconds) if seconds else usual_epoch_s
    left = watch.info["epochs"] - max(watch.history.epochs, default=0)
    return None if epoch_s is None else left * epoch_s


class Display:
    """Shows a coordinator's runs; a context manager around `Coordinator.run`.

    Args:
        console: where.
        workers: how many runs are trained at once; None: as many as are seen running.
    """

    def __init__(self, console: Console, workers: int | None) -> None:
        self._console = console
        self._workers = workers
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._states: dict[str, str] = {}
        self._attempts: dict[str, int] = {}
        self._spoke = time.monotonic()
        self._warning: str | None = None

    def __enter__(self) -> "Display":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, coordinator: Shown) -> None:
        """Show the present state."""
        watches = list(coordinator.runs.values())
        if self._live:
            parts: list[Table | Text] = [self._table(watches), Text(self._summary(watches))]
            parts += [
                Text(f"{watch.info['cell']} seed={watch.info['seed']}{_why(watch)}", style="red")
                for watch in [watch for watch in watches if watch.state == "failed"][:5]
            ]
            if words := coordinator.words():
                parts.append(Text(words))
            if coordinator.warning:
                parts.append(Text(coordinator.warning, style="yellow"))
            self._live.update(Group(*parts))
        else:
            self._say(watches, coordinator.words(), coordinator.warning)

    def _table(self, watches: "Sequence[RunWatch]") -> Table:
        table = Table(title=None, expand=False)
        in_jobs = any(watch.history.place.get("job") for watch in watches)
        for name in ("cell", "seed", "state", *(_JOB_COLUMNS if in_jobs else ()), "epoch", "ETA"):
            justify: Literal["left", "right"] = "left" if name in ("cell", "state", "node") else "right"
            table.add_column(name, justify=justify, no_wrap=True)
        for name, _, _ in _COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        usual = _usual_epoch_s(watches)
        shown = _most_interesting(watches)
        for watch in shown:
            cells = self._cells(watch, usual)
            if in_jobs:
                cells[3:3] = _job_cells(watch)
            table.add_row(*cells, style=_STYLES[watch.state])
        if len(shown) < len(watches):
            table.caption = f"{len(watches) - len(shown)} more runs"
        return table

    def _cells(self, watch: "RunWatch", usual_epoch_s: float | None) -> list[str]:
        left = remaining_s(watch, usual_epoch_s) if watch.state == "running" else None
        latest = next((metrics for metrics in reversed(watch.history.epochs.values()) if "val/elbo" in metrics), {})
        numbers = [form.format(latest[key]) if key in latest else "" for _, key, form in _COLUMNS]
        epochs = f"{max(watch.history.epochs, default=0)}/{watch.info['epochs']}"
        eta = duration(left) if left is not None else ""
        return [watch.info["cell"], str(watch.info["seed"]), watch.state, epochs, eta, *numbers]

    def _summary(self, watches: "Sequence[RunWatch]") -> str:
        counts = {state: sum(watch.state == state for watch in watches) for state in _STYLES}
        words = [f"{count} {state}" for state, count in counts.items() if count]
        usual = _usual_epoch_s(watches)
        left = [remaining_s(watch, usual) for watch in watches]
        known = [seconds for seconds in left if seconds is not None]
        if any(known) and len(known) == len(left):
            words.append(f"about {duration(self._left_s(watches, known))} left")
        return f"{counted(len(watches), 'run')}: " + ", ".join(words)

    def _left_s(self, watches: "Sequence[RunWatch]", left_s: list[float]) -> float:
        """Return the s until all is done: of the longest run, or of the sum shared by those that can be at work."""
        running = sum(watch.state == "running" for watch in watches)
        at_once = min(self._workers or running or 1, sum(not watch.ended for watch in watches) or 1)
        return max(max(left_s), sum(left_s) / at_once)

    def _say(self, watches: "Sequence[RunWatch]", words: str | None, warning: str | None) -> None:
        for watch in watches:
            self._say_attempt(watch)
            if watch.state != self._states.get(watch.directory.id, "waiting"):
                cell, seed, state, epoch, _, elbo, ssim, units = self._cells(watch, None)
                numbers = f", val ELBO {elbo}, SSIM {ssim}, {units} active units" if elbo else ""
                where = _where(watch) if state == "running" else ""
                self._line(f"{cell} seed={seed}: {state}{where}, epoch {epoch}{numbers}{_why(watch)}")
                self._states[watch.directory.id] = watch.state
        if warning and warning != self._warning:
            self._line(warning)
        self._warning = warning
        if time.monotonic() - self._spoke > _PLAIN_EVERY_S:
            self._line("; ".join(filter(None, (self._summary(watches), words))))

    def _say_attempt(self, watch: "RunWatch") -> None:
        """Say where a run went on, and whether what came after its newest checkpoint was lost."""
        attempt = watch.history.attempt
        if attempt is None or attempt <= self._attempts.get(watch.directory.id, 0):
            return
        self._attempts[watch.directory.id] = attempt
        ends = {"interrupted": "was interrupted", "failed": "failed", "pruned": "was pruned"}
        before = ends.get(watch.history.after or "lost", "was lost before it could write another")
        run = f"{watch.info['cell']} seed={watch.info['seed']}"
        goes_on = f"attempt {attempt} goes on from {_start(watch)}{_where(watch)}"
        self._line(f"{run}: attempt {attempt - 1} {before}; {goes_on}")

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._spoke = time.monotonic()


def _start(watch: "RunWatch") -> str:
    step = watch.history.start_step
    return f"the checkpoint of step {step}" if step else "the start"


def _where(watch: "RunWatch") -> str:
    """Return job and node of a run, where it has a job."""
    place = watch.history.place
    return f" in job {place['job']} on {place['host']}" if place.get("job") else ""


def _job_cells(watch: "RunWatch") -> list[str]:
    place = watch.history.place
    wait_s = place.get("wait_s")
    return [place.get("job") or "", place.get("host") or "", "" if wait_s is None else duration(wait_s)]


def _why(watch: "RunWatch") -> str:
    """Return why a run failed, as the end of a sentence."""
    end = watch.history.end
    return f" ({end['failure']}: {end['reason']})" if end and watch.state == "failed" else ""


def _usual_epoch_s(watches: "Sequence[RunWatch]") -> float | None:
    seconds = [value for watch in watches for value in watch.history.seconds.values()]
    return fmean(seconds) if seconds else None


def _most_interesting(watches: "Sequence[RunWatch]") -> "list[RunWatch]":
    """Return at most `_MAX_ROWS` runs in their order, running and failed ones first."""
    if len(watches) <= _MAX_ROWS:
        return list(watches)
    rank = {"running": 0, "failed": 1, "waiting": 2, "pruned": 3, "done": 4}
    chosen = sorted(watches, key=lambda watch: (rank[watch.state], watch.order))[:_MAX_ROWS]
    return sorted(chosen, key=lambda watch: watch.order)
