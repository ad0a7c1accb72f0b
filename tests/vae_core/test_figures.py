import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from vae_core.config import parse_config
from vae_core.evaluation import Evaluator
from vae_core.figures import (
    draw_kl_spectrum,
    draw_reconstructions,
    draw_samples,
    prior_samples,
    write_figures,
)
from vae_core.models.vae import build_model

BLUE = (0x2A, 0x6F, 0x97)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def count(png, colour):
    return int((pixels(png) == colour).all(axis=2).sum())


@pytest.fixture
def setting(make_dataset):
    tree = {
        "data": {"pad_multiple": 16},
        "model": {
            "encoder_widths": [4, 8, 8],
            "decoder_widths": [8, 8, 4],
            "norm_groups": 4,
            "latent_dim": 5,
        },
        "evaluate": {"lpips": "off"},
    }
    config = parse_config(tree, "test")
    return build_model(config.model, 1, 0, "cpu"), Evaluator(config, make_dataset(40), "cpu")


def test_it_writes_one_png_per_figure_and_nothing_else(setting, tmp_path):
    model, evaluator = setting
    vectors = evaluator.evaluate(model, "val", 1.0).vectors
    paths = write_figures(model, evaluator, tmp_path / "figures", 5, vectors)
    assert [path.name for path in paths] == [
        "reconstructions_0005.png",
        "prior_samples_0005.png",
        "kl_spectrum_0005.png",
    ]
    assert sorted(paths) == sorted((tmp_path / "figures").iterdir())
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert "Software" not in image.info, "a version would make equal figures differ"
            assert min(image.size) >= 150
            assert max(image.size) <= 1600


def test_without_an_evaluation_there_is_no_spectrum(setting, tmp_path):
    model, evaluator = setting
    names = [path.name for path in write_figures(model, evaluator, tmp_path, 12, {})]
    assert names == ["reconstructions_0012.png", "prior_samples_0012.png"]


def test_equal_numbers_give_equal_files_and_no_global_generator_moves(setting, tmp_path):
    model, evaluator = setting
    vectors = evaluator.evaluate(model, "val", 1.0).vectors
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - that nothing draws from it
    first, second = (write_figures(model.train(), evaluator, tmp_path / name, 5, vectors) for name in ("a", "b"))
    assert model.training
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_prior_samples_are_fixed_draws_cut_to_size(setting):
    model, _ = setting
    samples = prior_samples(model, 6, (21, 13), multiple=16)
    assert [tuple(sample.shape) for sample in samples] == [(1, 21, 13)] * 6
    again = prior_samples(model, 6, (21, 13), multiple=16)
    assert all(torch.equal(one, two) for one, two in zip(samples, again, strict=True))
    assert not torch.equal(samples[0], samples[1])
    assert all(0 <= sample.min() <= sample.max() <= 1 for sample in samples)


def test_targets_stand_above_their_reconstructions():
    targets = [torch.full((1, 12, 10), 100 / 255) for _ in range(3)]
    drawn = [torch.full((1, 12, 10), 200 / 255) for _ in range(3)]
    png = draw_reconstructions(targets, drawn, "test")
    rows = {level: np.nonzero((pixels(png) == level).all(axis=2).sum(axis=1) > 100)[0] for level in (100, 200)}
    assert len(rows[100]) > 60
    assert len(rows[200]) > 60
    assert rows[100].max() < rows[200].min()


def test_colours_and_different_sizes_are_drawn_to_one_scale():
    red, green = torch.zeros(3, 20, 10), torch.zeros(3, 10, 10)
    red[0], green[1] = 1, 1
    png = draw_samples([red, green], "test")
    assert count(png, (255, 0, 0)) == pytest.approx(2 * count(png, (0, 255, 0)), rel=0.05)
    assert count(png, (255, 0, 0)) > 1000


def test_the_spectrum_marks_active_units():
    kl = [0.001, 3.0, 2.0, 0.002]
    some = draw_kl_spectrum(kl, [0.01, 0.9, 0.9, 0.01], "test")
    none = draw_kl_spectrum(kl, [0.01, 0.01, 0.01, 0.01], "test")
    legend = count(none, BLUE)  # the legend's patch alone
    assert count(some, BLUE) > 20 * legend > 0


def test_the_spectrum_is_sorted_largest_first():
    kl, spread = [0.5, 3.0, 1.0, 2.0], [0.9, 0.9, 0.9, 0.9]
    png = draw_kl_spectrum(kl, spread, "test")
    assert draw_kl_spectrum(kl[::-1], spread, "test") == png
    bars = (pixels(png) == BLUE).all(axis=2)[100:].sum(axis=0)  # below the legend
    heights = [column for column, after in pairwise(bars) if column and not after]
    assert len(heights) == 4
    assert heights == sorted(heights, reverse=True)
    assert heights[0] > heights[3]


@pytest.mark.parametrize("dims", [1, 2, 128])
def test_the_spectrum_takes_any_number_of_dimensions(dims):
    png = draw_kl_spectrum(np.linspace(0, 1, dims).tolist(), [1.0] * dims, "test")
    assert pixels(png).shape[1] <= 1200
