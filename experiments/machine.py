"""What this process may use of the machine."""

import os


def usable_cores() -> int:
    """Return how many CPU cores this process may use; a job has fewer than its node."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
