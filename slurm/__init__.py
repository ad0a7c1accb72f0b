"""SLURM jobs that host workers; the only room that imports submitit."""
