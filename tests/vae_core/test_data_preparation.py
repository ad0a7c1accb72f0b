import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_core.config import DataConfig, RunConfig, identity
from vae_core.data import prepare
from vae_core.data.files import list_files
from vae_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    rng = np.random.default_rng(0)
    for index in range(30):
        target = path / f"label{index % 3}" / f"{index:02d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shape = (int(rng.integers(20, 60)), 32)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(target)
    return path


def of(folder, **changes):
    return DataConfig(**({"source": "folder", "path": str(folder), "width": 32} | changes))


def same(a, b):
    return a.fingerprint == b.fingerprint and all(
        np.array_equal(a.image(index), b.image(index)) for index in range(len(a))
    )


def entries(cache):
    return sorted(path.name for path in cache.iterdir())


def test_what_is_prepared_is_what_the_files_hold(folder):
    dataset = prepare(of(folder))
    assert len(dataset) == 30
    for index, name in enumerate(dataset.names):
        with Image.open(folder / name) as image:
            np.testing.assert_array_equal(dataset.image(index)[0], np.asarray(image))
        assert dataset.image(index).shape == (1, *dataset.sizes[index])
        assert dataset.label_names[dataset.labels[index]] == name.split("/")[0]
    assert not dataset.image(0).flags.writeable
    assert type(dataset.image(0)) is np.ndarray


def test_splits_are_disjoint_cover_everything_and_keep_near_duplicates_together(folder):
    with Image.open(folder / "label0" / "00.png") as image:
        pixels = np.asarray(image)
    for copy in range(5):
        Image.fromarray(np.clip(pixels.astype(int) + copy % 2, 0, 255).astype(np.uint8)).save(
            folder / f"copy{copy}.png"
        )
    for seed in range(6):
        dataset = prepare(of(folder, split_seed=seed))
        together = np.concatenate(list(dataset.splits.values()))
        assert sorted(together.tolist()) == list(range(35))
        assert all((np.diff(indices) > 0).all() for indices in dataset.splits.values())
        copies = {i for i, name in enumerate(dataset.names) if name.startswith("copy") or name.endswith("/00.png")}
        assert [len(copies & set(indices.tolist())) for indices in dataset.splits.values()].count(0) == 2
        assert len(set(dataset.groups[list(copies)].tolist())) == 1
    assert dataset.describe()["near_duplicates"] == {"groups": 1, "images": 6, "largest_group": 6}


def test_the_fingerprint_changes_with_a_pixel_a_label_or_the_split_but_not_with_names_or_place(folder, tmp_path):
    first = prepare(of(folder))
    assert prepare(of(folder, split_seed=1)).fingerprint != first.fingerprint
    assert prepare(of(folder, val_fraction=0.2)).fingerprint != first.fingerprint
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in first.names:
        target = moved / name.replace("/", "/renamed-")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((folder / name).read_bytes())
    again = prepare(of(moved))
    assert again.names != first.names
    assert again.fingerprint == first.fingerprint
    assert again.split_hashes == first.split_hashes
    relabelled = tmp_path / "labels.csv"
    relabelled.write_text("name,label\n" + "".join(f"{name},other\n" for name in first.names))
    assert prepare(of(folder, labels=str(relabelled))).fingerprint != first.fingerprint
    pixels = first.image(4)[0].copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(folder / first.names[4])
    changed = prepare(of(folder))
    assert changed.fingerprint != first.fingerprint
    assert changed.image(4)[0, 0, 0] == pixels[0, 0]


def test_a_prepared_set_is_found_again_without_reading_the_source(folder, cache, monkeypatch):
    first = prepare(of(folder))
    monkeypatch.setattr("vae_core.data.folder.read_image", None)
    stages = []
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        again = prepare(of(folder, pad_multiple=8), progress=lambda *stage: stages.append(stage))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1
    assert stages == []
    assert same(first, again)
    assert len(entries(cache)) == 1
    assert again.describe() == first.describe()


def test_a_changed_source_is_read_again_even_if_only_its_time_changed(folder):
    prepare(of(folder))
    os.utime(folder / "label0" / "00.png", ns=(1, 1))
    stages = []
    prepare(of(folder), progress=lambda *stage: stages.append(stage))
    assert ("reading images", 30, 30) in stages


def test_the_key_holds_every_field_of_the_identity_that_changes_the_set(folder, cache):
    changes = [
        {"channels": 3},
        {"width": 16},
        {"max_height": 30},
        {"limit": 20},
        {"split_seed": 1},
        {"max_skipped": 1},
        {"near_duplicate_tolerance": 0.1},
        {"val_fraction": 0.3},
        {"test_fraction": 0.3},
        {"max_pixels": 10**6},
    ]
    for change in changes:
        prepare(of(folder, **change))
    assert len(entries(cache)) == len(changes)
    unkeyed = {"pad_multiple", "augment", "labelled_fraction", "unlabelled"}
    keyed = set(identity(RunConfig())["data"]) - unkeyed | {"max_skipped", "max_pixels"}
    assert {name for change in changes for name in change} | {
        "source",
        "count",
        "synthetic_seed",
        "trim",
    } == keyed


@pytest.mark.parametrize("name", ["meta.json", "index.npy", "pixels.u8"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_a_damaged_entry_is_rebuilt(folder, cache, name, damage):
    first = prepare(of(folder))
    pixels = [first.image(index).copy() for index in range(30)]
    (entry,) = cache.iterdir()
    path = entry / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "remove":
        path.write_bytes({"flip": bytes(content), "cut": bytes(content[:-3]), "empty": b""}[damage])
    again = prepare(of(folder))
    assert again.fingerprint == first.fingerprint
    assert all(np.array_equal(again.image(index), pixels[index]) for index in range(30))
    assert entries(cache) == [entry.name]


def test_what_a_killed_process_left_half_built_is_removed(folder, cache):
    prepare(of(folder))
    (entry,) = cache.iterdir()
    entry.rename(cache / "moved")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    import socket

    (cache / f"{entry.name}.building-{socket.gethostname()}-{process.pid}-00").mkdir()
    (cache / f"{entry.name}.building-{socket.gethostname()}-{os.getpid()}-00").mkdir()
    prepare(of(folder))
    assert entries(cache) == sorted(
        [entry.name, "moved", f"{entry.name}.building-{socket.gethostname()}-{os.getpid()}-00"]
    )


def test_a_failed_build_leaves_nothing_in_the_cache(folder, cache):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(UserError, match="holds no usable image"):
        prepare(of(folder))
    assert entries(cache) == []


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache_dir: .*file cannot be written .*VAE_SWEEP_CACHE"):
        prepare(of(folder, cache_dir=str(tmp_path / "file")))


def test_the_config_names_the_cache_before_the_environment_and_that_before_the_home(tmp_path, cache, monkeypatch):
    small = DataConfig(count=30, width=8)
    prepare(small)
    assert len(entries(cache)) == 1
    prepare(small.model_copy(update={"cache_dir": str(tmp_path / "chosen")}))
    assert entries(tmp_path / "chosen") == entries(cache)
    monkeypatch.delenv("VAE_SWEEP_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    prepare(small)
    assert entries(tmp_path / "home" / ".cache" / "vae-sweep") == entries(cache)


SCRIPT = """
import json, sys
from vae_core.config import DataConfig
from vae_core.data import prepare
dataset = prepare(DataConfig(**json.loads(sys.argv[1])))
print(json.dumps([dataset.fingerprint, int(sum(dataset.image(i).sum() for i in range(len(dataset))))]))
"""


def in_processes(configs):
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(config)], cwd=ROOT, stdout=subprocess.PIPE)
        for config in configs
    ]
    return [json.loads(process.communicate(timeout=120)[0]) for process in processes]


def test_processes_that_build_at_once_all_get_the_same_set_and_one_entry_stays(folder, cache):
    config = {"source": "folder", "path": str(folder), "width": 32}
    results = in_processes([config] * 2)
    dataset = prepare(DataConfig(**config))
    total = int(sum(dataset.image(index).sum() for index in range(30)))
    assert results == [[dataset.fingerprint, total]] * 2
    assert len(entries(cache)) == 1


def test_a_build_that_loses_the_race_takes_the_winners_result(folder, cache, monkeypatch):
    from vae_core.data import building

    build = building.build

    def slow(target, config, source, progress):
        build(target, config, source, progress)
        monkeypatch.setattr(building, "build", build)
        winners.append(prepare(of(folder)))

    winners = []
    monkeypatch.setattr(building, "build", slow)
    assert same(prepare(of(folder)), winners[0])
    assert len(entries(cache)) == 1


def test_the_set_is_the_same_in_every_process_and_cache(tmp_path):
    configs = [{"count": 40, "width": 16, "cache_dir": str(tmp_path / str(number))} for number in range(2)]
    first, second = in_processes(configs)
    assert first == second
    assert first[0] == prepare(DataConfig(**configs[0])).fingerprint


def test_files_are_listed_in_one_order_whatever_the_disk_says(folder, monkeypatch):
    walk = os.walk
    expected = list_files(folder, (".png",), "")

    def backwards(*args, **kwargs):
        for parent, folders, files in walk(*args, **kwargs):
            folders.sort(reverse=True)
            yield parent, folders, sorted(files, reverse=True)

    monkeypatch.setattr("vae_core.data.files.os.walk", backwards)
    assert list_files(folder, (".png",), "") == expected == sorted(expected)


def test_a_limit_takes_the_smallest_hashes_and_so_depends_on_no_name(folder):
    all_images = prepare(of(folder))
    few = prepare(of(folder, limit=12))
    assert len(few) == 12
    assert set(few.names) < set(all_images.names)
    for path in sorted(folder.rglob("*.png")):
        path.rename(path.with_name(f"{100 - int(path.stem)}.png"))
    renamed = prepare(of(folder, limit=12))
    assert renamed.split_hashes == few.split_hashes


def test_splits_and_their_hashes_stand_for_their_contents(folder):
    first, other = prepare(of(folder)), prepare(of(folder, split_seed=3))
    assert set(first.split_hashes) == {"train", "val", "test"}
    assert first.split_hashes["test"] != other.split_hashes["test"]
    assert {name: len(indices) for name, indices in first.splits.items()} == {
        "train": 22,
        "val": 4,
        "test": 4,
    }


def test_the_description_can_be_written_as_json_and_counts_right(folder):
    description = prepare(of(folder)).describe()
    assert json.loads(json.dumps(description)) == description
    assert description["images"] == 30
    assert sum(split["images"] for split in description["splits"].values()) == 30
    assert sum(sum(split["labels"].values()) for split in description["splits"].values()) == 30
    assert description["widths_px"] == {"min": 32, "median": 32, "max": 32, "distinct": 1}


def test_too_few_images_are_refused_with_the_counts(folder):
    for path in sorted(folder.rglob("*.png"))[2:]:
        path.unlink()
    with pytest.raises(UserError, match="2 images gave train 0, val 1, test 1"):
        prepare(of(folder))


def test_a_packed_file_of_many_chunks_is_checked_at_its_ends_and_between(cache, monkeypatch):
    monkeypatch.setattr("vae_core.data.packing._CHUNK", 256)
    config = DataConfig(count=60, width=32)
    fingerprint = prepare(config).fingerprint
    (entry,) = cache.iterdir()
    sound = (entry / "pixels.u8").read_bytes()
    assert len(sound) > 100 * 256
    middle = round((len(sound) // 256) / 15) * 256
    for place in (0, middle, len(sound) - 1):
        damaged = bytearray(sound)
        damaged[place] ^= 1
        (entry / "pixels.u8").write_bytes(bytes(damaged))
        assert prepare(config).fingerprint == fingerprint
        assert (entry / "pixels.u8").read_bytes() == sound
