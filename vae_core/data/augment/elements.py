"""Elements of wireframes drawn over an image `(C, h, w)` in [0, 1], in one gray: lines and blocks of text.

They are content: the target shows them too.
"""

import torch
from torch import Tensor

from vae_core.data.augment.draws import happens, uniform, whole


def draw_lines(image: Tensor, key: torch.Generator, *, lines: float) -> Tensor:
    """Draw 1 to 3 lines, horizontal or vertical, a fifth of the side to the whole of it long."""
    if not happens(key, lines):
        return image
    drawn = image.clone()
    for _ in range(whole(key, 1, 3)):
        along = drawn if happens(key, 0.5) else drawn.transpose(1, 2)  # (C, across the line, along the line)
        _, across, length = along.shape
        thickness = whole(key, 1, max(1, min(across, length) // 32))
        span = max(1, round(uniform(key, 0.2, 1) * length))
        start, place = whole(key, 0, length - span), whole(key, 0, max(0, across - thickness))
        along[:, place : place + thickness, start : start + span] = uniform(key, 0, 1)
    return drawn


def draw_text(image: Tensor, key: torch.Generator, *, text_blocks: float) -> Tensor:
    """Draw 1 or 2 blocks of 2 to 6 text lines, a fifth to three fifths of the width wide, ragged on the right."""
    if not happens(key, text_blocks):
        return image
    drawn = image.clone()
    for _ in range(whole(key, 1, 2)):
        _draw_block(drawn, key)
    return drawn


def _draw_block(image: Tensor, key: torch.Generator) -> None:
    _, height, width = image.shape
    tall = max(1, round(uniform(key, 0.01, 0.03) * width))  # px of a text line, and of the gap below it
    wide = max(1, round(uniform(key, 0.2, 0.6) * width))
    top, left = whole(key, 0, height - 1), whole(key, 0, width - wide)
    gray = uniform(key, 0, 1)
    for line in range(whole(key, 2, 6)):
        start = top + 2 * tall * line
        image[:, start : start + tall, left : left + round(uniform(key, 0.5, 1) * wide)] = gray
