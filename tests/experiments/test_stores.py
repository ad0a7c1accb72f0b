"""Where the databases lie, by the kind of file system under the root."""

from pathlib import Path

import pytest

from experiments import file_system
from experiments.stores import Stores


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Return a function that lets the kernel's list of mounts say what the root is on."""

    def mount(kind):
        mounts = tmp_path / "mountinfo"
        mounts.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:50 / {tmp_path} rw - {kind} server:/x rw\n")
        monkeypatch.setattr(file_system.file_system_of, "__defaults__", (mounts,))

    return mount


@pytest.mark.parametrize("kind", ["ext4", "overlay", "tmpfs", "somethingnew"])
def test_on_a_local_disk_they_lie_in_the_root(mounted, tmp_path, kind):
    mounted(kind)
    stores = Stores(tmp_path / "runs")
    assert not stores.are_elsewhere
    assert stores.mlflow_file == tmp_path / "runs" / "mlflow.db"
    assert stores.optuna_journal == tmp_path / "runs" / "optuna.journal"


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "gpfs", "fuse.sshfs"])
def test_of_a_root_on_the_network_they_lie_on_this_machine_and_artifacts_stay(mounted, tmp_path, kind, monkeypatch):
    mounted(kind)
    monkeypatch.setenv("VAE_SWEEP_STATE", "/local/disk")
    stores, other = Stores(tmp_path / "runs"), Stores(tmp_path / "other" / "runs")
    assert stores.are_elsewhere
    assert str(stores.mlflow_file).startswith("/local/disk/runs-")
    assert stores.optuna_journal.parent == stores.mlflow_file.parent != other.mlflow_file.parent
    assert stores.mlflow_artifacts == tmp_path / "runs" / "mlartifacts"
    monkeypatch.delenv("VAE_SWEEP_STATE")
    assert stores.place.parents[1] == Path("/var/tmp")  # noqa: S108 - a folder that outlives a restart
