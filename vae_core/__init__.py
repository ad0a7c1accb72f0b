"""Models, losses, data, metrics and the trainer of vae-sweep; knows nothing of sweeps, Optuna, MLflow or SLURM."""

__version__ = "0.1.0"
