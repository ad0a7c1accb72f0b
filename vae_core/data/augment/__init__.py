"""Augmentation of training images, keyed image by image: no draw depends on batches or on a global generator."""

from vae_core.data.augment.augmenter import Augmenter, augmenter_of
from vae_core.data.augment.registry import AUGMENTATIONS, Augmentation

__all__ = ["AUGMENTATIONS", "Augmentation", "Augmenter", "augmenter_of"]
