"""The picture of a study: what its charts and its gallery hold."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from matplotlib.text import Text
from support.study_builder import CONFIG, StudyBuilder, beta_study

from experiments.overview import overview, write_overview
from experiments.reconstructions import gallery
from experiments.references import ReferenceRow, References
from experiments.results import collect
from vae_core.config import parse_config
from vae_core.data import prepare
from vae_core.models.vae import build_model

WHITE, BLACK = 20.0, -20.0  # logits


@pytest.fixture(autouse=True)
def planted_references(monkeypatch):
    rows = (
        ReferenceRow("mean image", None, {"test/mse": 0.04}),
        ReferenceRow("PCA, 4 components", 4, {"test/mse": 0.005}),
    )
    monkeypatch.setattr("experiments.overview.references", lambda *_: References(rows, (), ()))


def no_data(tmp_path):
    return {**CONFIG, "data": {"source": "folder", "path": str(tmp_path / "nowhere"), "width": 16}}


def charts_of(figure):
    return [axes for axes in figure.axes if not axes.images]


def mosaic_of(figure):
    (axes,) = [axes for axes in figure.axes if axes.images]
    return axes, axes.images[0].get_array()


def points(axes, marker):
    return sorted(
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in axes.lines
        if line.get_marker() == marker and len(line.get_xdata()) == 1
    )


def dashed(axes):
    return {line.get_label(): line for line in axes.lines if line.get_linestyle() == "--"}


def with_weights(builder, run, logit, **metrics):
    """Give a run selected weights whose decoder draws a constant."""
    config = parse_config(builder.config, "test")
    model = build_model(config.model, 1, 0, "cpu")
    torch.nn.init.zeros_(model.decoder.head.weight)
    torch.nn.init.constant_(model.decoder.head.bias, logit)
    builder.done(run, artifacts={"best.pt": "artifacts/best.pt"}, **metrics)
    torch.save(model.state_dict(), builder.study.run(run).attempt(0).artifacts / "best.pt")


@pytest.fixture
def painted(tmp_path):
    """Two cells, one seed: the first reconstructs white, the second black."""
    dataset = prepare(parse_config(CONFIG, "test").data)
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0, 2.0]}, seeds=(0,), fingerprint=dataset.fingerprint)
    for beta, logit in ((1.0, WHITE), (2.0, BLACK)):
        with_weights(builder, builder.cell(loss__beta=beta)[0], logit)
    return builder, dataset


def test_a_numeric_axis_is_a_curve_of_means_with_a_mark_per_seed(tmp_path):
    builder = beta_study(tmp_path / "study", config=no_data(tmp_path))

    kl, units, mse = charts_of(overview(builder.study, collect(builder.study)))

    assert kl.get_xscale() == "log"
    curve = max(kl.lines, key=lambda line: len(line.get_xdata()))
    np.testing.assert_allclose(curve.get_xydata(), [(0.1, 9.05), (1, 4.05), (100, 0.06)])
    np.testing.assert_allclose(points(kl, "o"), [(0.1, 9.0), (0.1, 9.1), (1, 4.0), (1, 4.1)])
    np.testing.assert_allclose(points(kl, "x"), [(100, 0.01), (100, 0.11)])
    assert points(units, "x") == [(100, 0), (100, 0)]
    assert [label.get_text() for label in units.get_xticklabels()] == ["0.1", "1", "100"]
    assert kl.get_xlabel() == "loss.beta"
    assert units.get_title(loc="left") == "Active units (of 4 dimensions)"
    assert {name: line.get_ydata()[0] for name, line in dashed(mse).items()} == {
        "mean image": 0.04,
        "PCA, 4 components": 0.005,
    }
    assert mse.get_ylim()[0] == 0
    assert mse.get_ylim()[1] > 0.04


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 2, 51], "log"), ([1, 2, 50], "linear"), ([0, 1, 60], "symlog"), ([-1, 1, 60], "linear"), ([3], "linear")],
)
def test_the_axis_is_logarithmic_where_its_values_span_more_than_fiftyfold(tmp_path, values, scale):
    builder = StudyBuilder(tmp_path / "study", {"loss.sigma": values}, seeds=(0,), config=no_data(tmp_path))
    for value in values:
        builder.done(builder.cell(loss__sigma=value)[0])

    assert charts_of(overview(builder.study, collect(builder.study)))[0].get_xscale() == scale


@pytest.mark.parametrize(
    ("space", "names"),
    [
        ({"model.block": ["resnet", "plain"]}, ["block = resnet", "block = plain"]),
        (
            {"loss.beta": [1.0], "model.latent_dim": [2, 4]},
            ["beta = 1, latent_dim = 2", "beta = 1, latent_dim = 4"],
        ),
        ({}, [""]),
    ],
)
def test_categories_and_several_axes_are_bars_with_a_mark_per_seed(tmp_path, space, names):
    builder = StudyBuilder(tmp_path / "study", space, config=no_data(tmp_path))
    cells = [{}]
    for path, values in space.items():
        cells = [{**cell, path.replace(".", "__"): value} for cell in cells for value in values]
    for number, params in enumerate(cells):
        for seed, run in enumerate(builder.cell(**params)):
            builder.done(run, kl=number + 1 + seed)

    kl, _, mse = charts_of(overview(builder.study, collect(builder.study)))

    assert [bar.get_width() for bar in kl.patches] == [number + 1.5 for number in range(len(cells))]
    assert points(kl, "o") == sorted((number + 1 + seed, number) for number in range(len(cells)) for seed in (0, 1))
    assert [label.get_text() for label in kl.get_yticklabels()] == names
    assert {name: line.get_xdata()[0] for name, line in dashed(mse).items()}["mean image"] == 0.04


def test_dollar_signs_are_drawn_as_they_are_written(tmp_path):
    names = ["$x_$%", "$a$ or $b$"]
    builder = StudyBuilder(tmp_path / "study", {"data.path": names}, seeds=(0,), config=no_data(tmp_path))
    sweep = builder.study.sweep_file
    sweep.write_text(sweep.read_text().replace("What does the axis do?", r"Does $\ELBO$ fall with $\beta$?"))
    for name in names:
        builder.done(builder.cell(data__path=name)[0])

    assert imread(write_overview(builder.study, collect(builder.study))).shape[0] > 500
    figure = overview(builder.study, collect(builder.study))
    texts = figure.findobj(Text)
    assert r"Does $\ELBO$ fall with $\beta$?" in figure.get_suptitle()
    assert {"path = $x_$%", "path = $a$ or $b$"} <= {text.get_text() for text in texts}
    assert not any(text.get_parse_math() for text in texts if "$" in text.get_text())


def test_a_logarithmic_axis_of_many_values_has_plain_numbers(tmp_path):
    values = [10.0**place for place in range(-4, 6)]
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": values}, seeds=(0,), config=no_data(tmp_path))
    for value in values:
        builder.done(builder.cell(loss__beta=value)[0])

    figure = overview(builder.study, collect(builder.study))
    figure.draw_without_rendering()

    assert "0.01" in [label.get_text() for label in charts_of(figure)[0].get_xticklabels()]
    assert not any("$" in text.get_text() for text in figure.findobj(Text))


def test_only_finished_runs_are_drawn_and_the_others_are_counted(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0, 2.0]}, config=no_data(tmp_path))
    first = builder.cell(loss__beta=1.0)
    builder.done(first[0])
    builder.failed(first[1])
    builder.cell(loss__beta=2.0)

    figure = overview(builder.study, collect(builder.study))

    assert points(charts_of(figure)[0], "o") == [(1.0, 5.0)]
    assert "4 runs: 1 done, 1 failed, 2 waiting" in figure.get_supxlabel()
    assert "No pictures" in figure.get_supxlabel()
    assert "nowhere" in figure.get_supxlabel()


def test_a_study_without_a_result_says_so(tmp_path):
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": [1.0]}, config=no_data(tmp_path))
    builder.cell(loss__beta=1.0)

    path = write_overview(builder.study, collect(builder.study))

    assert imread(path).shape[0] > 500
    assert charts_of(overview(builder.study, collect(builder.study)))[0].texts[0].get_text() == "no finished run yet"


def test_the_gallery_holds_the_same_test_images_and_what_each_cells_weights_make_of_them(painted):
    builder, dataset = painted

    found = gallery(builder.study, collect(builder.study), ["one", "two"], 3)

    assert [row.label for row in found.rows] == ["target", "one\nMSE 0.0100", "two\nMSE 0.0100"]
    targets, white, black = (row.pictures for row in found.rows)
    test = [dataset.image(int(index)) / 255 for index in dataset.splits["test"]]
    for picture in targets:
        assert any(picture.shape == image.shape and np.allclose(picture, image, atol=1e-6) for image in test)
    assert [picture.shape for picture in white] == [picture.shape for picture in targets]
    assert all(picture.min() > 0.999 for picture in white)
    assert all(picture.max() < 0.001 for picture in black)
    assert found.note == "3 test images; seed 0, selected weights, z sampled once"


def test_the_picture_shows_targets_on_top_and_a_row_per_cell(painted):
    builder, _ = painted

    axes, mosaic = mosaic_of(overview(builder.study, collect(builder.study)))

    step = mosaic.shape[0] // 3
    targets, white, black = (mosaic[line * step : line * step + 8, :14] for line in range(3))
    assert [label.get_text() for label in axes.get_yticklabels()][1:] == [
        "beta = 1\nMSE 0.0100",
        "beta = 2\nMSE 0.0100",
    ]
    assert 0.01 < targets.mean() < 0.99
    assert white.mean() > 0.999
    assert black.mean() < 0.001


@pytest.mark.parametrize("damage", ["missing", "garbage", "other shapes"])
def test_weights_that_cannot_be_read_leave_a_labelled_gap(painted, damage):
    builder, _ = painted
    path = builder.study.run("run0x0").attempt(0).artifacts / "best.pt"
    match damage:
        case "missing":
            path.unlink()
        case "garbage":
            path.write_bytes(b"not weights")
        case _:
            torch.save({"x": torch.zeros(1)}, path)

    found = gallery(builder.study, collect(builder.study), ["one", "two"], 3)

    assert found.rows[1].pictures is None
    assert found.rows[1].label.startswith("one\n(best.pt: ")
    assert found.rows[2].pictures is not None


def test_runs_of_other_data_leave_a_labelled_gap(painted):
    builder, _ = painted
    info = builder.study.run("run1x0").info_file
    info.write_text(info.read_text().replace(builder.fingerprint, "0" * 16))

    found = gallery(builder.study, collect(builder.study), ["one", "two"], 3)

    assert found.rows[2].label == "two\n(other data)"
    assert found.rows[2].pictures is None


def test_of_many_cells_twelve_are_shown_with_the_first_and_the_last(tmp_path):
    dataset = prepare(parse_config(CONFIG, "test").data)
    values = [float(value) for value in range(1, 31)]
    builder = StudyBuilder(tmp_path / "study", {"loss.beta": values}, seeds=(0,), fingerprint=dataset.fingerprint)
    for value in values:
        builder.done(builder.cell(loss__beta=value)[0])

    found = gallery(builder.study, collect(builder.study), [str(value) for value in values], 2)

    labels = [row.label.split()[0] for row in found.rows[1:]]
    assert (len(labels), labels[0], labels[-1]) == (12, "1.0", "30.0")
    assert found.note.endswith("; 18 more cells")


def test_equal_studies_give_equal_files_and_no_global_state_is_touched(painted):
    import matplotlib as mpl

    builder, _ = painted
    before = dict(mpl.rcParams), torch.random.get_rng_state()

    first = write_overview(builder.study, collect(builder.study)).read_bytes()
    second = write_overview(builder.study, collect(builder.study)).read_bytes()

    assert first == second
    assert dict(mpl.rcParams) == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert [path.name for path in builder.study.report.iterdir()] == ["overview.png"]
