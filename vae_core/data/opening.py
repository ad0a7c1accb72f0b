"""Which class reads which `data.source`; each with its imports, of which a process pays for one."""

from pathlib import Path

from vae_core.config import DataConfig
from vae_core.data.sources import Source


def open_source(config: DataConfig, cache: Path) -> Source:
    """Return the source that `config` names; `cache` is where torchvision may put what it downloads.

    Raises:
        UserError: data.path is missing, is not a folder, or holds nothing to read.
    """
    width, max_height, channels = config.width, config.max_height, config.channels
    match config.source:
        case "synthetic":
            from vae_core.data.synthetic import SyntheticSource

            return SyntheticSource(
                count=config.count,
                seed=config.synthetic_seed,
                width=width,
                max_height=max_height,
                channels=channels,
            )
        case "trees":
            from vae_core.data.trees import TreeSource

            return TreeSource(
                path=config.path,
                labels=config.labels,
                width=width,
                max_height=max_height,
                max_pixels=config.max_pixels,
                trim=config.trim == "content",
                channels=channels,
            )
        case "folder":
            from vae_core.data.folder import FolderSource

            return FolderSource(
                path=config.path,
                labels=config.labels,
                width=width,
                max_height=max_height,
                max_pixels=config.max_pixels,
                channels=channels,
            )
        case _:
            from vae_core.data.idx import IdxSource

            return IdxSource(
                source=config.source,
                path=config.path,
                default_root=cache / "torchvision",
                width=width,
                max_height=max_height,
                channels=channels,
            )
