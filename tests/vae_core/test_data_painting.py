"""Painting against the plainest implementation: every pixel at full size, then the mean over areas."""

import numpy as np
import pytest
from PIL import Image

from vae_core.data.layout import Layout, LayoutError, make_layout, trim_to_content
from vae_core.data.painting import max_depth, output_height, paint_colour, paint_gray, to_uint8


def layout_of(width, height, boxes, screen=False):
    edges = [(0, 0, width, height), *boxes]
    return make_layout((width, height), edges, ["page"] + ["box"] * len(boxes), screen)


def paint_every_pixel(layout: Layout) -> np.ndarray:
    canvas = np.zeros((layout.height, layout.width))
    for left, top, right, bottom in layout.boxes:
        canvas[top:bottom, left:right] += 1
    return canvas


def average_area(canvas: np.ndarray, height: int, width: int) -> np.ndarray:
    """Repeat every pixel until both sizes divide, then take block means: exact, by another way."""
    fine = np.repeat(np.repeat(canvas, height, axis=0), width, axis=1)
    return fine.reshape(height, canvas.shape[0], width, canvas.shape[1]).mean(axis=(1, 3))


def random_layout(seed: int) -> Layout:
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(5, 60, 2))
    corners = rng.uniform(-20, 80, (int(rng.integers(1, 25)), 4))
    return layout_of(width, height, [(2, 1, 90, 90), *map(tuple, corners)])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("width", [1, 7, 16, 33])
def test_painting_at_any_width_equals_painting_every_pixel_and_averaging(seed, width):
    layout = random_layout(seed)
    canvas = paint_every_pixel(layout)
    expected = average_area(canvas, output_height(layout, width), width) / canvas.max()
    np.testing.assert_allclose(paint_gray(layout, width), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_maximum_depth_is_that_of_the_full_canvas(seed):
    layout = random_layout(seed)
    assert max_depth(layout.boxes) == paint_every_pixel(layout).max()


def test_a_thin_line_still_counts_in_the_maximum_depth_and_in_the_average():
    layout = layout_of(100, 100, [(0, 50, 100, 51)])
    image = paint_gray(layout, 10)
    assert image[5] == pytest.approx(0.5 * (1 + 0.1))
    assert image[4] == pytest.approx(0.5)


def test_many_boxes_are_painted_block_by_block_to_the_same_canvas():
    rng = np.random.default_rng(0)
    left, top = rng.integers(0, 40, (2, 9000))
    boxes = [(x, y, x + 3, y + 2) for x, y in zip(left, top, strict=True)]
    layout = layout_of(50, 50, boxes)
    canvas = paint_every_pixel(layout)
    np.testing.assert_allclose(paint_gray(layout, 50), canvas / canvas.max(), atol=1e-12)


def test_the_middle_rows_are_kept_of_a_tall_page_and_the_depth_of_the_whole_page_counts():
    layout = layout_of(20, 200, [(0, 0, 20, 4), (0, 0, 20, 4), (5, 95, 15, 105)])
    whole = paint_gray(layout, 10)
    np.testing.assert_allclose(paint_gray(layout, 10, max_height=30), whole[35:65], atol=1e-12)
    assert whole.max() == pytest.approx(1.0)


def test_colour_boxes_cover_one_another_and_unknown_kinds_are_not_drawn():
    layout = make_layout((4, 4), [(0, 0, 4, 4), (0, 0, 2, 4), (1, 0, 2, 4), (3, 0, 4, 4)], list("abcz"), False)
    palette = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}
    image = to_uint8(paint_colour(layout, 4, palette))[:, 0].T.tolist()
    assert image == [[0, 255, 0], [0, 0, 255], [255, 0, 0], [255, 0, 0]]
    half = to_uint8(paint_colour(layout, 2, palette))[:, 0].T.tolist()
    assert half == [[0, 128, 128], [255, 0, 0]]


def test_edges_are_rounded_to_whole_pixels_clipped_and_boxes_without_area_dropped():
    layout = make_layout(
        (10.4, 20),
        [(0, 0, 10.4, 20), (0.5, -5, 3.49, 9.5), (4, 4, 4.4, 8), (8, 8, 2, 2)],
        ["a", "b", "c", "d"],
        False,
    )
    assert (layout.width, layout.height, layout.kinds) == (10, 20, ("a", "b"))
    assert layout.boxes.tolist() == [[0, 0, 10, 20], [1, 0, 3, 10]]


@pytest.mark.parametrize(
    ("size", "edges", "reason"),
    [
        ((0, 10), [(0, 0, 0, 10)], "the root has no area: 0 x 10 px"),
        ((-3, 10), [(0, 0, -3, 10)], "the root has no area"),
        ((10, 10), [(0, 0, 10, 10)], "empty tree"),
        ((10, 10), [(0, 0, 10, 10), (20, 20, 30, 30)], "empty tree"),
    ],
)
def test_a_page_with_nothing_to_paint_is_refused_with_the_reason(size, edges, reason):
    with pytest.raises(LayoutError, match=reason):
        make_layout(size, edges, [""] * len(edges), False)


def test_trimming_crops_below_the_last_element_that_is_not_the_whole_canvas():
    layout = layout_of(100, 200, [(0, 0, 100, 200), (10, 10, 50, 60), (10, 70, 50, 90)])
    trimmed = trim_to_content(layout)
    assert (trimmed.width, trimmed.height) == (100, 90)
    assert trimmed.boxes[:, 3].tolist() == [90, 90, 60, 90]


def test_trimming_disregards_buttons_of_the_system_bar_on_screens_alone():
    boxes = [(10, 10, 50, 60), (40, 2420, 60, 2500)]
    assert trim_to_content(layout_of(1440, 2560, boxes, screen=True)).height == 60
    assert trim_to_content(layout_of(1440, 2560, boxes, screen=False)).height == 2500
    assert len(trim_to_content(layout_of(1440, 2560, boxes, screen=True)).boxes) == 2


def test_trimming_keeps_the_canvas_of_a_page_without_elements():
    layout = layout_of(100, 200, [(0, 0, 100, 200)])
    assert trim_to_content(layout).height == 200


def test_painted_pixels_are_what_a_png_reader_sees(tmp_path):
    layout = layout_of(40, 30, [(5, 5, 25, 20), (10, 8, 20, 15)])
    pixels = to_uint8(paint_gray(layout, 40))
    Image.fromarray(pixels).save(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        assert sorted(set(np.asarray(image).ravel().tolist())) == [85, 170, 255]
