"""Checks of this machine: Python, torch, devices, cores, weights for LPIPS, and the state of the code."""

import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from experiments.checks import Check, attempted
from experiments.display import counted
from experiments.machine import usable_cores
from slurm.snapshot import git_state, refusal, source_root
from tracking.errors import first_line

_OLDEST_PYTHON = (3, 11)


def machine_checks() -> Iterator[Check]:
    """Look at what every run needs; torch is imported here and nowhere earlier."""
    yield python_version(sys.version_info[:2])
    torch = attempted("torch", torch_version)
    yield torch
    if torch.verdict == "ok":
        yield attempted("GPUs", gpus)
        yield attempted("cores", cores)
        yield attempted("LPIPS weights", lpips_weights)
    yield code(source_root())


def python_version(found: tuple[int, ...]) -> Check:
    """Compare a Python version with the oldest that works."""
    finding = f"{platform.python_version()} ({sys.executable})"
    if found >= _OLDEST_PYTHON:
        return Check("Python", finding)
    oldest = ".".join(map(str, _OLDEST_PYTHON))
    return Check("Python", finding, "broken", f"install vae-sweep with Python {oldest} or newer")


def torch_version() -> Check:
    """Import torch."""
    try:
        import torch
    except (ImportError, OSError) as error:
        remedy = f"install it for this interpreter: {sys.executable} -m pip install torch torchvision"
        return Check("torch", f"cannot be imported: {first_line(error)}", "broken", remedy)
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU alone"
    return Check("torch", f"{torch.__version__}, {built}")


def gpus() -> Check:
    """Name the CUDA devices, or say why there are none."""
    import torch

    with warnings.catch_warnings(record=True) as caught:  # torch says by a warning what is wrong with a driver
        warnings.simplefilter("always")
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        usable = torch.cuda.is_available()
    if names and usable:
        return Check("GPUs", "; ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names)))
    reason = f" ({first_line(caught[0].message)})" if caught and isinstance(caught[0].message, Warning) else ""
    remedy = "fine for small sweeps; jobs of a cluster use the GPUs of their nodes"
    return Check("GPUs", f"none that CUDA can use{reason}: training here uses the CPU", "note", remedy)


def cores() -> Check:
    """Compare the cores of the machine with those that this process may use."""
    import torch

    present, allowed = os.cpu_count() or 1, usable_cores()
    finding = f"{counted(present, 'core')}, {counted(torch.get_num_threads(), 'thread')} of torch"
    if allowed >= present:
        return Check("cores", finding)
    remedy = f"for local workers give --workers, at most {allowed} / train.threads"
    return Check("cores", f"{finding}; this process may use {allowed} of them", "note", remedy)


def lpips_weights() -> Check:
    """Look for SqueezeNet's weights, without which LPIPS is left out."""
    from vae_core.perceptual import lpips_available

    missing = lpips_available()
    if missing is None:
        return Check("LPIPS weights", "SqueezeNet is there")
    finding, _, remedy = missing.partition("; ")
    return Check("LPIPS weights", f"{finding}: LPIPS is not measured", "note", remedy)


def code(source: Path) -> Check:
    """Say what git says of the code in `source`, which jobs run from a snapshot."""
    try:
        state = git_state(source)
    except (OSError, subprocess.SubprocessError) as error:
        finding = f"{source}: git does not say what has changed: {first_line(error)}"
        return Check("code", finding, "note", f"see what git -C {source} status says")
    if state.commit is None:
        return Check("code", f"{source}: an installed package, no git checkout")
    refused = refusal(state)
    if refused is None:
        return Check("code", f"{source}: commit {state.commit[:10]}, clean and pushed")
    finding, _, remedy = refused.rpartition("; ")
    return Check("code", f"{source}: {finding}", "note", f"matters to SLURM jobs alone: {remedy}")
