"""Decoding PNG and JPEG files and bringing them to size.

Letters: C channels, H and W height and width in px.
"""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vae_core.data.area import area_weights
from vae_core.data.sources import Pixels

_DEEP_GRAY = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class ImageError(ValueError):
    """An image that cannot be used; its text is the reason."""


def read_image(path: Path, *, channels: int, width: int, max_height: int, max_pixels: int) -> Pixels:
    """Read an image as `(C, H, W)` uint8 at `width` px, upright as EXIF says, transparency over white.

    Raises:
        ImageError: empty, corrupt, truncated, neither PNG nor JPEG, or larger than `max_pixels`.
    """
    try:
        with warnings.catch_warnings():
            # Its two thresholds are Pillow's own; the size is checked here, before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Damaged metadata only: the pixels are sound, or decoding them raises.
            warnings.simplefilter("ignore", UserWarning)
            return _decode(path, channels, width, max_height, max_pixels)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        reason = "is neither a PNG nor a JPEG image" if path.stat().st_size else "the file is empty"
        raise ImageError(reason) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"is too large ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ImageError(f"cannot be decoded ({error})") from error


def _decode(path: Path, channels: int, width: int, max_height: int, max_pixels: int) -> Pixels:
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        size = image.width * image.height
        if size > max_pixels:
            raise ImageError(
                f"has {image.width} x {image.height} = {size} px, more than data.max_pixels ({max_pixels})"
            )
        upright = ImageOps.exif_transpose(image)
        plain = _flatten(upright, "L" if channels == 1 else "RGB")
    return resize(plain, width, max_height, max_pixels)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Return the image as 8-bit gray ("L") or "RGB", transparency over white, 16-bit gray divided by 257."""
    if image.mode in _DEEP_GRAY:
        values = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return image.convert(mode)


def resize(image: Image.Image, width: int, max_height: int, max_pixels: int) -> Pixels:
    """Return an "L" or "RGB" image as `(C, H, W)` uint8: `width` px wide, aspect kept, middle rows only.

    Shrinking averages exactly over the area of each pixel, enlarging is bilinear.

    Raises:
        ImageError: the result would have more than `max_pixels`.
    """
    height = max(1, int(np.floor(image.height * width / image.width + 0.5)))
    count = min(height, max_height)
    first = (height - count) // 2
    if width * count > max_pixels:
        raise ImageError(f"would have {width} x {count} px, more than data.max_pixels ({max_pixels})")
    if width > image.width:
        scale = image.height / height
        box = (0, first * scale, image.width, (first + count) * scale)
        image = image.resize((width, count), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image)
    pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)  # (C, H, W)
    if pixels.shape[1:] == (count, width):
        return np.ascontiguousarray(pixels)
    rows = area_weights(image.height, height, first, count)
    columns = area_weights(image.width, width)
    planes = [rows @ (plane @ columns.T) for plane in pixels]
    whole: Pixels = np.floor(np.clip(np.stack(planes), 0, 255) + 0.5).astype(np.uint8)
    return whole
