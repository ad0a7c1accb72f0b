"""Every augmentation, in the order in which they are applied."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from vae_core.data.augment import corruptions, elements, geometry, photometric
from vae_core.schema.augment import AugmentConfig


@dataclass(frozen=True)
class Augmentation:
    """One way to vary an image.

    Attributes:
        function: takes an image `(C, h, w)` float32 in [0, 1], a generator and the fields of `data.augment` that
            `shown` names, as keywords; returns an image of the same size and never changes the one it got.
        shown: these fields with strengths that a person sees at once; the first one switches the augmentation on.
        input_only: whether the target stays as it is.
    """

    function: Callable[..., Tensor]
    shown: Mapping[str, float | str]
    input_only: bool = False

    @property
    def switch(self) -> str:
        """Return the field that switches it on: its probability, strength or name."""
        return next(iter(self.shown))

    def is_on(self, settings: AugmentConfig) -> bool:
        """Return whether it can change an image."""
        return bool(getattr(settings, self.switch))

    def strengths(self, settings: AugmentConfig) -> dict[str, float | str]:
        """Return its keywords."""
        return {name: getattr(settings, name) for name in self.shown}


# Geometry first, so that elements are drawn straight and noise is never blurred; then elements, so that contrast
# changes them with the page; then brightness and contrast; at last what only the input gets, as the encoder sees it.
AUGMENTATIONS: dict[str, Augmentation] = {
    "resized crop": Augmentation(geometry.resize_crop, {"resized_crop": 1.0, "resized_crop_min_area": 0.3}),
    "horizontal flip": Augmentation(geometry.flip_left_right, {"flip_horizontal": 0.5}),
    "vertical flip": Augmentation(geometry.flip_up_down, {"flip_vertical": 0.5}),
    "perspective": Augmentation(geometry.change_perspective, {"perspective": 1.0, "perspective_distortion": 0.5}),
    "rotation": Augmentation(geometry.rotate, {"rotation_degrees": 20.0}),
    "shift": Augmentation(geometry.move, {"shift": 0.2}),
    "lines": Augmentation(elements.draw_lines, {"lines": 1.0}),
    "text blocks": Augmentation(elements.draw_text, {"text_blocks": 1.0}),
    "AutoAugment": Augmentation(photometric.apply_policy, {"auto_augment": "imagenet"}),
    "brightness jitter": Augmentation(photometric.jitter_brightness, {"brightness_jitter": 0.6}),
    "contrast jitter": Augmentation(photometric.jitter_contrast, {"contrast_jitter": 0.7}),
    "Gaussian noise": Augmentation(corruptions.add_gaussian_noise, {"gaussian_noise": 0.2}, input_only=True),
    "uniform noise": Augmentation(corruptions.add_uniform_noise, {"uniform_noise": 0.3}, input_only=True),
    "erasing": Augmentation(
        corruptions.erase_rectangle,
        {"erase": 1.0, "erase_min_area": 0.1, "erase_max_area": 0.2, "erase_value": 0.5},
        input_only=True,
    ),
    "salt and pepper": Augmentation(
        corruptions.sprinkle, {"salt_pepper": 1.0, "salt_pepper_share": 0.08}, input_only=True
    ),
}
