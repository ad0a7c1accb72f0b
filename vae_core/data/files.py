"""Folders of input files: listing them, stamping them, and finding their labels."""

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from vae_core.errors import UserError


def input_folder(path: str | None, what: str) -> Path:
    """Return the folder that data.path names.

    Raises:
        UserError: there is no path, nothing at it, or a file; `what` says what should be there.
    """
    if path is None:
        raise UserError(f"data.path: is required for this source; give {what}")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        problem = "is a file" if folder.is_file() else "does not exist"
        raise UserError(f"data.path: {path} {problem}; give {what}")
    return folder


def list_files(folder: Path, suffixes: tuple[str, ...], what: str) -> list[str]:
    """Return the relative POSIX paths of the files with these suffixes at any depth, sorted; no hidden ones.

    Raises:
        UserError: there are none, or a folder cannot be read.
    """
    names = sorted(_walk(folder, suffixes))
    if not names:
        raise UserError(f"data.path: {folder} holds no file ending in {', '.join(suffixes)}; give {what}")
    return names


def _walk(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise UserError(f"data.path: {error.filename} cannot be read ({error.strerror})") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(parent).relative_to(folder).as_posix()
        for name in files:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield name if inside == "." else f"{inside}/{name}"


def stamp_files(folder: Path, names: list[str]) -> list[tuple[str, int, int]]:
    """Return name, size in bytes and modification time in ns of every file, the folder's place first."""
    stamps = [(str(folder.resolve()), 0, 0)]
    for name in names:
        status = (folder / name).stat()
        stamps.append((name, status.st_size, status.st_mtime_ns))
    return stamps


def stamp_labels(labels: str | None) -> list[tuple[str, int, int]]:
    """Return the stamp of the CSV of labels; see `stamp_files`."""
    if labels is None:
        return []
    path = Path(labels).expanduser()
    return stamp_files(path.parent, [path.name]) if path.is_file() else []


def find_labels(names: list[str], labels: str | None) -> dict[str, str | None]:
    """Return the label of each file: from the CSV `labels`, else the first folder of its path, else None.

    A row of the CSV names a file by its relative path, with or without the suffix.

    Raises:
        UserError: the CSV cannot be read, lacks a column, contradicts itself, or names none of the files.
    """
    if labels is None:
        return {name: PurePosixPath(name).parts[0] if "/" in name else None for name in names}
    rows = _read_labels(Path(labels).expanduser())
    found = {name: rows.get(name, rows.get(str(PurePosixPath(name).with_suffix("")))) for name in names}
    if not any(label is not None for label in found.values()):
        raise UserError(f"data.labels: {labels} names none of the files, such as {names[0]}")
    return found


def _read_labels(path: Path) -> Mapping[str, str]:
    rows: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"name", "label"} <= set(reader.fieldnames or []):
                found = ", ".join(reader.fieldnames or []) or "none"
                raise UserError(f"data.labels: {path} must have the columns name and label; found {found}")
            for row in reader:
                name, label = row["name"], row["label"]
                if label and rows.setdefault(name, label) != label:
                    both = f"{rows[name]} and {label}"
                    raise UserError(f"data.labels: {path}, line {reader.line_num}: {name} has two labels, {both}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"data.labels: {path} cannot be read ({error}); give a CSV with columns name,label") from error
    return rows
