"""Files that appear whole or not at all."""

import io
import os
import secrets
from pathlib import Path

from PIL import Image

from vae_core.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write the file, and the folders above it, by way of a temporary file beside it.

    Raises:
        UserError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error


def write_png(path: Path, image: Image.Image) -> None:
    """Write the image as a PNG file; see `write_atomically`."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_atomically(path, content.getvalue())
