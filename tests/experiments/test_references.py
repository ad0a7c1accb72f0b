"""The mean image and PCA against NumPy's SVD, loops over real pixels and scikit-image; and their cache."""

import json
import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from support.study_builder import CONFIG, StudyBuilder, beta_study

from experiments.pca import fit_pca, mean_image
from experiments.reference_measuring import measure
from experiments.references import References, latent_dims, references
from experiments.results import collect
from vae_core.config import parse_config
from vae_core.data.dataset import RECORD, Dataset, Summary
from vae_core.data.splits import SPLITS

FEW, MANY = 40, 400  # images: fewer and more than the canvas of 12 x 10 px has values


def make_dataset(count, sizes=((12, 10), (8, 10)), channels=1, fingerprint="f" * 16):
    random = np.random.default_rng(7)
    records = np.zeros(count, dtype=RECORD)
    images = []
    for index in range(count):
        height, width = sizes[index % len(sizes)]
        image = np.full((channels, height, width), random.integers(0, 120), dtype=np.uint8)
        for _ in range(2):
            top, left = random.integers(0, height - 3), random.integers(0, width - 3)
            image[:, top : top + 4, left : left + 5] += np.uint8(random.integers(20, 67))
        images.append(image)
        split = SPLITS.index(("train", "train", "test", "train", "val")[index % 5])
        records[index] = (height, width, -1, index, split, b"0" * 32)
    names = [str(index) for index in range(count)]
    summary = Summary("synthetic", fingerprint, channels, names, [], [], {})
    return Dataset(summary, records, np.concatenate([image.ravel() for image in images]))


def canvas(dataset, split):
    """Return the images of a split `(n, C, H, W)` in [0, 1], NaN where they have no pixel."""
    indices = dataset.splits[split]
    height, width = dataset.sizes.max(axis=0)
    images = np.full((len(indices), dataset.channels, height, width), np.nan)
    for row, index in enumerate(indices):
        h, w = dataset.sizes[index]
        images[row, :, :h, :w] = dataset.image(int(index)) / 255
    return images


def independent_pca(dataset, components):
    """Return (mean, test reconstructions) by NaN-aware means and NumPy's SVD."""
    train, test = canvas(dataset, "train"), canvas(dataset, "test")
    mean = np.nanmean(train, axis=0)
    flat = np.nan_to_num(train - mean).reshape(len(train), -1)
    axes = np.linalg.svd(flat, full_matrices=False)[2][:components]
    scores = np.nan_to_num(test - mean).reshape(len(test), -1) @ axes.T
    return mean, (scores @ axes).reshape(test.shape) + mean


def mse_by_loops(dataset, pictures):
    """Return the mean over test images of the mean squared error over real pixels."""
    errors = []
    for row, index in enumerate(dataset.splits["test"]):
        image = dataset.image(int(index)) / 255
        total, count = 0.0, 0
        for position in np.ndindex(image.shape):
            total += float(np.clip(pictures[(row, *position)], 0, 1) - image[position]) ** 2
            count += 1
        errors.append(total / count)
    return math.fsum(errors) / len(errors)


def base_config(**evaluate):
    return parse_config({**CONFIG, "evaluate": {"lpips": "off", **evaluate}}, "test")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mean_image_averages_each_pixel_over_the_images_that_have_it(channels):
    dataset = make_dataset(FEW, channels=channels)

    found = mean_image(dataset, dataset.splits["train"])

    np.testing.assert_allclose(found, np.nanmean(canvas(dataset, "train"), axis=0), rtol=1e-12)


def test_a_pixel_that_no_training_image_has_gets_the_mean_of_all_pixels():
    dataset = make_dataset(10, sizes=[(8, 10)] * 2 + [(12, 10)] + [(8, 10)] * 2)  # only test images are tall

    found = mean_image(dataset, dataset.splits["train"])

    pixels = [dataset.image(int(index)) for index in dataset.splits["train"]]
    np.testing.assert_allclose(found[:, 8:], np.mean(pixels) / 255, rtol=1e-12)


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("block_values", [2**23, 500])
def test_components_are_those_of_a_singular_value_decomposition(count, block_values, monkeypatch):
    monkeypatch.setattr("experiments.pca._BLOCK_VALUES", block_values)
    dataset = make_dataset(count)
    _, expected = independent_pca(dataset, 5)

    pca = fit_pca(dataset, dataset.splits["train"], 5)

    flat = pca.components.reshape(5, -1).astype(np.float64)
    test = np.nan_to_num(canvas(dataset, "test") - pca.mean).reshape(len(expected), -1)
    found = (test @ flat.T @ flat).reshape(expected.shape) + pca.mean
    np.testing.assert_allclose(flat @ flat.T, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("count", [FEW, MANY])
def test_the_curve_and_the_rows_are_measured_on_real_pixels_of_the_test_split(count):
    dataset = make_dataset(count)

    found = measure(base_config(), dataset, [2, 4])

    assert [row.name for row in found.rows] == ["mean image", "PCA, 2 components", "PCA, 4 components"]
    assert len(found.pca_mse) == 5
    for components in (0, 1, 4):
        mse = found.pca_mse[components]
        expected = mse_by_loops(dataset, independent_pca(dataset, components)[1])
        assert mse == pytest.approx(expected, rel=1e-4), components
    assert [row.metrics["test/mse"] for row in found.rows[1:]] == [found.pca_mse[2], found.pca_mse[4]]
    assert found.rows[0].metrics["test/mse"] == pytest.approx(found.pca_mse[0], rel=1e-5)
    assert found.notes == ()


def test_ssim_is_that_of_scikit_image_on_the_real_pixels():
    dataset = make_dataset(FEW, sizes=((24, 16), (14, 16)))

    found = measure(base_config(), dataset, [3])

    mean, pictures = independent_pca(dataset, 3)
    for row, shown in ((found.rows[0], np.broadcast_to(mean, pictures.shape)), (found.rows[1], pictures)):
        expected = []
        for position, index in enumerate(dataset.splits["test"]):
            image = dataset.image(int(index))[0] / 255
            h, w = image.shape
            picture = shown[position, 0, :h, :w].clip(0, 1)
            options = {"gaussian_weights": True, "use_sample_covariance": False, "sigma": 1.5}
            expected.append(structural_similarity(picture, image, data_range=1.0, **options))
        assert row.metrics["test/ssim"] == pytest.approx(np.mean(expected), abs=1e-4)


def test_the_mean_images_elbo_is_a_gaussian_whose_scale_was_fitted_on_train():
    dataset = make_dataset(FEW)

    row = measure(base_config(), dataset, [1]).rows[0]

    train, test = canvas(dataset, "train"), canvas(dataset, "test")
    mean = np.nanmean(train, axis=0)
    variance = np.nanmean((train - mean) ** 2)
    nll = 0.5 * (test - mean) ** 2 / variance + 0.5 * np.log(2 * np.pi * variance)
    assert row.metrics["test/reconstruction"] == pytest.approx(np.nansum(nll, axis=(1, 2, 3)).mean(), rel=1e-4)
    assert row.metrics["test/elbo"] == -row.metrics["test/reconstruction"]
    assert row.metrics["test/kl"] == 0
    assert row.metrics["test/active_units"] == 0


def test_more_components_than_the_train_split_spans_are_named_and_measured_with_all_there_are():
    dataset = make_dataset(FEW)  # 24 training images span 23 dimensions

    found = measure(base_config(), dataset, [64])

    assert found.rows[1].name == "PCA, 64 components (the train split spans 23)"
    assert found.rows[1].metrics["test/mse"] == found.pca_mse[-1] == found.mse_of_pca(64)
    assert len(found.pca_mse) == 24


def test_images_too_large_for_pca_are_named(monkeypatch):
    monkeypatch.setattr("experiments.reference_measuring._MOST_VALUES", 100)

    found = measure(base_config(), make_dataset(FEW), [2])

    assert [row.name for row in found.rows] == ["mean image"]
    assert "120 values, more than 100" in found.notes[0]
    assert found.mse_of_pca(2) is None


def test_lpips_is_measured_where_the_runs_have_it(monkeypatch):
    class Distance:
        def __init__(self, device):
            pass

        def __call__(self, reconstructions, images, sizes):
            distances = (reconstructions - images).abs()
            return torch.stack([d[:, :h, :w].mean() for d, (h, w) in zip(distances, sizes.tolist(), strict=True)])

    for module in ("evaluation", "perceptual"):
        monkeypatch.setattr(f"vae_core.{module}.lpips_available", lambda: None)
    monkeypatch.setattr("vae_core.evaluation.Lpips", Distance)
    monkeypatch.setattr("experiments.reference_measuring.Lpips", Distance)
    dataset = make_dataset(FEW)

    found = measure(base_config(lpips="auto"), dataset, [3])

    _, pictures = independent_pca(dataset, 3)
    expected = np.nanmean(np.abs(pictures.clip(0, 1) - canvas(dataset, "test")), axis=(1, 2, 3)).mean()
    assert found.rows[1].metrics["test/lpips"] == pytest.approx(expected, rel=1e-4)
    assert "test/lpips" in found.rows[0].metrics


def test_measuring_touches_no_global_generator():
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002

    measure(base_config(), make_dataset(FEW), [2])

    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"model.latent_dim": [8, 2]}, [2, 8]),
        ({"loss.beta": [1.0]}, [4]),
        ({"model.latent_dim": list(range(1, 12))}, [1, 3, 5, 7, 9, 11]),  # of many sizes six
    ],
)
def test_every_latent_size_of_the_study_gets_its_row(tmp_path, space, expected):
    builder = StudyBuilder(tmp_path / "study", space)
    builder.cell(**{path.replace(".", "__"): values[0] for path, values in space.items()})

    assert latent_dims(collect(builder.study)) == expected


def test_the_mse_of_pca_takes_the_nearest_number_of_components_it_has():
    found = References((), (0.9, 0.5, 0.2), ())

    assert [found.mse_of_pca(units) for units in (0, 1, 1.6, 7)] == [0.9, 0.5, 0.2, 0.2]


@pytest.fixture
def measured(monkeypatch):
    """Let `prepare` return a small data set, and count how often it is asked for one."""
    calls = []

    def prepare(config):
        calls.append(config)
        return make_dataset(FEW)

    monkeypatch.setattr("vae_core.data.prepare", prepare)
    return calls


def test_rows_are_measured_once_and_read_back_equal(tmp_path, measured):
    builder = beta_study(tmp_path / "study")
    found = [references(builder.study, collect(builder.study)) for _ in range(3)]

    assert found[0] == found[1] == found[2]
    assert len(found[0].rows) == 2
    lpips_is_here = "test/lpips" in found[0].rows[0].metrics
    assert len(measured) == (1 if lpips_is_here else 3)  # missing weights are looked for again


def test_a_folder_that_cannot_be_written_still_gives_rows_and_says_why_they_are_slow(tmp_path, measured, monkeypatch):
    def refuse(path, content):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("experiments.references.write_json", refuse)
    builder = beta_study(tmp_path / "study")
    found = references(builder.study, collect(builder.study))
    assert len(found.rows) == 2
    assert any("cannot be written (Read-only file system)" in note for note in found.notes)


@pytest.mark.parametrize("damage", ["fingerprint", "garbage", "latent", "likelihood"])
def test_rows_of_something_else_are_measured_anew(tmp_path, measured, damage):
    config = {**CONFIG, "evaluate": {**CONFIG["evaluate"], "lpips": "off"}}
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0]}, config=config)
    for run in builder.cell(loss__beta=1.0):
        builder.done(run, lpips_tag="off")
    first = references(builder.study, collect(builder.study))
    file = builder.study.path / "references.json"
    content = json.loads(file.read_text())
    stale = [{**content["rows"][0], "name": "stale"}]
    keys = {
        "fingerprint": {"data_fingerprint": "0" * 16},
        "latent": {"latent_dims": [5]},
        "likelihood": {"likelihood": ["laplace", 256]},
    }
    key = content["key"] | keys.get(damage, {})
    file.write_text("{" if damage == "garbage" else json.dumps({**content, "key": key, "rows": stale}))

    again = references(builder.study, collect(builder.study))

    assert again == first
    assert len(measured) == 2
    assert references(builder.study, collect(builder.study)) == first
    assert len(measured) == 2


def test_data_that_have_changed_since_give_a_note_and_no_rows(tmp_path, measured):
    builder = beta_study(tmp_path / "study", fingerprint="a" * 16)

    found = references(builder.study, collect(builder.study))

    assert found.rows == ()
    assert found.notes == (
        f"No reference rows: the data set's fingerprint is now {'f' * 16}, but the runs have seen {'a' * 16}.",
    )
    assert not (builder.study.path / "references.json").exists()


def test_data_that_are_gone_give_a_note_and_no_rows(tmp_path):
    config = {**CONFIG, "data": {"source": "folder", "path": str(tmp_path / "nowhere"), "width": 16}}
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0]}, config=config)
    builder.cell(loss__beta=1.0)

    found = references(builder.study, collect(builder.study))

    assert found.rows == ()
    assert "nowhere" in found.notes[0]
