"""Base configs, chosen by name: each YAML file here is the starting point of sweeps and single trainings."""
