"""What synthetic pages are put together from: boxes, random choices, and the usual blocks of a web page.

All sizes are px of a page `PAGE_WIDTH` wide. Boxes are relative to their parent, as in the verbose format.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

PAGE_WIDTH = 1200


class Draw:
    """Random choices of one page, all from one generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def number(self, low: float, high: float) -> float:
        """Return a number, uniform in [low, high)."""
        return float(self._generator.uniform(low, high))

    def count(self, low: int, high: int) -> int:
        """Return a whole number, uniform in low..high, both included."""
        return int(self._generator.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return bool(self._generator.random() < probability)


class Rect(NamedTuple):
    """A rectangle within a box."""

    x: float
    y: float
    w: float
    h: float

    def inset(self, dx: float, dy: float | None = None) -> "Rect":
        """Return the rectangle without a margin of dx left and right, dy (default dx) above and below."""
        dy = dx if dy is None else dy
        return Rect(self.x + dx, self.y + dy, max(self.w - 2 * dx, 0), max(self.h - 2 * dy, 0))

    def split_x(self, share: float, gap: float) -> tuple["Rect", "Rect"]:
        """Return a left part of `share` of the width and the right rest, `gap` px apart."""
        left = (self.w - gap) * share
        right = Rect(self.x + left + gap, self.y, self.w - left - gap, self.h)
        return Rect(self.x, self.y, left, self.h), right

    def split_y(self, height: float, gap: float = 0) -> tuple["Rect", "Rect"]:
        """Return an upper part of `height` px (at most all) and the lower rest."""
        upper = min(height, self.h)
        return Rect(self.x, self.y, self.w, upper), Rect(
            self.x, self.y + upper + gap, self.w, max(self.h - upper - gap, 0)
        )

    def grid(self, columns: int, rows: int, gap: float) -> Iterator["Rect"]:
        """Yield the cells of a grid, row by row."""
        width, height = (self.w - gap * (columns - 1)) / columns, (self.h - gap * (rows - 1)) / rows
        for row in range(rows):
            for column in range(columns):
                yield Rect(self.x + column * (width + gap), self.y + row * (height + gap), width, height)


@dataclass
class Box:
    """A node of the tree: its kind, its place in its parent and its children."""

    kind: str
    rect: Rect
    children: list["Box"] = field(default_factory=list)

    def add(self, kind: str, rect: Rect) -> "Box":
        """Add a child with a place relative to this box and return it."""
        child = Box(kind, rect)
        self.children.append(child)
        return child

    @property
    def inside(self) -> Rect:
        """Return the whole of this box in its own coordinates."""
        return Rect(0, 0, self.rect.w, self.rect.h)

    def tree(self) -> dict[str, Any]:
        """Return the box and all below it in the verbose format."""
        x, y, w, h = (round(value, 1) for value in self.rect)
        return {
            "kind": self.kind,
            "bounds": {"x": x, "y": y, "width": w, "height": h},
            "children": [child.tree() for child in self.children],
        }


def lines(box: Box, draw: Draw, rect: Rect, height: float = 18, gap: float = 16) -> None:
    """Fill the rectangle with ragged lines of text; the last line is short."""
    count = max(1, int((rect.h + gap) // (height + gap)))
    for row in range(count):
        share = draw.number(0.35, 0.7) if row == count - 1 and count > 1 else draw.number(0.85, 1.0)
        box.add("text", Rect(rect.x, rect.y + row * (height + gap), rect.w * share, min(height, rect.h)))


def header(page: Box, draw: Draw) -> Rect:
    """Add a navigation bar with logo, items and sometimes a button; return the page below it."""
    bar_rect, rest = page.inside.split_y(draw.number(70, 125))
    bar = page.add("header", bar_rect)
    inner = bar.inside.inset(draw.number(20, 70), bar_rect.h * 0.26)
    bar.add("logo", Rect(inner.x, inner.y, draw.number(90, 190), inner.h))
    right = inner.x + inner.w
    if draw.chance(0.6):
        width = draw.number(90, 150)
        bar.add("button", Rect(right - width, inner.y, width, inner.h))
        right -= width + 40
    width, gap = draw.number(60, 95), draw.number(25, 45)
    for item in range(draw.count(2, 6)):
        left = right - (item + 1) * (width + gap)
        bar.add("text", Rect(left, inner.y + inner.h * 0.25, width, inner.h * 0.5))
    return rest


def footer(page: Box, draw: Draw, rest: Rect, probability: float = 0.75) -> Rect:
    """Perhaps add a footer with columns of links at the foot of `rest`; return what is left above it."""
    height = min(draw.number(90, 240), rest.h * 0.25)
    if not draw.chance(probability):
        return rest
    body, foot_rect = rest.split_y(rest.h - height)
    foot = page.add("footer", foot_rect)
    columns = draw.count(2, 5)
    for cell in foot.inside.inset(70, height * 0.18).grid(columns, 1, 60):
        lines(foot, draw, Rect(cell.x, cell.y, cell.w * draw.number(0.5, 0.9), cell.h), 16, 14)
    return body


def card(parent: Box, draw: Draw, rect: Rect, picture: float) -> Box:
    """Add a card: a picture over the upper share, a title and some lines below."""
    box = parent.add("card", rect)
    pad = min(rect.w, rect.h) * 0.06
    upper, lower = box.inside.inset(pad).split_y((rect.h - 2 * pad) * picture, pad * 1.5)
    if picture > 0:
        box.add("image", upper)
    title, rest = lower.split_y(min(26, lower.h * 0.3), 14)
    box.add("title", Rect(title.x, title.y, title.w * draw.number(0.5, 0.9), title.h))
    if rest.h > 12:
        lines(box, draw, rest, 14, 13)
    return box


def cards(parent: Box, draw: Draw, rect: Rect, columns: int, picture: float, row_height: float) -> None:
    """Fill the rectangle with rows of cards, each about `row_height` px high."""
    gap = draw.number(20, 40)
    for cell in rect.grid(columns, max(1, round(rect.h / row_height)), gap):
        card(parent, draw, cell, picture)


def heading(parent: Box, draw: Draw, rect: Rect, centred: bool = False) -> Rect:
    """Add a title at the top of the rectangle and return what is below it."""
    upper, rest = rect.split_y(draw.number(34, 60), draw.number(22, 40))
    width = upper.w * draw.number(0.3, 0.6)
    parent.add("title", Rect(upper.x + (upper.w - width) / 2 * centred, upper.y, width, upper.h))
    return rest


def form(parent: Box, draw: Draw, rect: Rect, fields: int, button_share: float) -> None:
    """Fill the rectangle with labelled fields, one below the other, and a button."""
    row = rect.h / (fields + 1)
    for index in range(fields):
        top = rect.y + index * row
        parent.add("text", Rect(rect.x, top, rect.w * draw.number(0.18, 0.4), row * 0.18))
        parent.add("field", Rect(rect.x, top + row * 0.28, rect.w, row * 0.52))
    parent.add("button", Rect(rect.x, rect.y + fields * row + row * 0.2, rect.w * button_share, row * 0.6))


def table(parent: Box, draw: Draw, rect: Rect, row_height: float) -> None:
    """Fill the rectangle with a table: a head and rows of cells."""
    box = parent.add("panel", rect)
    columns = draw.count(3, 6)
    count = max(2, int(rect.h // row_height))
    for index, row in enumerate(box.inside.inset(12).grid(1, count, 6)):
        line = box.add("table_head" if index == 0 else "row", row)
        for cell in line.inside.inset(14, row.h * 0.3).grid(columns, 1, 24):
            line.add("text", Rect(cell.x, cell.y, cell.w * draw.number(0.4, 0.95), cell.h))
