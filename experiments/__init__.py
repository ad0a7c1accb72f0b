"""Sweeps, studies, trials and runs: the coordinator, the workers, the report and the command line."""
