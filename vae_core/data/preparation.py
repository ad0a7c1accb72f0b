"""From a data config to a `Dataset`: found in the cache, or built there once for all processes."""

import hashlib
import json
import os
import secrets
import shutil
import socket
from pathlib import Path

from vae_core.config import DataConfig
from vae_core.data.dataset import Dataset
from vae_core.data.opening import open_source
from vae_core.data.packing import FORMAT_VERSION, DamagedError, open_prepared
from vae_core.data.sources import Progress, Source
from vae_core.errors import UserError

# Not part of the cache's key: where things lie, how batches are padded, what happens to images as they are read, and
# which labels training sees.
_NOT_IN_KEY = {"path", "labels", "cache_dir", "pad_multiple", "augment", "labelled_fraction", "unlabelled"}
_ATTEMPTS = 3


def prepare(config: DataConfig, progress: Progress | None = None) -> Dataset:
    """Return the data set that `config` describes, from the cache where it is there and sound.

    Args:
        config: the section `data`.
        progress: called with the stage's name, how many images are done and how many there are.

    Raises:
        UserError: a folder is missing or holds nothing usable, too many images were skipped, a split is
            empty, or the cache cannot be written.
    """
    cache = cache_folder(config)
    source = open_source(config, cache)
    folder = cache / _key(config, source)
    for _ in range(_ATTEMPTS):
        try:
            return open_prepared(folder).cropped(config.augment.crop_height)
        except FileNotFoundError:
            _build_into(folder, config, source, progress or _silent)
        except DamagedError:
            _discard(folder)
    raise UserError(f"{folder}: the prepared data set is damaged again whenever it is rebuilt; check the disk")


def prepared_folder(config: DataConfig) -> Path:
    """Return the folder in the cache that holds the data set which `config` describes, or will hold it."""
    cache = cache_folder(config)
    return cache / _key(config, open_source(config, cache))


def cache_folder(config: DataConfig) -> Path:
    """Return where prepared data sets are kept: data.cache_dir, $VAE_SWEEP_CACHE or ~/.cache/vae-sweep."""
    chosen = config.cache_dir or os.environ.get("VAE_SWEEP_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "vae-sweep"


def _key(config: DataConfig, source: Source) -> str:
    content = [FORMAT_VERSION, config.model_dump(mode="json", exclude=_NOT_IN_KEY), source.stamp()]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{config.source}-{digest[:20]}"


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def _build_into(folder: Path, config: DataConfig, source: Source, progress: Progress) -> None:
    """Build beside `folder` and rename; where another process was faster, its result stands."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        building = _beside(folder, "building")
        building.mkdir()
    except OSError as error:
        raise UserError(
            f"data.cache_dir: {folder.parent} cannot be written ({error.strerror}); set data.cache_dir or "
            "VAE_SWEEP_CACHE to a folder that can"
        ) from error
    # SciPy comes with it, which a process that finds the set prepared does not need.
    from vae_core.data.building import build

    try:
        build(building, config, source, progress)
        building.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _discard(folder: Path) -> None:
    aside = _beside(folder, "damaged")
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another process has just done the same
        return
    shutil.rmtree(aside, ignore_errors=True)


def _beside(folder: Path, purpose: str) -> Path:
    return folder.with_name(f"{folder.name}.{purpose}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes of this machine that no longer live left half built."""
    for left in folder.parent.glob(f"{folder.name}.*-{socket.gethostname()}-*"):
        pid = left.name.split("-")[-2]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
