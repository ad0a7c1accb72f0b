"""Checks of the stores of a root: MLflow's database and Optuna's journal, only read."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from experiments.checks import Check, attempted
from experiments.stores import Stores

_BUSY_S = 2.0
_LATER = "missing: made by the first study"


def store_checks(root: Path) -> Iterator[Check]:
    """Look whether the stores can be read."""
    stores = Stores(root)
    yield attempted("mlflow.db", lambda: database(stores.mlflow_file))
    yield attempted("optuna.journal", lambda: journal(stores.optuna_journal))


def database(path: Path, patience_s: float = _BUSY_S) -> Check:
    """Have SQLite go through the whole file."""
    if not path.exists():
        return Check("mlflow.db", _LATER)
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=patience_s)) as connection:
            [answer] = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        remedy = "try again when no coordinator writes; what a killed one has left half done, the next one undoes"
        return Check("mlflow.db", f"not checked: {error}", "note", remedy)
    except sqlite3.DatabaseError as error:
        answer = str(error)
    if answer == "ok":
        return Check("mlflow.db", f"{_megabytes(path)}, intact")
    remedy = f"move {path.name} away, then make it anew: vae-sweep rebuild STUDY, for every study of the root"
    return Check("mlflow.db", f"damaged: {answer}", "broken", remedy)


def journal(path: Path) -> Check:
    """Look whether the last line is whole."""
    if not path.exists():
        return Check("optuna.journal", _LATER)
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
        whole = file.read() in (b"", b"\n")
    if whole:
        return Check("optuna.journal", f"{_megabytes(path)}, its last line is whole")
    remedy = "nothing to do: it is cut off when the journal is next opened, and written anew from the studies"
    return Check("optuna.journal", f"{_megabytes(path)}, its last line is torn", "note", remedy)


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
