"""The JSON formats of layout trees, read into a `Layout`.

compact   {"r": {"b": [x, y, w, h], "c": [...]}, "w": ..., "h": ...}, boxes relative to the parent
verbose   {"bounds": {"x", "y", "width", "height"}, "children": [...]}, boxes relative to the parent
screen    {"activity": {"root": {"bounds": [x1, y1, x2, y2], "children": [...]}}} or {"root": {...}}, absolute
          boxes, as in Rico; a root off the origin (a dialog) becomes the corner of the canvas

In all of them a child may be null, places may be negative, and a box without positive sides is not painted.
"""

import math
from collections.abc import Callable
from typing import Any

from vae_core.data.layout import Layout, LayoutError, make_layout

_Numbers = tuple[float, float, float, float]


def parse_layout(tree: object) -> Layout:
    """Read a decoded JSON tree of any of the three formats.

    Raises:
        LayoutError: an unknown format, a box that is not four finite numbers, or nothing to paint.
    """
    if not isinstance(tree, dict):
        raise LayoutError(f"unknown format: the file holds {_name(tree)}, not an object")
    if isinstance(tree.get("r"), dict):
        return _compact(tree)
    if isinstance(tree.get("bounds"), dict):
        return _verbose(tree)
    activity = tree.get("activity")
    root = activity.get("root") if isinstance(activity, dict) else tree.get("root")
    if isinstance(root, dict):
        return _screen(root)
    keys = ", ".join(sorted(map(str, tree))[:5]) or "none"
    raise LayoutError(f"unknown format: no 'r', 'bounds', 'root' or 'activity.root' object (keys: {keys})")


def _compact(tree: dict[str, Any]) -> Layout:
    edges, kinds = _walk(tree["r"], "r", "c", lambda node: _array(node, "b"), relative=True)
    left, top, right, bottom = edges[0]
    if "w" not in tree and "h" not in tree:
        return make_layout((right - left, bottom - top), _shift(edges, left, top), kinds, screen=False)
    size = _four([tree.get("w"), tree.get("h"), 0, 0], "'w' and 'h'")
    return make_layout(size[:2], edges, kinds, screen=False)


def _verbose(tree: dict[str, Any]) -> Layout:
    edges, kinds = _walk(tree, "the root", "children", _object, relative=True)
    left, top, right, bottom = edges[0]
    return make_layout((right - left, bottom - top), _shift(edges, left, top), kinds, screen=False)


def _screen(root: dict[str, Any]) -> Layout:
    edges, kinds = _walk(root, "root", "children", lambda node: _array(node, "bounds"), relative=False)
    left, top, right, bottom = edges[0]
    return make_layout((right - left, bottom - top), _shift(edges, left, top), kinds, screen=True)


def _shift(edges: list[tuple[float, ...]], left: float, top: float) -> list[tuple[float, ...]]:
    return [(a - left, b - top, c - left, d - top) for a, b, c, d in edges]


def _walk(
    root: dict[str, Any], where: str, children: str, box: Callable[[dict[str, Any]], _Numbers], relative: bool
) -> tuple[list[tuple[float, ...]], list[str]]:
    """Return the absolute edges and the kind of every node, parents first; with a stack, for any depth."""
    edges: list[tuple[float, ...]] = []
    kinds: list[str] = []
    pending: list[tuple[Any, float, float]] = [(root, 0.0, 0.0)]
    while pending:
        node, left, top = pending.pop()
        if node is None:
            continue
        place = where if not edges else f"node {len(edges)} below {where}"
        if not isinstance(node, dict):
            raise LayoutError(f"{place} is {_name(node)}, not an object")
        try:
            x, y, third, fourth = box(node)
        except LayoutError as error:
            raise LayoutError(f"{place}: {error}") from error
        if relative:
            x, y = left + x, top + y
            third, fourth = x + third, y + fourth
        edges.append((x, y, third, fourth))
        kind = node.get("kind", node.get("class", ""))
        kinds.append(kind if isinstance(kind, str) else "")
        below = node.get(children)
        if below is not None and not isinstance(below, list):
            raise LayoutError(f"{place}: {children!r} is {_name(below)}, not a list")
        pending.extend((child, x, y) for child in reversed(below or []))
    return edges, kinds


def _array(node: dict[str, Any], key: str) -> _Numbers:
    value = node.get(key)
    if not isinstance(value, list) or len(value) != 4:
        raise LayoutError(f"{key!r} must be a list of four numbers; got {_name(value)}")
    return _four(value, f"{key!r}")


def _object(node: dict[str, Any]) -> _Numbers:
    value = node.get("bounds")
    if not isinstance(value, dict):
        raise LayoutError(f"'bounds' must hold x, y, width and height; got {_name(value)}")
    values = [value.get(key) for key in ("x", "y", "width", "height")]
    return _four(values, "x, y, width and height of 'bounds'")


def _four(values: list[Any], what: str) -> _Numbers:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise LayoutError(f"{what} must be finite numbers; got {str(values)[:80]}")
    a, b, c, d = (float(value) for value in values)
    return a, b, c, d


def _finite(value: float) -> bool:
    return abs(value) < 1e15 and math.isfinite(value)


def _name(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
