"""Pictures as MLflow's image grid and its step slider expect them: named after key, step and time, with a thumbnail.

The names follow `mlflow.MlflowClient.log_image` of MLflow 3, whose random part is a hash here: the same picture sent
again is the same file.
"""

import io
import re
import uuid
from pathlib import Path

LOGGED_IMAGES = "mlflow.loggedImages"  # the tag that makes MLflow's pages look for pictures
_FOLDER = "images"
_PICTURE = re.compile(r"(images/.+\+step\+\d+)\+timestamp\+\d+\+[0-9a-f-]{36}(\.png|\+compressed\.webp)")
_THUMBNAIL = 256  # px, the longer side
_NAMES = uuid.UUID("6f1d3f5e-53a5-4c5c-9d8c-4f7c3d5b7a10")  # of this project's pictures; any constant would do


def image_name(run_id: str, key: str, step: int, time_ms: int) -> str:
    """Return where MLflow looks for the picture `key` of a run at `step`."""
    identity = uuid.uuid5(_NAMES, f"{run_id}/{key}/{step}")
    return f"{_FOLDER}/{key.replace('/', '~')}+step+{step}+timestamp+{time_ms}+{identity}.png"


def thumbnail_name(image: str) -> str:
    """Return where MLflow looks for the thumbnail of a picture."""
    return f"{image.removesuffix('.png')}+compressed.webp"


def same_picture(name: str) -> tuple[str, str] | None:
    """Return what two names of one picture share: key and step, and its kind; None: no name of a picture."""
    match = _PICTURE.fullmatch(name)
    return None if match is None else (match[1], match[2])


def thumbnail(path: Path) -> bytes | None:
    """Return the picture at `path` as WebP, its longer side scaled to 256 px; None: the file is no picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        opened = Image.open(path)
    except UnidentifiedImageError:
        return None
    with opened as picture:
        scale = _THUMBNAIL / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        content = io.BytesIO()
        picture.convert("RGB").resize(size).save(content, "WEBP", quality=90)
    return content.getvalue()
