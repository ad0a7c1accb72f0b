"""Named SLURM settings, from the sweep file or from the user's own `slurm.yaml`."""

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from experiments.sweep_file import LauncherConfig
from slurm.settings import SlurmSettings
from vae_core.config import validation_messages
from vae_core.errors import UserError, suggestion
from vae_core.yaml_io import load_yaml


def profiles_file() -> Path:
    """Return the user's file of profiles: `~/.config/vae-sweep/slurm.yaml`, or below $XDG_CONFIG_HOME."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "vae-sweep" / "slurm.yaml"


def with_profile(launcher: LauncherConfig, where: str) -> LauncherConfig:
    """Return the launcher section with its profile's settings below those that it gives itself.

    Raises:
        UserError: there is no such profile, or its settings are refused.
    """
    if launcher.profile is None:
        return launcher
    settings = _profile(launcher, where).model_dump(exclude_unset=True)
    own = launcher.slurm.model_dump(exclude_unset=True)
    together = _checked(settings | own, f"{where}: launcher.slurm with profile {launcher.profile}")
    return launcher.model_copy(update={"slurm": together})


def _profile(launcher: LauncherConfig, where: str) -> SlurmSettings:
    name = str(launcher.profile)
    if name in launcher.profiles:
        return launcher.profiles[name]
    path = profiles_file()
    own = load_yaml(path) if path.is_file() else {}
    if not isinstance(own, dict):
        raise UserError(f"{path}: must be a mapping from names of profiles to settings; valid: {_fields()}")
    if name in own:
        return _checked(own[name], f"{path}: {name}")
    known = [*launcher.profiles, *own]
    hint = suggestion(name, known) if known else "there are none"
    raise UserError(f"{where}: launcher.profile: no profile {name!r} in launcher.profiles or in {path}; {hint}")


def _checked(tree: Any, where: str) -> SlurmSettings:
    if not isinstance(tree, dict):
        raise UserError(f"{where}: must be a mapping of settings; valid: {_fields()}")
    try:
        return SlurmSettings.model_validate(tree)
    except ValidationError as error:
        raise UserError(validation_messages(error, where, lambda _: list(SlurmSettings.model_fields))) from error


def _fields() -> str:
    return ", ".join(SlurmSettings.model_fields)
