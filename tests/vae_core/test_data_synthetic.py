import csv
import json
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from vae_core.config import DataConfig
from vae_core.data import prepare
from vae_core.data.archetypes import ARCHETYPES
from vae_core.data.near_duplicates import thumbnail
from vae_core.data.synthesize_folder import synthesize_folder
from vae_core.data.synthetic import SyntheticSource, page_tree


def pages(count, seed=0, width=32, channels=1):
    source = SyntheticSource(count=count, seed=seed, width=width, max_height=4096, channels=channels)
    return list(source.items())


def test_a_page_depends_on_seed_and_index_but_not_on_the_count():
    few, many, other = pages(20), pages(40), pages(20, seed=1)
    for a, b in zip(few, many, strict=False):
        assert a.name == b.name
        np.testing.assert_array_equal(a.pixels, b.pixels)
    assert all(
        a.pixels.shape != b.pixels.shape or (a.pixels != b.pixels).any() for a, b in zip(few, other, strict=True)
    )


def test_there_are_fifteen_archetypes_that_take_turns():
    assert len(ARCHETYPES) == 15
    labels = [item.label for item in pages(45)]
    assert {label: labels.count(label) for label in ARCHETYPES} == dict.fromkeys(ARCHETYPES, 3)


def test_heights_are_half_to_twice_the_width_and_reach_both_ends():
    ratios = np.array([item.pixels.shape[1] / item.pixels.shape[2] for item in pages(600, width=64)])
    assert 0.5 <= ratios.min() < 0.6
    assert 1.9 < ratios.max() <= 2.0


@pytest.mark.parametrize("channels", [1, 3])
def test_held_out_pages_are_recognised_by_the_nearest_mean_of_their_archetype(channels):
    items = pages(900, channels=channels)
    features = np.stack([[*thumbnail(i.pixels).ravel(), i.pixels.shape[1] / i.pixels.shape[2]] for i in items])
    labels = np.array([list(ARCHETYPES).index(item.label) for item in items])
    centres = np.stack([features[:600][labels[:600] == label].mean(axis=0) for label in range(15)])
    guess = np.linalg.norm(features[600:, None] - centres, axis=2).argmin(axis=1)
    accuracy = (guess == labels[600:]).mean()
    worst = min((guess == labels[600:])[labels[600:] == label].mean() for label in range(15))
    assert accuracy > 0.7
    assert worst > 0.3


def test_pages_of_one_archetype_differ():
    by_label = defaultdict(list)
    for item in pages(300):
        by_label[item.label].append(item.pixels)
    for label, images in by_label.items():
        assert len({image.shape[1] for image in images}) >= 8, label
        thumbnails = np.stack([thumbnail(image).ravel() for image in images])
        distances = np.abs(thumbnails[:, None] - thumbnails).mean(axis=2)[np.triu_indices(len(images), 1)]
        assert np.median(distances) > 0.02, label


def test_boxes_of_a_page_lie_within_it_and_have_area():
    for index in range(150):
        tree = page_tree(3, index)
        pending = [(tree, 0.0, 0.0)]
        while pending:
            node, left, top = pending.pop()
            box = node["bounds"]
            x, y = left + box["x"], top + box["y"]
            assert box["width"] > 0, (index, node["kind"])
            assert box["height"] > 0, (index, node["kind"])
            assert x > -1, (index, node["kind"])
            assert y > -1, (index, node["kind"])
            assert x + box["width"] < tree["bounds"]["width"] + 1, (index, node["kind"])
            assert y + box["height"] < tree["bounds"]["height"] + 1, (index, node["kind"])
            pending.extend((child, x, y) for child in node["children"])


def test_rgb_pages_are_coloured_by_archetype():
    means = defaultdict(list)
    for item in pages(150, channels=3):
        assert item.pixels.shape[0] == 3
        means[item.label].append(item.pixels.mean(axis=(1, 2)))
    saturation = [np.ptp(np.mean(values, axis=0)) for values in means.values()]
    assert min(saturation) > 4
    hues = np.stack([np.mean(values, axis=0) for values in means.values()])
    assert min(np.linalg.norm(a - b) for i, a in enumerate(hues) for b in hues[:i]) > 2


def test_synthesized_files_give_the_same_data_set_as_the_generator(tmp_path):
    config = DataConfig(count=30, width=48, cache_dir=str(tmp_path / "cache"))
    assert synthesize_folder(config, tmp_path / "out") == 30
    with (tmp_path / "out" / "labels.csv").open(newline="") as file:
        rows = {row["name"]: row["label"] for row in csv.DictReader(file)}
    assert list(rows.values())[:2] == ["home", "contact"]
    direct = prepare(config)
    for source, folder in (("trees", "trees"), ("folder", "images")):
        again = prepare(
            DataConfig(
                source=source,
                path=str(tmp_path / "out" / folder),
                labels=str(tmp_path / "out" / "labels.csv"),
                width=48,
                cache_dir=str(tmp_path / "cache"),
            )
        )
        by_name = {name.split(".")[0]: index for index, name in enumerate(again.names)}
        assert len(again) == len(direct)
        for index, name in enumerate(direct.names):
            np.testing.assert_array_equal(direct.image(index), again.image(by_name[name]))
            assert again.label_names[again.labels[by_name[name]]] == rows[name]


def test_synthesized_colour_images_are_rgb_files_and_trees_are_verbose(tmp_path):
    synthesize_folder(DataConfig(count=10, width=32, channels=3), tmp_path)
    with Image.open(tmp_path / "images" / "home-000000.png") as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.moveaxis(np.asarray(image), 2, 0), pages(1, channels=3)[0].pixels)
    tree = json.loads((tmp_path / "trees" / "home-000000.json").read_text())
    assert tree == page_tree(0, 0)
    assert set(tree["bounds"]) == {"x", "y", "width", "height"}
