"""What a run measured against what the same training measured again, row by row."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from experiments.history import RunHistory

Verdict = Literal["bit-equal", "equal to rounding", "different"]

_NOT_REPEATABLE = ("time/", "system/")  # measurements that no two executions share


@dataclass(frozen=True)
class Row:
    """One metric of one epoch (None: of the selected weights, on the test split); a value that is missing is None.

    `relative` is the difference as a share of the metric's largest magnitude in the original run: a KL that falls from
    5 to 1e-9 nats is not judged by the digits of 1e-9. Infinite where a value is missing or not finite.
    """

    key: str
    epoch: int | None
    before: float | None
    now: float | None
    relative: float

    @property
    def where(self) -> str:
        """Return `val/elbo of epoch 3`, or the metric alone."""
        return self.key if self.epoch is None else f"{self.key} of epoch {self.epoch}"


@dataclass(frozen=True)
class Agreement:
    """Every row that the original has, judged with a relative tolerance."""

    rows: tuple[Row, ...]
    tolerance: float

    @property
    def differing(self) -> list[Row]:
        """Return the rows that are not bit-equal, in their order."""
        return [row for row in self.rows if row.relative > 0]

    @property
    def apart(self) -> list[Row]:
        """Return the rows that differ by more than the tolerance."""
        return [row for row in self.rows if row.relative > self.tolerance]

    @property
    def largest(self) -> Row:
        """Return the row that differs most, the first of equals."""
        return max(self.rows, key=lambda row: row.relative)

    @property
    def verdict(self) -> Verdict:
        """Return what the rows add up to."""
        if not self.differing:
            return "bit-equal"
        return "different" if self.apart else "equal to rounding"

    def to_csv(self) -> str:
        """Return all rows, with every digit."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["metric", "epoch", "original", "reproduction", "relative_difference"])
        for row in self.rows:
            writer.writerow([row.key, "" if row.epoch is None else row.epoch, row.before, row.now, row.relative])
        return text.getvalue()


def agreement(original: RunHistory, repeated: RunHistory, tolerance: float) -> Agreement:
    """Compare every epoch and, where the original has a result, every test metric and the selected epoch."""
    scales: dict[str, float] = {}
    for key, _, value in _values(original):
        scales[key] = max(scales.get(key, 0.0), abs(value)) if math.isfinite(value) else scales.get(key, 0.0)
    now = {(key, epoch): value for key, epoch, value in _values(repeated)}
    rows = [_row(key, epoch, value, now.get((key, epoch)), scales[key]) for key, epoch, value in _values(original)]
    return Agreement(tuple(rows), tolerance)


def _values(history: RunHistory) -> Iterator[tuple[str, int | None, float]]:
    for epoch, metrics in sorted(history.epochs.items()):
        yield from ((key, epoch, value) for key, value in metrics.items() if not key.startswith(_NOT_REPEATABLE))
    if history.result is not None:
        yield from ((key, None, value) for key, value in history.result["metrics"].items())
        yield "best epoch", None, float(history.result["best_epoch"])


def _row(key: str, epoch: int | None, before: float, now: float | None, scale: float) -> Row:
    if now is None:
        return Row(key, epoch, before, None, math.inf)
    if before == now or (math.isnan(before) and math.isnan(now)):
        return Row(key, epoch, before, now, 0.0)
    distance = abs(before - now)
    return Row(key, epoch, before, now, distance / (scale or abs(now)) if math.isfinite(distance) else math.inf)
