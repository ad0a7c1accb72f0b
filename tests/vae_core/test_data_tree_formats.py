import json

import pytest

from vae_core.data.deep_json import _Parser, parse_json
from vae_core.data.layout import LayoutError
from vae_core.data.tree_formats import parse_layout
from vae_core.data.trees import read_layout

EXPECTED = [[0, 0, 100, 200], [10, 0, 60, 80], [15, 10, 35, 40], [70, 150, 100, 200]]

COMPACT = {
    "r": {
        "b": [0, 0, 100, 200],
        "c": [{"b": [10, -20, 50, 100], "c": [{"b": [5, 30, 20, 30]}]}, {"b": [70, 150, 60, 90], "c": []}],
    },
    "w": 100,
    "h": 200,
}


def verbose(x, y, width, height, *children):
    return {"bounds": {"x": x, "y": y, "width": width, "height": height}, "children": list(children)}


def screen(*bounds, children=()):
    return {"bounds": list(bounds), "children": list(children), "class": "View"}


VERBOSE = verbose(0, 0, 100, 200, verbose(10, -20, 50, 100, verbose(5, 30, 20, 30)), verbose(70, 150, 60, 90))
SCREEN = screen(
    300,
    400,
    400,
    600,
    children=[
        screen(310, 380, 360, 480, children=[None, screen(315, 410, 335, 440)]),
        screen(370, 550, 430, 640),
    ],
)


@pytest.mark.parametrize(
    "tree",
    [COMPACT, {"r": COMPACT["r"]}, VERBOSE, {"activity": {"root": SCREEN}}, {"root": SCREEN}],
    ids=["compact", "compact without size", "verbose", "activity.root", "root"],
)
def test_every_format_gives_the_same_boxes_clipped_to_the_canvas(tree):
    layout = parse_layout(tree)
    assert (layout.width, layout.height) == (100, 200)
    assert layout.boxes.tolist() == EXPECTED
    assert layout.screen == ("root" in tree or "activity" in tree)


def test_a_compact_canvas_larger_than_its_root_keeps_the_root_in_its_place():
    layout = parse_layout({"r": {"b": [10, 20, 30, 40], "c": [{"b": [1, 2, 3, 4]}]}, "w": 100, "h": 50})
    assert (layout.width, layout.height) == (100, 50)
    assert layout.boxes.tolist() == [[10, 20, 40, 50], [11, 22, 14, 26]]


def test_boxes_without_area_are_not_painted_but_their_children_are():
    tree = verbose(0, 0, 100, 100, verbose(10, 10, 0, 50, verbose(5, 5, 20, 20)), verbose(50, 50, -20, 10))
    assert parse_layout(tree).boxes.tolist() == [[0, 0, 100, 100], [15, 15, 35, 35]]


def test_an_inverted_absolute_box_is_not_painted():
    tree = {"root": screen(0, 0, 100, 100, children=[screen(50, 50, 20, 80), screen(1, 2, 3, 4)])}
    assert parse_layout(tree).boxes.tolist() == [[0, 0, 100, 100], [1, 2, 3, 4]]


def test_null_children_lists_and_missing_ones_are_leaves():
    tree = {"root": {"bounds": [0, 0, 10, 10], "children": [{"bounds": [1, 1, 5, 5], "children": None}, None]}}
    assert parse_layout(tree).boxes.tolist() == [[0, 0, 10, 10], [1, 1, 5, 5]]


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ([], "the file holds a list, not an object"),
        (3, "the file holds a number"),
        ({}, r"unknown format: .*\(keys: none\)"),
        (
            {"a": 1, "b": 2},
            r"unknown format: no 'r', 'bounds', 'root' or 'activity.root' object \(keys: a, b\)",
        ),
        ({"activity": {"root": None}}, "unknown format"),
        ({"activity": None}, "unknown format"),
        ({"root": {"bounds": [0, 0, 10]}}, "root: 'bounds' must be a list of four numbers; got a list"),
        ({"root": {"children": []}}, "root: 'bounds' must be a list of four numbers; got null"),
        (
            {"root": screen(0, 0, 10, 10, children=[screen(0, "1", 2, 3)])},
            "node 1 below root: 'bounds' .* finite numbers",
        ),
        ({"root": screen(0, 0, 10, float("nan"))}, "finite numbers"),
        ({"root": screen(0, 0, 10, True)}, "finite numbers"),
        ({"root": screen(0, 0, 10, 10**400)}, "finite numbers"),
        ({"root": screen(0, 0, 10, 10, children=["x"])}, "node 1 below root is a string, not an object"),
        ({"root": {"bounds": [0, 0, 9, 9], "children": {}}}, "'children' is an object, not a list"),
        (verbose(0, 0, None, 10), "x, y, width and height of 'bounds' must be finite"),
        ({"r": {"b": [0, 0, 9, 9], "c": []}, "w": "9", "h": 9}, "'w' and 'h' must be finite"),
        ({"r": {"b": [0, 0, 9, 9], "c": []}, "w": 9, "h": 9}, "empty tree"),
        ({"root": screen(5, 5, 5, 5, children=[screen(0, 0, 1, 1)])}, "the root has no area"),
    ],
)
def test_a_tree_that_cannot_be_painted_says_why(tree, reason):
    with pytest.raises(LayoutError, match=reason):
        parse_layout(tree)


def test_a_tree_nested_twenty_thousand_deep_is_read_and_painted(tmp_path):
    depth = 20_000
    text = '{"bounds": {"x": 0, "y": 0, "width": 50, "height": 40}, "children": [' * depth + "]}" * depth
    (tmp_path / "deep.json").write_text(text)
    layout = read_layout(tmp_path / "deep.json")
    assert len(layout.boxes) == depth


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "3",
        '"a"',
        "null",
        " [ 1 , [ ] , { } ] ",
        '{"a": [1.5e3, {"b": "\\u00e9\\n]"}], "c": true}',
        '[[["x"]], {"k": {"k": []}}]',
        '{"a": 1, "a": 2}',
    ],
)
def test_the_deep_parser_agrees_with_the_standard_one(text):
    assert _Parser(text).document() == json.loads(text)


@pytest.mark.parametrize(
    "text", ["", "[", "[1", "[1,", '{"a"', '{"a":', "{1: 2}", "[1 2]", "[] []", '{"a": 1]', "[1}", "{,}"]
)
def test_the_deep_parser_refuses_what_the_standard_one_refuses(text):
    with pytest.raises(ValueError, match="char"):
        json.loads(text)
    with pytest.raises(ValueError, match="char"):
        _Parser(text).document()


def test_the_standard_parser_is_used_where_it_suffices():
    assert parse_json("[1, 2]") == [1, 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not UTF-8 text"),
        (b'{"root": {"bounds": [0, 0, 1', "is not JSON"),
    ],
)
def test_an_unreadable_file_says_why(tmp_path, content, reason):
    (tmp_path / "page.json").write_bytes(content)
    with pytest.raises(LayoutError, match=reason):
        read_layout(tmp_path / "page.json")
