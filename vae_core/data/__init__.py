"""Data sets: sources of images, their preparation and splits, and the packed file that training reads."""

from vae_core.data.dataset import Dataset
from vae_core.data.preparation import prepare
from vae_core.data.sources import Skipped

__all__ = ["Dataset", "Skipped", "prepare"]
