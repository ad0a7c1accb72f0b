"""The embedded data set: pages of 15 archetypes, generated as layout trees and painted like any other."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from vae_core.data.archetypes import ARCHETYPES
from vae_core.data.layout import Layout
from vae_core.data.page_parts import PAGE_WIDTH, Box, Draw, Rect
from vae_core.data.painting import Colour, paint_colour, paint_gray, to_uint8
from vae_core.data.palettes import palette
from vae_core.data.sources import Item, Pixels, with_channels
from vae_core.data.tree_formats import parse_layout
from vae_core.random_streams import numpy_generator

GENERATOR_VERSION = 1
_NAMES = tuple(ARCHETYPES)


def page_label(index: int) -> str:
    """Return the archetype of the page at `index`: they take turns."""
    return _NAMES[index % len(_NAMES)]


def page_name(index: int) -> str:
    """Return the name of the page at `index`, such as home-000015."""
    return f"{page_label(index)}-{index:06d}"


def page_tree(seed: int, index: int) -> dict[str, Any]:
    """Return the page at `index` of the set with this seed, as a tree in the verbose format."""
    archetype = ARCHETYPES[page_label(index)]
    draw = Draw(numpy_generator("synthetic", GENERATOR_VERSION, seed, index))
    height = float(round(PAGE_WIDTH * draw.number(*archetype.heights)))
    page = Box("page", Rect(0, 0, PAGE_WIDTH, height))
    archetype.fill(page, draw)
    return page.tree()


@cache
def _palette(label: str) -> dict[str, Colour]:
    return palette(_NAMES.index(label), len(_NAMES))


def paint_page(layout: Layout, label: str, width: int, max_height: int | None, channels: int) -> Pixels:
    """Return the page as `(C, H, W)` uint8: additive gray, or RGB in the palette of its archetype."""
    if channels == 3:
        return to_uint8(paint_colour(layout, width, _palette(label), max_height))
    return with_channels(to_uint8(paint_gray(layout, width, max_height)), 1)


class SyntheticSource:
    """`count` generated pages; the page at an index does not depend on `count`."""

    def __init__(self, *, count: int, seed: int, width: int, max_height: int, channels: int) -> None:
        self.label_names: tuple[str, ...] | None = _NAMES
        self._count, self._seed = count, seed
        self._width, self._max_height, self._channels = width, max_height, channels

    def __len__(self) -> int:
        return self._count

    def stamp(self) -> object:
        """Return the version of the generator."""
        return GENERATOR_VERSION

    def items(self) -> Iterator[Item]:
        """Yield the pages in order of their index."""
        for index in range(self._count):
            label = page_label(index)
            layout = parse_layout(page_tree(self._seed, index))
            pixels = paint_page(layout, label, self._width, self._max_height, self._channels)
            yield Item(page_name(index), pixels, label)
