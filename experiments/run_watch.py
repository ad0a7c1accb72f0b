"""One planned run as whoever follows a study sees it: the coordinator, or somebody who only looks on."""

from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.history import HistoryTail, RunHistory
from tracking.queue import Claim
from tracking.run_directory import RunDirectory

State = Literal["waiting", "running", "done", "failed", "pruned"]


@dataclass
class RunWatch:
    """One planned run: where it is, what it has written, and what of that has been passed on.

    Attributes:
        retried_after: number of the attempt whose failure no longer counts, because somebody asked for another try.
    """

    directory: RunDirectory
    info: dict[str, Any]
    order: int
    tail: HistoryTail
    running: bool = False
    claim: Claim | None = None
    changed: bool = True
    forwarded: bool = False  # everything, the end included, is in MLflow
    forwarded_at: float = field(default=float("-inf"))
    retried_after: int | None = None

    @property
    def history(self) -> RunHistory:
        """Return what the run's journals say."""
        return self.tail.history

    @property
    def state(self) -> State:
        """Return the run's state as people see it."""
        status = self.history.status
        if status == "done":
            return "done"
        if status == "pruned" and not self.is_retried:
            return "pruned"
        if status == "failed" and not self.retries_memory and not self.is_retried:
            return "failed"
        return "running" if self.running else "waiting"

    @property
    def is_retried(self) -> bool:
        """Return whether somebody has asked for another try since the newest attempt."""
        attempt = self.history.attempt
        return self.retried_after is not None and attempt is not None and attempt <= self.retried_after

    @property
    def retries_memory(self) -> bool:
        """Return whether the run ended out of memory at its full pixel budget, which is tried once with half."""
        end = self.history.end
        return bool(end and end["failure"] == "oom" and end["pixel_budget_scale"] == 1.0)

    @property
    def ended(self) -> bool:
        """Return whether no further attempt will be made."""
        return self.state in ("done", "failed", "pruned")
