"""The import table of docs/architecture.md."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from slurm import snapshot
from tracking import provenance

PROJECT = Path(__file__).parents[1]
ROOMS = ("vae_core", "tracking", "slurm", "experiments")
OWNERS = {"mlflow": "tracking", "submitit": "slurm", "optuna": "experiments"}


def imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it_and_only_owners_import_their_package(room: str) -> None:
    files = sorted((PROJECT / room).rglob("*.py"))
    assert files
    for file in files:
        found = imports(file)
        if room != "experiments":
            assert not found & (set(ROOMS) - {room}), f"{file} reaches into another room"
        for package, owner in OWNERS.items():
            assert package not in found or owner == room, f"{file} imports {package}, which belongs to {owner}"


def test_provenance_and_snapshots_leave_out_the_same_files() -> None:
    assert provenance._NOT_SHOWN == snapshot._NOT_SHOWN  # neither room may import the other


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(' '.join(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_a_worker_imports_torch_but_neither_optuna_nor_mlflow() -> None:
    loaded = modules_after("import experiments.worker, experiments.training")
    assert "torch" in loaded
    assert not loaded & {"optuna", "mlflow", "submitit"}


def test_help_imports_neither_torch_nor_mlflow_nor_optuna() -> None:
    loaded = modules_after(
        "import sys; sys.argv = ['vae-sweep', '--help']\n"
        "from experiments.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert "typer" in loaded
    assert not loaded & {"torch", "mlflow", "optuna", "numpy", "pandas", "matplotlib"}


def test_status_imports_neither_torch_nor_mlflow_nor_optuna() -> None:
    loaded = modules_after("import experiments.status")
    assert not loaded & {"torch", "mlflow", "optuna"}
