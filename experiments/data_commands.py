"""`vae-sweep data ...`: what a person does with data sets outside of a sweep."""

import json
from pathlib import Path

from rich.console import Console

from experiments.runner import preparation_progress
from experiments.sweep import single_run
from vae_core.config import DataConfig
from vae_core.data import prepare
from vae_core.data.paint_folder import paint_folder
from vae_core.data.synthesize_folder import synthesize_folder
from vae_core.errors import UserError


def paint(directory: Path, out: Path, gamma: float, console: Console) -> None:
    """Paint every layout tree below `directory` into `out` and say what was skipped and why.

    Raises:
        UserError: no such folder, or nothing in it that can be painted.
    """
    with preparation_progress(console) as progress:
        summary = paint_folder(directory, out, gamma, progress)
    console.print(f"painted {len(summary.painted)} layouts into {out}, skipped {len(summary.skipped)}", markup=False)
    for skipped in summary.skipped[:10]:
        console.print(f"  {skipped.name}: {skipped.reason}", markup=False, soft_wrap=True)
    console.print(f"details: {summary.table}", markup=False, soft_wrap=True)


def synthesize(base: str, changes: list[str], out: Path, console: Console) -> None:
    """Write the synthetic pages of a base config's data section as files."""
    config = _data(base, changes)
    if config.source != "synthetic":
        raise UserError(f"--base {base}: its data.source is {config.source}; synthesize needs data.source=synthetic")
    count = synthesize_folder(config, out)
    console.print(f"{count} pages with trees, pictures and labels.csv are in {out}", markup=False)


def describe(config: str, changes: list[str], console: Console) -> None:
    """Prepare a data set and print what is in it."""
    with preparation_progress(console) as progress:
        dataset = prepare(_data(config, changes), progress)
    console.print_json(json.dumps(dataset.describe()))


def preview(config: str, changes: list[str], output: Path, console: Console) -> None:
    """Draw what each augmentation does to a training image, and what the config's own do together."""
    from experiments.preview import write_preview

    settings = _data(config, changes)
    with preparation_progress(console) as progress:
        dataset = prepare(settings, progress)
    write_preview(settings.augment, dataset, output)
    console.print(f"contact sheet: {output}", markup=False, soft_wrap=True)
    command = f"vae-sweep data preview {config} --set data.augment.rotation_degrees=5"
    console.print(f"next: choose from its rows, and see them together: {command}", markup=False, soft_wrap=True)
    console.print(
        "then train with the same --set, or sweep a field: space: {data.augment.rotation_degrees: [0.0, 5.0]}",
        markup=False,
        soft_wrap=True,
    )


def _data(base: str, changes: list[str]) -> DataConfig:
    return single_run(base, changes).base_config.data
