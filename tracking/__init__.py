"""The run directory (journal, queue, heartbeat, checkpoints), provenance, and the replay into MLflow."""
