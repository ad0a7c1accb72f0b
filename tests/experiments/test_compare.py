"""`vae-sweep compare`: which runs a word names, what differs between them, and what must not be compared."""

import re
import shutil
import statistics

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from support.study_builder import CONFIG, StudyBuilder, beta_study

from experiments.compare_pictures import picture_rows
from experiments.compare_runs import compared_runs, warnings
from experiments.compare_tables import tables
from experiments.grid import BETTER, WORSE
from experiments.run_search import find_run
from tracking.files import read_json, write_json
from vae_core.config import parse_config
from vae_core.data import prepare
from vae_core.errors import UserError
from vae_core.models.vae import build_model
from vae_core.yaml_io import dump_yaml, load_yaml


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two studies whose ids overlap: `beta`, six runs, all done; `sigma`, a done, a failed and a running one."""
    folder = tmp_path_factory.mktemp("built")
    beta_study(folder / "beta")
    builder = StudyBuilder(folder / "sigma", {"loss.sigma": [0.1, 0.2, 0.3]}, seeds=(0,))
    done, failed, running = (builder.cell(loss__sigma=value)[0] for value in (0.1, 0.2, 0.3))
    builder.done(done, elbo=-9.0, mse=0.002)
    builder.failed(failed)
    builder.running(running)
    return folder


@pytest.fixture
def root(built, tmp_path):
    return shutil.copytree(built, tmp_path / "runs")


@pytest.fixture
def vae_sweep(printed_by):
    return printed_by


def rows_of(grid):
    return {row[0].text: [word.text for word in row[1:]] for row in grid.rows}


def titled(grids, beginning):
    [grid] = [grid for grid in grids if grid.title.startswith(beginning)]
    return grid


@pytest.mark.parametrize(
    "word",
    [
        "beta/run1x1",
        "beta/loss.beta=1.0 seed=1",
        "loss.beta=1 seed=1",
        "beta=1.0 seed=1",
        "beta/beta=1e0 seed=1",
    ],
)
def test_a_run_is_found_by_each_of_its_names(root, word):
    found = find_run(root, word)
    assert (found.id, found.seed, found.study.path.name) == ("run1x1", 1, "beta")


def test_a_run_is_found_by_its_folder_even_under_another_root(root, tmp_path):
    found = find_run(tmp_path / "elsewhere", str(root / "beta" / "runs" / "run1x0"))
    assert found.name == "beta/loss.beta=1.0 seed=0"


def test_a_cell_of_one_run_and_the_beginning_of_an_id_are_enough(root):
    assert find_run(root, "sigma=0.2").id == "run1x0"
    assert find_run(root, "sigma/run2").id == "run2x0"


@pytest.mark.parametrize(
    ("word", "candidates"),
    [
        ("beta/loss.beta=1", ["beta/run1x0 (loss.beta=1.0 seed=0)", "beta/run1x1 (loss.beta=1.0 seed=1)"]),
        ("run0x0", ["beta/run0x0 (loss.beta=0.1 seed=0)", "sigma/run0x0 (loss.sigma=0.1 seed=0)"]),
        ("beta/run2", ["beta/run2x0", "beta/run2x1"]),
    ],
)
def test_an_ambiguous_word_lists_what_it_may_mean(root, vae_sweep, word, candidates):
    printed = vae_sweep("compare", word, "beta/run1x1", "--root", root, check=2)
    assert f"names {len(candidates)} runs; write one of them as STUDY/ID" in printed
    assert all(candidate in printed for candidate in candidates)


def test_an_unknown_word_lists_what_is_near(root, vae_sweep):
    printed = vae_sweep("compare", "beta/loss.beta=1 seed=7", "beta/run1x1", "--root", root, check=2)
    assert "'beta/loss.beta=1 seed=7' names no run; did you mean beta/loss.beta=1" in printed
    assert "names no run; studies there: valid: beta, sigma" in vae_sweep(
        "compare", "qqqqqqqqqqqqqqqqqqqqqq", "beta/run1x1", "--root", root, check=2
    )


def test_one_run_the_same_run_twice_and_an_empty_root_are_refused(root, tmp_path):
    with pytest.raises(UserError, match="takes 2 to 26 runs; got 1"):
        compared_runs(root, ["beta/run1x1"])
    with pytest.raises(UserError, match=r"are the same run, beta/loss\.beta=1\.0 seed=1"):
        compared_runs(root, ["beta/run1x1", "beta=1 seed=1"])
    with pytest.raises(UserError, match="holds no run yet"):
        find_run(tmp_path / "nothing", "beta")


def test_only_the_fields_that_differ_are_shown(root):
    grid = titled(tables(compared_runs(root, ["beta/run0x0", "beta/run1x1", "sigma/run0x0"])), "Config")
    assert rows_of(grid) == {
        "loss.beta": ["0.1", "1.0", "not set"],
        "seed": ["0", "1", "0"],
        "loss.sigma": ["not set", "not set", "0.1"],
    }
    assert re.match(r"The other \d+ fields are the same", grid.note)


def test_metrics_have_differences_to_the_first_run_and_a_direction(root):
    grid = titled(tables(compared_runs(root, ["beta/run0x0", "beta/run1x0"])), "Test metrics")
    assert grid.head == ("metric", "A", "B", "B − A", "sd of A")
    rows = rows_of(grid)
    sd = statistics.stdev([-10.0, -9.0])
    assert rows["elbo ↑"] == ["-10", "-8", "+2", f"{sd:.3g}"]  # no share: an ELBO has no zero
    assert rows["mse ↓"][:3] == ["0.004", "0.006", "+0.002\n+50%"]
    assert rows["kl"][:3] == ["9", "4", "-5\n-55.6%"]
    assert rows["active_units"][:3] == ["4", "2", "-2"]
    styles = {row[0].text: row[3].style for row in grid.rows}
    assert styles["elbo ↑"] == BETTER
    assert styles["mse ↓"] == WORSE
    assert styles["kl"] == ""


def changed(root, study, run, **changes):
    """Change fields (`__` stands for the dot) of a run's config."""
    path = root / study / "runs" / run / "config.yaml"
    tree = load_yaml(path)
    for name, value in changes.items():
        section, _, field = name.partition("__")
        tree[section][field] = value
    path.write_text(dump_yaml(tree))


def test_under_another_likelihood_elbos_are_not_compared_and_errors_are(root, vae_sweep):
    changed(root, "beta", "run1x0", evaluate__likelihood="bernoulli")
    runs = compared_runs(root, ["beta/run0x0", "beta/run1x0"])
    rows = rows_of(titled(tables(runs), "Test metrics"))
    assert rows["elbo ↑"][2] == rows["reconstruction ↓"][2] == "–"
    assert rows["mse ↓"][2] == "+0.002\n+50%"
    [alarm] = warnings(runs)
    assert "DIFFERENT EVALUATION LIKELIHOODS: evaluate.likelihood gaussian and bernoulli" in alarm
    assert "DIFFERENT EVALUATION" in vae_sweep("compare", "beta/run0x0", "beta/run1x0", "--root", root)


@pytest.mark.parametrize("same_test_images", [False, True])
def test_other_data_are_an_alarm_and_metrics_of_other_test_images_are_not_compared(root, same_test_images):
    for run, digest in (("run0x0", "one"), ("run1x0", "one" if same_test_images else "two")):
        path = root / "beta" / "runs" / run / "run.json"
        info = read_json(path) | {"data_fingerprint": f"data of {run}", "split_hashes": {"test": digest}}
        write_json(path, info)
    runs = compared_runs(root, ["beta/run0x0", "beta/run1x0"])
    [alarm] = warnings(runs)
    assert "DIFFERENT DATA (data of run0x0 and data of run1x0)" in alarm
    assert ("no test metric" in alarm) is not same_test_images
    differences = {row[2] for row in rows_of(titled(tables(runs), "Test metrics")).values()}
    assert (differences == {"–"}) is not same_test_images


def test_equal_runs_raise_no_alarm(root):
    assert warnings(compared_runs(root, ["beta/run0x0", "beta/run1x0", "beta/run2x1"])) == []


def test_failed_and_running_runs_are_shown_as_such_beside_validation_at_equal_epochs(root):
    runs = compared_runs(root, ["sigma/run0x0", "sigma/run1x0", "sigma/run2x0"])
    grids = tables(runs)
    states = [row[2].text for row in titled(grids, "Runs").rows]
    assert states == [
        "done, 2 epochs, best 2",
        "failed, epoch 1 of ? (nan: val/elbo is nan)",
        "running, epoch 1 of ?",
    ]
    assert rows_of(titled(grids, "Test metrics"))["elbo ↑"][:3] == ["-9", "–", "–"]
    grid = titled(grids, "Validation after epoch 1")
    assert rows_of(grid)["val/elbo ↑"][:3] == ["-29", "-29", "-29"]


def test_provenance_shows_what_differs(root):
    machine = {"hostname": "n1", "cpu": "fast", "packages": {"torch": "2.15", "numpy": "2.4"}}
    code = {"commit": "a" * 40, "dirty": False, "diff": ""}
    write_json(root / "beta" / "provenance.json", machine | code)
    dirty = {"commit": "a" * 40, "dirty": True, "diff": "+ x"}
    other = {"hostname": "n1", "cpu": "slow", "packages": {"torch": "2.16", "numpy": "2.4"}}
    write_json(root / "sigma" / "provenance.json", other | dirty)
    grid = titled(tables(compared_runs(root, ["beta/run0x0", "sigma/run0x0"])), "Provenance")
    rows = rows_of(grid)
    assert rows["torch"] == ["2.15", "2.16"]
    assert rows["cpu"] == ["fast", "slow"]
    assert rows["commit"][0] == "aaaaaaaaaa clean"
    assert re.fullmatch(r"aaaaaaaaaa with uncommitted changes \([0-9a-f]{8}\)", rows["commit"][1])
    assert set(rows) == {"torch", "cpu", "commit"}


@pytest.fixture
def painted(tmp_path):
    """Three finished runs whose decoders draw white, black and, of other data, white."""
    dataset = prepare(parse_config(CONFIG, "test").data)
    builder = StudyBuilder(
        tmp_path / "study", {"loss.beta": [1.0, 2.0, 3.0]}, seeds=(0,), fingerprint=dataset.fingerprint
    )
    for beta, logit in ((1.0, 20.0), (2.0, -20.0), (3.0, 20.0)):
        [run] = builder.cell(loss__beta=beta)
        config = parse_config(builder.config, "test")
        model = build_model(config.model, 1, 0, "cpu")
        torch.nn.init.zeros_(model.decoder.head.weight)
        torch.nn.init.constant_(model.decoder.head.bias, logit)
        builder.done(run, artifacts={"best.pt": "artifacts/best.pt"})
        torch.save(model.state_dict(), builder.study.run(run).attempt(0).artifacts / "best.pt")
    path = tmp_path / "study" / "runs" / "run2x0" / "run.json"
    write_json(path, read_json(path) | {"data_fingerprint": "e" * 16})
    return tmp_path, dataset


def test_every_run_reconstructs_the_same_test_images(painted):
    root, dataset = painted
    rows, note = picture_rows(compared_runs(root, ["run0x0", "run1x0", "run2x0"]))
    targets, white, black, other = rows
    tests = [dataset.image(int(index)) / 255 for index in dataset.splits["test"]]
    assert len(targets.pictures) == min(8, len(tests))
    for picture in targets.pictures:
        assert any(picture.shape == test.shape and np.allclose(picture, test) for test in tests)
    assert [picture.shape for picture in white.pictures] == [picture.shape for picture in targets.pictures]
    assert all((picture > 0.99).all() for picture in white.pictures)
    assert all((picture < 0.01).all() for picture in black.pictures)
    assert white.label.startswith("A: study/loss.beta=1.0 seed=0, test MSE 0.0100")
    assert other.pictures is None
    assert "saw other data" in other.label
    assert "test images of the data that A has seen" in note


def test_the_command_writes_markdown_and_a_picture_and_says_where(painted, vae_sweep, tmp_path):
    root, _ = painted
    printed = vae_sweep("compare", "run0x0", "run1x0", "--root", root)
    folder = root / "compare" / "run0x0-run1x0"
    assert f"Written: {folder / 'comparison.md'}, {folder / 'reconstructions.png'}" in printed
    assert "vae-sweep report study --root" in printed
    text = (folder / "comparison.md").read_text()
    assert text.startswith("# study/loss.beta=1.0 seed=0 against study/loss.beta=2.0 seed=0\n")
    assert "| loss.beta | 1.0 | 2.0 |" in text
    assert "](reconstructions.png)" in text
    assert imread(folder / "reconstructions.png").shape[1] == 990
    vae_sweep("compare", "run0x0", "run1x0", "--root", root, "-o", tmp_path / "own")
    assert (tmp_path / "own" / "comparison.md").read_text() == text
    (tmp_path / "file").touch()
    printed = vae_sweep("compare", "run0x0", "run1x0", "--root", root, "-o", tmp_path / "file", check=2)
    assert printed.startswith("error: -o ")  # before any table
    assert "cannot be made (File exists)" in printed


def test_without_a_finished_run_there_is_no_picture_and_a_reason(root, vae_sweep):
    printed = vae_sweep("compare", "sigma/run1x0", "sigma/run2x0", "--root", root)
    assert "No pictures: none of the runs is finished." in printed
    assert "failed, epoch 1" in printed
    [text] = [path.read_text() for path in (root / "compare").glob("*/comparison.md")]
    assert "No pictures" in text
    assert "Test metrics" not in text
