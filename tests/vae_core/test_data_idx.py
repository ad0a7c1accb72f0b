import gzip
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from vae_core.config import DataConfig
from vae_core.data import prepare
from vae_core.data.idx import read_idx
from vae_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("VAE_SWEEP_TEST_DATA", ROOT / "../shared/data")) / "fashion-mnist"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no Fashion-MNIST at {REAL}")
IMAGES = {"train": 60, "t10k": 10}
TRAIN, TEST, TEST_LABELS = (
    f"{name}.gz" for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_set(folder, pack=gzip.compress, suffix=".gz"):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in IMAGES.items():
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{prefix}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images)))
        (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels)))
    return folder


def config(path, tmp_path, **changes):
    options = {
        "source": "mnist",
        "path": path and str(path),
        "width": 28,
        "cache_dir": str(tmp_path / "cache"),
    }
    return DataConfig(**(options | changes))


@pytest.mark.parametrize(
    ("inside", "pack", "suffix"),
    [
        ("", gzip.compress, ".gz"),
        ("", bytes, ""),
        ("MNIST/raw", gzip.compress, ".gz"),
        ("raw", bytes, ""),
    ],
)
def test_the_files_are_found_plain_or_gzipped_directly_or_where_torchvision_puts_them(tmp_path, inside, pack, suffix):
    write_set(tmp_path / "set" / inside, pack, suffix)
    dataset = prepare(config(tmp_path / "set", tmp_path))
    assert len(dataset) == 70
    assert dataset.splits["test"].tolist() == list(range(60, 70))
    assert len(dataset.splits["val"]) == round(0.15 * 70)
    assert dataset.label_names == list("0123456789")
    assert dataset.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_training_images_that_nearly_repeat_a_test_image_are_excluded_and_counted(tmp_path):
    folder = write_set(tmp_path / "set", bytes, "")
    _, train = read_idx(folder / "train-images-idx3-ubyte", 3)
    _, test = read_idx(folder / "t10k-images-idx3-ubyte", 3)
    train = train.copy()
    train[7], train[20] = test[3], np.clip(test[5].astype(int) + 1, 0, 255)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(train))
    dataset = prepare(config(folder, tmp_path))
    assert dataset.excluded == {"near_duplicate_of_official_test": 2}
    assert not {"train-00007", "train-00020"} & set(dataset.names)
    assert len(dataset.splits["test"]) == 10


def test_a_limit_takes_train_and_test_in_proportion_whatever_their_order(tmp_path):
    dataset = prepare(config(write_set(tmp_path / "set"), tmp_path, limit=35))
    assert len(dataset) == 35
    assert len(dataset.splits["test"]) == 5
    smaller = prepare(config(tmp_path / "set", tmp_path, limit=21))
    assert set(smaller.names) < set(dataset.names)


def test_images_are_brought_to_the_width_and_channels_of_the_config(tmp_path):
    dataset = prepare(config(write_set(tmp_path / "set"), tmp_path, width=14, channels=3))
    _, images = read_idx(tmp_path / "set" / "train-images-idx3-ubyte.gz", 3)
    expected = np.floor(images[0].reshape(14, 2, 14, 2).mean(axis=(1, 3)) + 0.5)
    np.testing.assert_array_equal(dataset.image(0), np.stack([expected] * 3))


def damage(name, change):
    def apply(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage(TRAIN, lambda b: b[:5000]), "train-images-idx3-ubyte.gz cannot be read"),
        (damage(TRAIN, lambda b: b[:3000] + b"\x00" * 50 + b[3050:]), "cannot be read"),
        (damage(TRAIN, lambda b: b[:-8] + b"\x00" * 8), "cannot be read .*CRC"),
        (damage(TEST, lambda b: gzip.compress(gzip.decompress(b)[:-5])), "holds 7835 bytes .* 7840"),
        (damage(TEST, lambda b: gzip.compress(gzip.decompress(b) + b"1")), "holds 7841 bytes"),
        (damage(TEST, lambda _: b""), "begins with nothing, not 00000803"),
        (damage(TEST, lambda _: b"\x00\x00\x08\x03\x00"), "ends within its header"),
        (
            damage(TEST_LABELS, lambda _: gzip.compress(idx(np.zeros(9, np.uint8)))),
            "10 images, but .* 9 labels",
        ),
        (
            damage(TEST_LABELS, lambda b: gzip.compress(b"\x00\x00\x0d\x01" + gzip.decompress(b)[4:])),
            "00000d01",
        ),
        (
            lambda folder: (folder / "train-labels-idx1-ubyte.gz").unlink(),
            "no train-labels-idx1-ubyte .with or without .gz",
        ),
    ],
)
def test_a_damaged_or_missing_file_is_named(tmp_path, change, message):
    change(write_set(tmp_path / "set"))
    with pytest.raises(UserError, match=f"^data.path: .*{message}"):
        prepare(config(tmp_path / "set", tmp_path))


def test_a_label_out_of_range_is_a_skipped_image(tmp_path):
    folder = write_set(tmp_path / "set", bytes, "")
    labels = np.zeros(60, dtype=np.uint8)
    labels[4] = 10
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    (item,) = prepare(config(folder, tmp_path)).skipped
    assert (item.name, item.reason) == ("train-00004", "its label is 10, not 0 to 9")


def test_without_a_path_torchvision_fetches_into_the_cache_and_a_failure_says_what_to_do(tmp_path, monkeypatch):
    def fail(root, train, download):
        assert train
        assert download
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    with pytest.raises(
        UserError, match=r"could not fetch MNIST into .*torchvision .no network.; give a folder that holds "
    ):
        prepare(config(None, tmp_path))

    def succeed(root, train, download):
        write_set(Path(root) / "MNIST" / "raw")

    monkeypatch.setattr("torchvision.datasets.MNIST", succeed)
    assert len(prepare(config(None, tmp_path))) == 70


@needs_real
def test_the_reader_agrees_with_torchvision_on_the_real_files(tmp_path):
    from torchvision.datasets import FashionMNIST

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in REAL.glob("t10k-*.gz"):
        (raw / path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        shutil.copy(raw / name.replace("train", "t10k"), raw / name)
    official = FashionMNIST(str(tmp_path), train=False)
    _, images = read_idx(REAL / "t10k-images-idx3-ubyte.gz", 3)
    _, labels = read_idx(REAL / "t10k-labels-idx1-ubyte.gz", 1)
    np.testing.assert_array_equal(images, official.data.numpy())
    np.testing.assert_array_equal(labels, official.targets.numpy())


@needs_real
def test_the_real_set_is_prepared_in_seconds_without_large_groups_and_reopened_at_once(tmp_path):
    import time

    real = config(REAL, tmp_path, source="fashion-mnist")
    start = time.perf_counter()
    dataset = prepare(real)
    assert time.perf_counter() - start < 60
    start = time.perf_counter()
    again = prepare(real)
    assert time.perf_counter() - start < 0.5  # about 0.04 on an idle core
    assert again.fingerprint == dataset.fingerprint
    assert len(dataset.splits["test"]) == 10_000
    assert len(dataset) + dataset.excluded["near_duplicate_of_official_test"] == 70_000
    assert 50 < dataset.excluded["near_duplicate_of_official_test"] < 500
    assert np.bincount(dataset.groups).max() < 50
    assert dataset.label_names[dataset.labels[0]] == "Ankle boot"
