"""Where the MLflow and Optuna stores of a root lie."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stores:
    """The stores of the studies under `root`; views that `vae-sweep rebuild` can make anew."""

    root: Path

    @property
    def mlflow_uri(self) -> str:
        """Return MLflow's tracking URI: a SQLite file."""
        return f"sqlite:///{self.mlflow_file}"

    @property
    def mlflow_file(self) -> Path:
        """Return MLflow's database."""
        return self.root.absolute() / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """Return the folder of MLflow's artifacts."""
        return self.root.absolute() / "mlartifacts"

    @property
    def optuna_journal(self) -> Path:
        """Return Optuna's journal file."""
        return self.root.absolute() / "optuna.journal"

    @property
    def files(self) -> tuple[Path, Path]:
        """Return the files that the web pages show."""
        return self.mlflow_file, self.optuna_journal
