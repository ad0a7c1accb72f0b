"""What `vae-sweep reproduce` says of the rows it has compared."""

from experiments.grid import Grid, words
from experiments.history import RunHistory
from experiments.reproduce_rows import Agreement, Row

NO_REASON_KNOWN = (
    "No reason is recorded: code, packages, device and data are the same. Some GPU kernels add in another order every "
    "time; on a CPU this is a mistake of this project's, please report it."
)
_SHOWN = 12  # metrics of the table of what differs


def verdict_words(found: Agreement, history: RunHistory) -> str:
    """Return the verdict with how much it rests on, in one sentence."""
    epochs = len(history.epochs)
    scope = f"{len(found.rows):,} values of {epochs} epochs{' and of the test' if history.result else ''}"
    if found.verdict == "bit-equal":
        return f"bit-equal: all {scope} are the same to the last digit."
    largest = found.largest
    most = f"the largest relative difference is {largest.relative:.2g}, in {largest.where}"
    if found.verdict == "equal to rounding":
        count = f"{len(found.differing):,} differ"
        return f"equal to rounding (tolerance {found.tolerance:g}): of {scope}, {count}; {most}."
    first = found.apart[0]
    return (
        f"different: of {scope}, {len(found.apart):,} differ by more than {found.tolerance:g}, first {first.where}; "
        f"{most}."
    )


def endings(history: RunHistory, repeated: RunHistory) -> list[str]:
    """Say what cannot be compared, or came to another end."""
    found = []
    if history.result is None:
        state = history.status or "not at its end"
        found.append(f"The original is {state}; only its {len(history.epochs)} finished epochs were compared.")
    if repeated.status != history.status and history.status is not None:
        reason = f" ({repeated.end['reason']})" if repeated.end and repeated.end.get("reason") else ""
        found.append(f"The original was {history.status}, the reproduction {repeated.status}{reason}.")
    return found


def difference_table(found: Agreement) -> Grid | None:
    """Return, for each metric that differs by more than the tolerance, its first and its largest such difference."""
    by_key: dict[str, list[Row]] = {}
    for row in found.apart:
        by_key.setdefault(row.key, []).append(row)
    if not by_key:
        return None
    shown = list(by_key.items())[:_SHOWN]
    rows = []
    for key, own in shown:
        worst = max(own, key=lambda row: row.relative)
        first, last = ("test" if row.epoch is None else str(row.epoch) for row in (own[0], worst))
        numbers = _number(worst.before), _number(worst.now), f"{worst.relative:.2g}"
        rows.append(words(key, str(len(own)), first, last, *numbers))
    head = ("metric", "rows", "first epoch", "worst epoch", "original", "reproduction", "relative")
    more = len(by_key) - len(shown)
    note = f"And {more} more metrics; all rows are in reproduction.csv." if more else ""
    return Grid("What differs", head, tuple(rows), note)


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.9g}"
