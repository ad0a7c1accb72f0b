"""The 2,310 real layouts, where they are at hand."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_core.config import DataConfig
from vae_core.data import prepare
from vae_core.data.paint_folder import paint_folder
from vae_core.data.painting import paint_gray
from vae_core.data.trees import read_layout
from vae_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TREES = Path(os.environ.get("VAE_SWEEP_TEST_DATA", ROOT / "../shared/data")) / "screen-annotation" / "trees"
needs_trees = pytest.mark.skipif(not TREES.is_dir(), reason=f"no layout trees at {TREES}")


@needs_trees
def test_all_real_trees_are_painted_without_a_skip_in_seconds_and_reopened_at_once(tmp_path):
    config = DataConfig(source="trees", path=str(TREES), width=64, trim="content", cache_dir=str(tmp_path))
    start = time.perf_counter()
    dataset = prepare(config)
    assert time.perf_counter() - start < 20  # about 1.3 on an idle core
    start = time.perf_counter()
    assert prepare(config).fingerprint == dataset.fingerprint
    assert time.perf_counter() - start < 0.5  # about 0.03
    assert (len(dataset), dataset.skipped) == (2310, [])
    assert [len(dataset.splits[name]) for name in ("train", "val", "test")] == [1618, 346, 346]
    assert len(np.unique(dataset.sizes[:, 0])) > 90
    assert np.bincount(dataset.groups).max() <= 0.01 * 2310


@needs_trees
def test_a_real_tree_is_painted_as_pixel_by_pixel_at_full_size():
    for path in sorted(TREES.glob("*.json"))[::400]:
        root = json.loads(path.read_text())["root"]
        canvas = np.zeros((2560, 1440))
        pending = [root]
        while pending:
            node = pending.pop()
            left, top, right, bottom = node["bounds"]
            canvas[top:bottom, left:right] += 1
            pending += node["children"]
        expected = canvas.reshape(64, 40, 36, 40).mean(axis=(1, 3)) / canvas.max()
        np.testing.assert_allclose(paint_gray(read_layout(path), 36), expected, atol=1e-12)


@needs_trees
def test_painting_a_folder_writes_both_pictures_of_every_tree_and_a_table(tmp_path):
    names = sorted(path.name for path in TREES.glob("*.json"))[:3]
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in names:
        (tmp_path / "in" / "sub" / name).write_bytes((TREES / name).read_bytes())
    (tmp_path / "in" / "bad.json").write_text("{}")
    summary = paint_folder(tmp_path / "in", tmp_path / "out")
    assert [item.name for item in summary.painted] == [f"sub/{name}" for name in names]
    assert [item.name for item in summary.skipped] == ["bad.json"]
    assert summary.table.read_text().splitlines()[-1].startswith('bad.json,skipped,,,,,"unknown format')
    with Image.open(tmp_path / "out" / "sub" / f"{names[0][:-5]}_linear.png") as image:
        assert image.mode == "L"
        assert image.size == (1440, 2048)
        linear = np.asarray(image) / 255
    with Image.open(tmp_path / "out" / "sub" / f"{names[0][:-5]}_visu.png") as image:
        np.testing.assert_allclose(np.asarray(image) / 255, linear**2, atol=0.005)
    assert len(list((tmp_path / "out").rglob("*"))) == 1 + 1 + 6


def test_painting_refuses_a_missing_folder_an_empty_one_and_a_bad_gamma(tmp_path):
    with pytest.raises(UserError, match="none: is not a folder"):
        paint_folder(tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match=r"holds no file ending in \.json"):
        paint_folder(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="gamma: must be a positive number; got 0"):
        paint_folder(tmp_path, tmp_path / "out", gamma=0)


def test_unpaintable_trees_are_skipped_with_reasons_and_painting_at_large_sizes_is_bounded(tmp_path):
    tree = {"bounds": {"x": 0, "y": 0, "width": 1, "height": 1e9}, "children": []}
    tree["children"] = [{"bounds": {"x": 0, "y": 0, "width": 1, "height": 5e8}}]
    for index in range(4):
        page = {
            "bounds": {"x": 0, "y": 0, "width": 100, "height": 100 + 30 * index},
            "children": tree["children"],
        }
        (tmp_path / f"{index}.json").write_text(json.dumps(page))
    (tmp_path / "tall.json").write_text(json.dumps(tree))
    (tmp_path / "empty.json").write_text("")
    dataset = prepare(
        DataConfig(source="trees", path=str(tmp_path), max_pixels=100_000, cache_dir=str(tmp_path / "cache"))
    )
    reasons = {item.name: item.reason for item in dataset.skipped}
    assert reasons["empty.json"] == "the file is empty"
    assert reasons["tall.json"] == "would have 131072 px, more than data.max_pixels (100000)"
    assert len(dataset) == 4
