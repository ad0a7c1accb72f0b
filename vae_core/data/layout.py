"""A page as a flat list of boxes on a canvas, whatever file format it came from.

Letters: N boxes.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.int64]

# Android's navigation bar is 48 dp of a 731 dp high screen: 168 of Rico's 2560 px.
_SYSTEM_BAR = 168 / 2560


class LayoutError(ValueError):
    """A tree that cannot be painted; its text is the reason."""


@dataclass(frozen=True)
class Layout:
    """Boxes in painting order, parents before their children.

    Attributes:
        width: px of the canvas.
        height: px of the canvas.
        boxes: `(N, 4)` int64, left, top, right, bottom in px, clipped to the canvas, none without area.
        kinds: what each box is; N words, empty where the file does not say.
        screen: whether the canvas is a device's screen, whose system bar is not content.
    """

    width: int
    height: int
    boxes: Boxes
    kinds: tuple[str, ...]
    screen: bool = False


def make_layout(size: tuple[float, float], edges: list[tuple[float, ...]], kinds: list[str], screen: bool) -> Layout:
    """Round edges to whole px (halves up), clip them to the canvas and drop boxes without area.

    Args:
        size: width and height of the canvas in px.
        edges: left, top, right, bottom of each node in px, the root first; right < left has no area.
        kinds: a word for each node.
        screen: see `Layout`.

    Raises:
        LayoutError: the canvas has no area, or no element but the root is visible.
    """
    width, height = (int(np.floor(min(side, 2**31) + 0.5)) for side in size)
    if width < 1 or height < 1:
        raise LayoutError(f"the root has no area: {size[0]:g} x {size[1]:g} px")
    limits = np.array([width, height, width, height])
    clipped = np.clip(np.array(edges, dtype=np.float64).reshape(-1, 4), 0, limits)
    boxes = np.floor(clipped + 0.5).astype(np.int64)
    visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if not visible[1:].any():
        raise LayoutError("empty tree: no visible element besides the root")
    kept = np.flatnonzero(visible)
    return Layout(width, height, boxes[kept], tuple(kinds[index] for index in kept), screen)


def trim_to_content(layout: Layout) -> Layout:
    """Crop the canvas below its last element.

    The new height is the lowest bottom of the elements, where an element is any box that is not the whole
    canvas and, on a device's screen, does not begin within the system's navigation bar (the lowest 168/2560
    of the canvas: its back, home and recents buttons stand there whatever the app shows). Without any element
    the canvas is kept.
    """
    boxes = layout.boxes
    whole = (boxes == [0, 0, layout.width, layout.height]).all(axis=1)
    in_system_bar = layout.screen & (boxes[:, 1] >= layout.height * (1 - _SYSTEM_BAR))
    elements = boxes[~whole & ~in_system_bar]
    if len(elements) == 0:
        return layout
    bottom = int(elements[:, 3].max())
    clipped = np.minimum(boxes, [layout.width, bottom, layout.width, bottom])
    kept = np.flatnonzero(clipped[:, 3] > clipped[:, 1])
    return replace(layout, height=bottom, boxes=clipped[kept], kinds=tuple(layout.kinds[i] for i in kept))
